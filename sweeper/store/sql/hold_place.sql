-- Place a legal hold; the fence makes this wait for the batch at work.
INSERT INTO sweeper.legal_holds (matter, account_id, conversation_id, placed_at)
VALUES (:matter, :account_id, :conversation_id, :placed_at)
RETURNING id, matter, account_id, conversation_id, placed_at, released_at
