-- name: record_plan
-- Record the plan of an account; without an instant it is in force from now on.
INSERT INTO sweeper.plan_changes (account_id, plan, effective_at)
VALUES (:account_id, :plan, CAST(CAST(:effective_at AS text) AS timestamptz))
RETURNING id, account_id, plan, effective_at, recorded_at

-- name: record_consent
-- Record that an account grants a purpose or withdraws it; without an instant it is in force from now on.
INSERT INTO sweeper.consent_events (account_id, purpose, granted, effective_at)
VALUES (:account_id, :purpose, :granted, CAST(CAST(:effective_at AS text) AS timestamptz))
RETURNING id, account_id, purpose, granted, effective_at, recorded_at

-- name: recorded_plan
-- The recorded plans of an account, the newest first.
SELECT id, account_id, plan, effective_at, recorded_at FROM sweeper.plan_changes WHERE account_id = :account_id ORDER BY id DESC

-- name: recorded_consent
-- The recorded consent of an account, the newest first.
SELECT id, account_id, purpose, granted, effective_at, recorded_at FROM sweeper.consent_events WHERE account_id = :account_id
ORDER BY id DESC

-- name: is_shown_plan
-- Whether the store shows a recorded plan.
SELECT EXISTS (
    SELECT FROM sweeper.plan_changes o
    JOIN plan_changes p ON p.account_id = CAST(o.account_id AS $account) AND p.plan = o.plan AND p.effective_at = o.effective_at
    WHERE o.id = :id
) AS is_shown

-- name: is_shown_consent
-- Whether the store shows a recorded grant or withdrawal.
SELECT EXISTS (
    SELECT FROM sweeper.consent_events o
    JOIN consent_events e ON e.account_id = CAST(o.account_id AS $account) AND e.purpose = o.purpose AND e.granted = o.granted
                         AND e.recorded_at = o.recorded_at
    WHERE o.id = :id
) AS is_shown

-- name: account_is_known
-- Whether the store has an account.
SELECT EXISTS (SELECT FROM accounts a WHERE a.id = CAST(:account_id AS $account)) AS is_known

-- name: lost_choices
-- Of the given choices those that are not here.
SELECT r.number
FROM jsonb_to_recordset(CAST(:choices AS jsonb))
     AS r (number integer, account_id text, name text, granted boolean, effective_at timestamptz, recorded_at timestamptz)
WHERE NOT EXISTS (SELECT FROM sweeper.plan_changes p
                  WHERE r.granted IS NULL AND p.account_id = r.account_id AND p.plan = r.name
                    AND p.effective_at = r.effective_at AND p.recorded_at = r.recorded_at)
  AND NOT EXISTS (SELECT FROM sweeper.consent_events e
                  WHERE e.account_id = r.account_id AND e.purpose = r.name AND e.granted = r.granted
                    AND e.effective_at = r.effective_at AND e.recorded_at = r.recorded_at)
ORDER BY r.number
