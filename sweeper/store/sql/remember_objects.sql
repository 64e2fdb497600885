-- Write down the objects behind the attachments of a batch, to be removed after the commit.
INSERT INTO sweeper.object_purges (uri, conversation_id, run_id)
SELECT a.uri, a.conversation_id::text, :run_id
FROM attachments a
WHERE a.conversation_id = ANY(CAST(:ids AS $conversation[])) AND a.uri IS NOT NULL
