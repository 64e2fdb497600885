-- How many messages each conversation of a batch has, and when its user wrote last.
SELECT m.conversation_id::text AS conversation_id,
       count(*) AS messages,
       max(m.created_at) FILTER (WHERE m.author = 'user') AS latest_user_message_at,
       min(m.created_at) FILTER (WHERE m.author = 'user' AND m.created_at >= CAST(:deadline AS timestamptz)) AS late_user_message_at
FROM messages m
WHERE m.conversation_id = ANY(CAST(:ids AS $conversation[]))
GROUP BY m.conversation_id
