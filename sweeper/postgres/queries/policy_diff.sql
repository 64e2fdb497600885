-- name: diff_records
-- Each record with its verdict under two policies. A due of infinity is none, or never; a record may exist under one of them alone.
SELECT COALESCE(n.id, o.id) AS id,
       COALESCE(n.account_id, o.account_id) AS account_id,
       CASE WHEN o.id IS NULL THEN $absent ELSE COALESCE(o.rule, $no_rule) END AS old_rule,
       CASE WHEN n.id IS NULL THEN $absent ELSE COALESCE(n.rule, $no_rule) END AS new_rule,
       COALESCE(o.due, 'infinity') AS old_due,
       COALESCE(n.due, 'infinity') AS new_due,
       o.doubt AS old_doubt,
       n.doubt AS new_doubt,
       COALESCE(n.held_since, o.held_since) IS NOT NULL AS held
FROM $old o FULL JOIN $new n ON n.id = o.id

-- name: diff_moves
-- How many records go from which rule to which, and what that does to their due dates: how many that are not due yet get an earlier
-- date that has come, or comes within 7 or 30 days. What is held is left out there.
SELECT r.old_rule, r.new_rule,
       count(*) AS records,
       count(*) FILTER (WHERE r.new_due < r.old_due) AS shorter,
       count(*) FILTER (WHERE r.new_due > r.old_due) AS longer,
       count(*) FILTER (WHERE r.new_due <= $as_of AND r.old_due > $as_of AND NOT r.held) AS due_at_once,
       count(*) FILTER (WHERE r.new_due <= $week AND r.new_due < r.old_due AND r.old_due > $as_of AND NOT r.held) AS due_in_7_days,
       count(*) FILTER (WHERE r.new_due <= $month AND r.new_due < r.old_due AND r.old_due > $as_of AND NOT r.held) AS due_in_30_days,
       count(*) FILTER (WHERE r.old_due <= $as_of AND r.new_due > $as_of AND NOT r.held) AS not_due_any_more,
       count(*) FILTER (WHERE r.new_due < r.old_due AND r.held) AS shorter_held
FROM (
$records
) AS r
GROUP BY r.old_rule, r.new_rule
ORDER BY r.old_rule, r.new_rule

-- name: diff_examples
-- The first records of each move from rule to rule, and of each direction, with both verdicts.
SELECT e.id::text AS id, e.old_rule, e.new_rule, NULLIF(e.old_due, 'infinity') AS old_due, NULLIF(e.new_due, 'infinity') AS new_due,
       e.old_doubt, e.new_doubt
FROM (
    SELECT r.*, row_number() OVER (PARTITION BY r.old_rule, r.new_rule, r.new_due < r.old_due, r.new_due > r.old_due ORDER BY r.id) AS n
    FROM (
$records
    ) AS r
    WHERE r.old_rule <> r.new_rule OR r.old_due <> r.new_due
) AS e
WHERE e.n <= $most
ORDER BY e.old_rule, e.new_rule, e.new_due < e.old_due DESC, e.new_due > e.old_due DESC, e.n

-- name: diff_accounts
-- The accounts with the most conversations whose due date changes.
SELECT r.account_id::text AS account_id,
       count(*) AS conversations,
       count(*) FILTER (WHERE r.new_due < r.old_due) AS shorter,
       count(*) FILTER (WHERE r.new_due > r.old_due) AS longer,
       count(*) FILTER (WHERE r.new_due <= $as_of AND r.old_due > $as_of AND NOT r.held) AS due_at_once
FROM (
$records
) AS r
WHERE r.old_due <> r.new_due
GROUP BY r.account_id
ORDER BY count(*) DESC, r.account_id
LIMIT $most

-- name: diff_eligible
-- The messages that may be trained on under the policy for which `manifest_reasoned` was prepared.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
SELECT r.id, r.conversation_id FROM ($reasoned) AS r WHERE r.reason IS NULL

-- name: diff_none_eligible
-- The same for a policy that trains on nothing.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS SELECT m.id, m.conversation_id FROM messages m WHERE false

-- name: diff_forget
-- Drop what was prepared for one policy, so that it can be prepared for another.
DROP TABLE pg_temp.sweeper_stays, pg_temp.sweeper_epochs, pg_temp.sweeper_accounts, pg_temp.sweeper_conversations

-- name: diff_training
-- The messages that only one of two policies trains on, and those that both do.
SELECT e.is_new, e.is_old, count(*) AS messages, count(DISTINCT e.conversation_id) AS conversations
FROM (
    SELECT COALESCE(n.conversation_id, o.conversation_id) AS conversation_id, n.id IS NOT NULL AS is_new, o.id IS NOT NULL AS is_old
    FROM $old o FULL JOIN $new n ON n.id = o.id
) AS e
GROUP BY e.is_new, e.is_old
