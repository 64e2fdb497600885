-- Record an erasure order.
INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at, store)
VALUES (:reference, :account_id, :conversation_id, :recorded_at, :due_at, :store)
RETURNING id, reference, account_id, conversation_id, recorded_at, due_at
