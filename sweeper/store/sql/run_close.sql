-- Record how a run ended; the event tells its result by the digest that is returned, as state_runs.sql computes it.
UPDATE sweeper.runs
SET finished_at = :finished_at, outcome = :outcome, result = CAST(:result AS jsonb),
    plan_changes = :plan_changes, consent_events = :consent_events
WHERE id = :run_id AND outcome IS NULL
RETURNING 'sha256:' || encode(sha256(convert_to(result::text, 'UTF8')), 'hex') AS result
