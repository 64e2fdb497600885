-- Feedback rows that may be due: by the age of their kind, or named by an erasure order whose date has come.
SELECT f.id::text AS id
FROM (
$probes
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_conversation WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_account
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND o.conversation_id IS NULL
) AS f
WHERE f.id IS NOT NULL AND $after
ORDER BY f.id
LIMIT :limit
