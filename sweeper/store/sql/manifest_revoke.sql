-- Record what left a manifest; what is recorded already stays as it was.
INSERT INTO sweeper.revocations (manifest_id, message_id, conversation_id, reason, since, found_at, found_by)
SELECT :manifest_id, r.message_id, r.conversation_id, r.reason, r.since, :now, :found_by
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (message_id text, conversation_id text, reason text, since timestamptz)
ORDER BY r.message_id
ON CONFLICT (manifest_id, message_id, found_by) DO NOTHING
