-- Per conversation, its due by the rules and the first reason that bars all its messages from training, if any.
SELECT d.id, d.account_id, d.kind, d.platform, d.due, d.present,
       COALESCE($whole AND d.opened < d.last_activity_at, false) AS whole,
       COALESCE($whole AND d.opened < d.last_activity_at AND d.plans <@ $purpose_plans, false) AS whole_plan,
       CASE
           WHEN d.doubt IS NOT NULL THEN 'unclassified'
           WHEN d.restored_at IS NOT NULL OR $deleted THEN 'deleted'
           WHEN d.closed THEN 'account_closed'
           WHEN d.ordered_at IS NOT NULL THEN 'erasure_order'
           WHEN d.zero_retention THEN 'zero_retention'
           WHEN d.incognito THEN 'incognito'
           WHEN $flagged THEN 'flagged'
           WHEN d.due <= $as_of THEN 'expired'
           WHEN (d.platform = ANY($platforms)) IS NOT TRUE THEN 'platform'
       END AS reason,
       CASE
           WHEN d.doubt IS NOT NULL THEN NULL
           WHEN d.restored_at IS NOT NULL OR $deleted THEN LEAST(d.deleted_at, d.restored_at)
           WHEN d.closed THEN d.closed_at
           WHEN d.ordered_at IS NOT NULL THEN NULLIF(d.ordered_at, '-infinity')
           WHEN d.zero_retention OR d.incognito THEN NULL
           WHEN $flagged THEN d.flagged_at
           WHEN d.due <= $as_of THEN d.due
       END AS since
FROM (
$decided
) AS d
