-- Record an erasure order.
INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at)
VALUES (:reference, :account_id, :conversation_id, :recorded_at, :due_at)
RETURNING id, reference, account_id, conversation_id, recorded_at, due_at
