-- Conversations that an erasure order of a range of orders names whose date has come.
SELECT DISTINCT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM sweeper.erasure_orders o
JOIN conversations c ON $names
WHERE $orders AND o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
