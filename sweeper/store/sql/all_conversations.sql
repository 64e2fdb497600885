-- The keys of all conversations, page by page.
SELECT c.id::text AS id FROM conversations c WHERE c.id IS NOT NULL AND $after ORDER BY c.id LIMIT :limit
