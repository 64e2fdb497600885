-- Objects still to be removed, oldest first, page by page.
SELECT o.id, o.uri FROM sweeper.object_purges o WHERE o.done_at IS NULL AND o.id > :after ORDER BY o.id LIMIT :limit
