-- Conversations of a range that may be due: what any probe finds, once each, in the order of their keys. A row under a hold that
-- is known is marked; each row asks the indexes of the holds, so that the cost follows the rows and not the holds. ORDER BY: a
-- planner that believes most holds to name one account would read the table until it meets one.
WITH probed AS MATERIALIZED (
$histories
$probes
), page AS MATERIALIZED (
    SELECT p.* FROM probed p
    WHERE p.id IS NOT NULL AND $others $after
    ORDER BY p.account_id, p.id
    LIMIT :limit
)
SELECT p.account_id::text AS account_id,
       p.id::text AS id,
       p.last_activity_at,
       p.deleted_at,
       COALESCE(
           (SELECT true FROM sweeper.legal_holds h
            WHERE h.account_id IS NULL AND h.conversation_id IS NULL
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           (SELECT true FROM sweeper.legal_holds h
            WHERE sweeper.spelling(h.account_id) = $account_spelling
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           (SELECT true FROM sweeper.legal_holds h
            WHERE sweeper.spelling(h.conversation_id) = $conversation_spelling
              AND COALESCE(h.released_at, 'infinity') > :as_of AND (h.placed_at IS NULL OR h.placed_at <= :as_of)
            ORDER BY COALESCE(h.released_at, 'infinity') LIMIT 1),
           false
       ) AS held
FROM page p
ORDER BY p.account_id, p.id
