-- The erasure orders, newest first.
SELECT id, reference, account_id, conversation_id, recorded_at, due_at FROM sweeper.erasure_orders
WHERE store IS NULL OR store = :store
ORDER BY id DESC
