-- name: run_last_completed
-- The latest as-of of a completed run, and what the last completed run counted of the histories. A slice of a backfill may have
-- completed with a later as-of while a run waited for its lease: that does not mean a clock was set back.
SELECT max(r.as_of) FILTER (WHERE r.kind <> 'backfill') AS as_of,
       (SELECT l.plan_changes FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS plan_changes,
       (SELECT l.consent_events FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS consent_events
FROM sweeper.runs r
WHERE r.store = :store AND r.outcome = 'completed'

-- name: run_last_policy
-- The policy of the last run that completed or purged anything, and whether a later run has accepted another one in its place.
-- What a reapplication purges is not decided by its policy.
SELECT r.policy_digest AS digest, r.policy_name AS name,
       EXISTS (SELECT FROM sweeper.events e
               WHERE e.run_id > r.id AND e.kind = 'policy_accepted'
                 AND e.details ->> 'store' = :store AND e.details ->> 'digest' = :digest) AS accepted
FROM sweeper.runs r
WHERE r.store = :store AND r.kind <> 'reapply'
  AND (r.outcome = 'completed' OR EXISTS (SELECT FROM sweeper.tombstones t WHERE t.run_id = r.id))
ORDER BY r.id DESC
LIMIT 1

-- name: policy_recorded
-- What a policy says, in its normal form, as a run recorded it.
SELECT e.details ->> 'policy' AS policy
FROM sweeper.runs r JOIN sweeper.events e ON e.run_id = r.id
WHERE r.policy_digest = :digest AND e.kind = 'policy_recorded' AND e.details ->> 'digest' = :digest
LIMIT 1

-- name: count_histories
-- The number of plan changes and consent events, and whether there are conversations.
SELECT (SELECT count(*) FROM plan_changes) AS plan_changes,
       (SELECT count(*) FROM consent_events) AS consent_events,
       EXISTS (SELECT 1 FROM conversations) AS conversations

-- name: count_conversations
-- The number of conversations, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM conversations LIMIT :limit) AS c

-- name: purged_lately
-- The number of conversations purged and redacted without an approval in a time span.
SELECT t.record, count(*) AS purged FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record <> 'feedback' AND NOT t.approved AND t.purged_at > :since AND t.purged_at <= :until
GROUP BY t.record

-- name: purged_under
-- What the runs under an approval have purged and redacted, by rule: from the results of closed runs, and from the tombstones of
-- the others.
SELECT p.rule, CAST(sum(p.purged) AS bigint) AS purged
FROM (
    SELECT b.key AS rule, CAST(b.value AS bigint) AS purged
    FROM sweeper.runs r
    CROSS JOIN LATERAL jsonb_each_text((r.result -> 'by_rule') || COALESCE(r.result -> 'redacted_by_rule', '{}')) AS b
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') = 'object'
    UNION ALL
    SELECT t.rule, count(*)
    FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') IS DISTINCT FROM 'object' AND t.record <> 'feedback'
    GROUP BY t.rule
) AS p
GROUP BY p.rule

-- name: run_open
-- Record that a run has begun; a retry after a lost answer records the same run.
INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, approval, started_at, kind, backfill_id)
VALUES (:store, :as_of, :policy_name, :policy_digest, :token, :approval, :started_at, :kind, :backfill_id)
ON CONFLICT (store, token) DO UPDATE SET started_at = excluded.started_at
RETURNING id

-- name: runs_interrupt
-- Mark as interrupted the runs that hold an older token than the one now taken and recorded no end.
UPDATE sweeper.runs SET finished_at = :now, outcome = 'interrupted'
WHERE store = :store AND outcome IS NULL AND token < :token
RETURNING id

-- name: run_close
-- Record how a run ended and return the digest of its result for the event, as state.sql computes it.
UPDATE sweeper.runs
SET finished_at = :finished_at, outcome = :outcome, result = CAST(:result AS jsonb),
    plan_changes = :plan_changes, consent_events = :consent_events
WHERE id = :run_id AND outcome IS NULL
RETURNING 'sha256:' || encode(sha256(convert_to(result::text, 'UTF8')), 'hex') AS result

-- name: runs_unfinished
-- The runs since the last completed one, including the current one, which finishes what they left undone.
SELECT r.id FROM sweeper.runs r
WHERE r.store = :store
  AND r.id > COALESCE((SELECT max(c.id) FROM sweeper.runs c WHERE c.store = :store AND c.outcome = 'completed'), 0)
ORDER BY r.id

-- name: purged_by_run
-- The conversations that a run purged, in pages.
SELECT t.id, t.record_id FROM sweeper.tombstones t
WHERE t.run_id = :run_id AND t.record = 'conversation' AND t.id > :after ORDER BY t.id LIMIT :limit

-- name: purged_by_rule
-- How many records a run purged, by kind of record and rule, from its tombstones.
SELECT t.record, t.rule, count(*) AS purged FROM sweeper.tombstones t WHERE t.run_id = :run_id GROUP BY t.record, t.rule
