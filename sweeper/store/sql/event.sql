-- Record that something happened.
INSERT INTO sweeper.events (kind, run_id, details) VALUES (:kind, :run_id, CAST(:details AS jsonb))
