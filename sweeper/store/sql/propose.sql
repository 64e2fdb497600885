-- Conversations of a range of accounts that may be due: what any probe finds, once each, in the order of their keys.
WITH probed AS MATERIALIZED (
$histories
$probes
), holding AS MATERIALIZED (
    SELECT sweeper.spelling(h.account_id) AS account,
           sweeper.spelling(h.conversation_id) AS conversation,
           h.account_id IS NULL AND h.conversation_id IS NULL AS everything
    FROM sweeper.legal_holds h
    WHERE (h.placed_at IS NULL OR h.placed_at <= :as_of) AND (h.released_at IS NULL OR h.released_at > :as_of)
)
SELECT p.account_id::text AS account_id,
       p.id::text AS id,
       p.last_activity_at,
       p.deleted_at,
       EXISTS (SELECT 1 FROM holding h WHERE h.everything)
       OR COALESCE(sweeper.spelling(p.account_id::text) IN (SELECT h.account FROM holding h WHERE h.account IS NOT NULL), false)
       OR COALESCE(sweeper.spelling(p.id::text) IN (SELECT h.conversation FROM holding h WHERE h.conversation IS NOT NULL), false)
       AS held
FROM probed p
WHERE p.id IS NOT NULL $after
ORDER BY p.account_id, p.id
LIMIT :limit
