-- Claim a pending object, unless another process has it, with what attachments that name it now have written.
SELECT ARRAY(SELECT DISTINCT a.uri::text FROM attachments a WHERE a.uri = ANY(CAST(:spellings AS text[]))) AS named_as
FROM sweeper.object_purges o WHERE o.id = :id AND o.done_at IS NULL
FOR UPDATE OF o SKIP LOCKED
