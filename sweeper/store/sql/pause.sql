-- Pause everything.
INSERT INTO sweeper.pauses (reason, paused_at) VALUES (:reason, :now) RETURNING id, reason, paused_at
