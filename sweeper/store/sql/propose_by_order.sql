-- Conversations that an erasure order names whose date has come.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM sweeper.erasure_orders o
CROSS JOIN LATERAL (SELECT k.* FROM conversations k WHERE $names_conversation OFFSET 0) AS c
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND $conversations
UNION
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM sweeper.erasure_orders o
CROSS JOIN LATERAL (SELECT k.* FROM conversations k WHERE $names_account OFFSET 0) AS c
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND o.conversation_id IS NULL AND $conversations
