-- Record how a run ended.
UPDATE sweeper.runs
SET finished_at = :finished_at, outcome = :outcome, result = CAST(:result AS jsonb),
    plan_changes = :plan_changes, consent_events = :consent_events
WHERE id = :run_id AND outcome IS NULL
