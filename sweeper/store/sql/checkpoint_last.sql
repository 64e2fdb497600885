-- The newest checkpoint, or the newest signed one.
SELECT id, size, root, note, signed_by, taken_at FROM sweeper.checkpoints
WHERE NOT :signed OR signed_by IS NOT NULL ORDER BY id DESC LIMIT 1
