-- The whole consent history of the accounts of a batch.
SELECT e.account_id::text AS account_id, e.id, e.purpose::text AS purpose, e.granted, e.recorded_at, e.effective_at
FROM consent_events e
WHERE e.account_id = ANY(CAST(:ids AS $account[]))
