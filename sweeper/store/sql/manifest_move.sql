-- Move a manifest on, from the state in which it must be.
UPDATE sweeper.manifests
SET state = :state,
    started_at = CASE WHEN :state = 'started' THEN :now ELSE started_at END,
    completed_at = CASE WHEN :state = 'completed' THEN :now ELSE completed_at END
WHERE id = :id AND store = :store AND state = :from
RETURNING id
