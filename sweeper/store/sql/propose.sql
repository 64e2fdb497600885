-- Conversations of a range of accounts that may be due: what any probe finds, once each, in the order of their keys.
WITH probed AS MATERIALIZED (
$histories
$probes
)
SELECT p.account_id::text AS account_id,
       p.id::text AS id,
       p.last_activity_at,
       p.deleted_at,
       EXISTS (
           SELECT 1
           FROM sweeper.legal_holds h
           WHERE (sweeper.spelling(h.account_id) = sweeper.spelling(p.account_id::text)
                  OR sweeper.spelling(h.conversation_id) = sweeper.spelling(p.id::text)
                  OR (h.account_id IS NULL AND h.conversation_id IS NULL))
             AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
             AND (h.released_at IS NULL OR h.released_at > :as_of)
       ) AS held
FROM probed p
$after
ORDER BY p.account_id, p.id
LIMIT :limit
