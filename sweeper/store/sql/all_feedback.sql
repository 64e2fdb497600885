-- The keys of all feedback rows, page by page.
SELECT f.id::text AS id FROM feedback f WHERE f.id IS NOT NULL AND $after ORDER BY f.id LIMIT :limit
