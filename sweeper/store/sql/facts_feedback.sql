-- The feedback rows of a batch as they are now; of a transcript only whether there is one.
SELECT f.id::text AS id,
       f.account_id::text AS account_id,
       f.conversation_id::text AS conversation_id,
       f.kind::text AS kind,
       f.submitted_at,
       f.transcript IS NOT NULL AS has_transcript
FROM feedback f
WHERE f.id = ANY(CAST(:ids AS $feedback[]))
