-- Record a checkpoint.
INSERT INTO sweeper.checkpoints (size, root, note, signed_by, taken_at) VALUES (:size, :root, :note, :signed_by, :taken_at)
