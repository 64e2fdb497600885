-- Conversations that an erasure order of a range of orders names whose date has come; each name is looked up once.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM (
    SELECT DISTINCT o.$named AS name
    FROM sweeper.erasure_orders o
    WHERE $orders AND o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
) AS o
JOIN conversations c ON $names
