-- The whole plan history of the accounts of a batch.
SELECT p.account_id::text AS account_id, p.id, p.effective_at, p.plan::text AS plan
FROM plan_changes p
WHERE p.account_id = ANY(CAST(:ids AS $account[]))
