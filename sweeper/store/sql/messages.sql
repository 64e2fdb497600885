-- The messages of one conversation, without their text.
SELECT m.id::text AS id, m.author::text AS author, m.created_at
FROM messages m
WHERE m.conversation_id = CAST(:id AS $conversation)
ORDER BY m.created_at, m.id
