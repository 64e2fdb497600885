-- The last name of a range of what erasure orders name whose date has come; no row: the range has no end.
SELECT o.$named AS name
FROM sweeper.erasure_orders o
WHERE $orders AND o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)
ORDER BY o.$named
OFFSET :names LIMIT 1
