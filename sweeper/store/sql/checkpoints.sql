-- Checkpoints in the order in which they were taken, page by page.
SELECT id, size, root, note, signed_by, taken_at FROM sweeper.checkpoints WHERE id > :after ORDER BY id LIMIT :limit
