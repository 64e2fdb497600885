-- Feedback rows that may be due: by the age of their kind, or named by an erasure order whose date has come.
SELECT f.id::text AS id
FROM (
$probes
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_conversation WHERE o.due_at <= :as_of
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_account
WHERE o.due_at <= :as_of AND o.conversation_id IS NULL
) AS f
WHERE $after
ORDER BY f.id
LIMIT :limit
