-- name: run_last_completed
-- The latest as-of of a completed run, and what the last completed run saw of the histories. A slice of a backfill may have
-- completed while a run waited for its lease, and with a later as-of: that is no clock set back.
SELECT max(r.as_of) FILTER (WHERE r.kind <> 'backfill') AS as_of,
       (SELECT l.plan_changes FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS plan_changes,
       (SELECT l.consent_events FROM sweeper.runs l WHERE l.store = :store AND l.outcome = 'completed' ORDER BY l.id DESC LIMIT 1) AS consent_events
FROM sweeper.runs r
WHERE r.store = :store AND r.outcome = 'completed'

-- name: count_histories
-- How much plan and consent history there is, and whether there are conversations.
SELECT (SELECT count(*) FROM plan_changes) AS plan_changes,
       (SELECT count(*) FROM consent_events) AS consent_events,
       EXISTS (SELECT 1 FROM conversations) AS conversations

-- name: count_conversations
-- How many conversations there are, counted no further than a limit.
SELECT count(*) FROM (SELECT 1 FROM conversations LIMIT :limit) AS c

-- name: purged_lately
-- Conversations purged since an instant without an approval.
SELECT count(*) FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record = 'conversation' AND NOT t.approved AND t.purged_at > :since AND t.purged_at <= :until

-- name: purged_under
-- What the runs under an approval have purged, by rule: closed runs have it in their result, of the others the tombstones tell.
SELECT p.rule, CAST(sum(p.purged) AS bigint) AS purged
FROM (
    SELECT b.key AS rule, CAST(b.value AS bigint) AS purged
    FROM sweeper.runs r CROSS JOIN LATERAL jsonb_each_text(r.result -> 'by_rule') AS b
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') = 'object'
    UNION ALL
    SELECT t.rule, count(*)
    FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id
    WHERE r.approval = :approval AND jsonb_typeof(r.result -> 'by_rule') IS DISTINCT FROM 'object' AND t.record = 'conversation'
    GROUP BY t.rule
) AS p
GROUP BY p.rule

-- name: run_open
-- Record that a run has begun; done again after a lost answer, it is the same run.
INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, approval, started_at, kind, backfill_id)
VALUES (:store, :as_of, :policy_name, :policy_digest, :token, :approval, :started_at, :kind, :backfill_id)
ON CONFLICT (store, token) DO UPDATE SET started_at = excluded.started_at
RETURNING id

-- name: runs_interrupt
-- Mark the runs that ended without saying so: they hold an older token than the one now taken.
UPDATE sweeper.runs SET finished_at = :now, outcome = 'interrupted'
WHERE store = :store AND outcome IS NULL AND token < :token
RETURNING id

-- name: run_close
-- Record how a run ended; the event tells its result by the digest that is returned, as state_runs.sql computes it.
UPDATE sweeper.runs
SET finished_at = :finished_at, outcome = :outcome, result = CAST(:result AS jsonb),
    plan_changes = :plan_changes, consent_events = :consent_events
WHERE id = :run_id AND outcome IS NULL
RETURNING 'sha256:' || encode(sha256(convert_to(result::text, 'UTF8')), 'hex') AS result

-- name: runs_unfinished
-- The runs since the last completed one, this one included: what they left undone is done now.
SELECT r.id FROM sweeper.runs r
WHERE r.store = :store
  AND r.id > COALESCE((SELECT max(c.id) FROM sweeper.runs c WHERE c.store = :store AND c.outcome = 'completed'), 0)
ORDER BY r.id

-- name: purged_by_run
-- The conversations that a run purged, page by page.
SELECT t.id, t.record_id FROM sweeper.tombstones t
WHERE t.run_id = :run_id AND t.record = 'conversation' AND t.id > :after ORDER BY t.id LIMIT :limit

-- name: purged_by_rule
-- What a run purged, by kind of record and rule, as the tombstones say.
SELECT t.record, t.rule, count(*) AS purged FROM sweeper.tombstones t WHERE t.run_id = :run_id GROUP BY t.record, t.rule
