-- name: manifest_accounts
-- Per account, what all its conversations share: its timeline and the first doubt about its histories, whether it is closed, the
-- plan at as-of with its purpose, and the epoch of that purpose that is open for training.
WITH owners AS (
$owners
), present AS (
    SELECT s.account_id, s.plan, p.purpose
    FROM pg_temp.sweeper_stays s
    LEFT JOIN jsonb_to_recordset($purposes) AS p (purpose text, plans jsonb) ON p.plans ? s.plan
    WHERE s.until = 'infinity'
), ended AS (
    SELECT e.account_id, e.purpose, max(e.closed) AS ended_at
    FROM pg_temp.sweeper_epochs e
    WHERE e.side = 'training'
    GROUP BY e.account_id, e.purpose
), leaving AS (
    SELECT p.account_id, n.purpose, min(p.effective_at) AS left_at
    FROM plan_changes p
    JOIN present n ON n.account_id = p.account_id
    JOIN jsonb_to_recordset($purposes) AS u (purpose text, plans jsonb) ON u.purpose = n.purpose
    WHERE $ahead AND p.effective_at > $as_of AND NOT COALESCE(u.plans ? p.plan, false)
    GROUP BY p.account_id, n.purpose
)
SELECT a.*,
       $closed AS closed,
       n.plan,
       CASE WHEN l.left_at IS NULL THEN n.purpose END AS purpose,
       l.left_at,
       d.ended_at,
       e.opened,
       e.event_id
FROM owners a
LEFT JOIN present n ON n.account_id = a.account_id
LEFT JOIN leaving l ON l.account_id = a.account_id AND l.purpose = n.purpose
LEFT JOIN ended d ON d.account_id = a.account_id AND d.purpose = n.purpose
LEFT JOIN pg_temp.sweeper_epochs e
       ON e.account_id = a.account_id AND e.purpose = n.purpose AND e.side = 'training' AND e.closed IS NULL AND e.opened < $as_of

-- name: manifest_conversations
-- Per conversation, its due by the rules, or that of its content if that is earlier, and the first reason that bars all its messages
-- from training, if any. A redaction bars it whenever it was.
SELECT d.id, d.account_id, d.kind, d.platform, LEAST(d.due, n.due) AS due, d.present,
       COALESCE($whole AND d.opened < d.last_activity_at, false) AS whole,
       COALESCE($whole AND d.opened < d.last_activity_at AND d.plans <@ $purpose_plans, false) AS whole_plan,
       CASE
           WHEN d.doubt IS NOT NULL OR n.doubt IS NOT NULL THEN 'unclassified'
           WHEN d.restored_at IS NOT NULL OR $deleted THEN 'deleted'
           WHEN d.closed THEN 'account_closed'
           WHEN d.ordered_at IS NOT NULL THEN 'erasure_order'
           WHEN d.zero_retention THEN 'zero_retention'
           WHEN d.incognito THEN 'incognito'
           WHEN $flagged THEN 'flagged'
           WHEN d.due <= $as_of THEN 'expired'
           WHEN w.redacted_at IS NOT NULL OR n.due <= $as_of THEN 'redacted'
           WHEN (d.platform = ANY($platforms)) IS NOT TRUE THEN 'platform'
       END AS reason,
       CASE
           WHEN d.doubt IS NOT NULL OR n.doubt IS NOT NULL THEN NULL
           WHEN d.restored_at IS NOT NULL OR $deleted THEN LEAST(d.deleted_at, d.restored_at)
           WHEN d.closed THEN d.closed_at
           WHEN d.ordered_at IS NOT NULL THEN NULLIF(d.ordered_at, '-infinity')
           WHEN d.zero_retention OR d.incognito THEN NULL
           WHEN $flagged THEN d.flagged_at
           WHEN d.due <= $as_of THEN d.due
           WHEN w.redacted_at IS NOT NULL OR n.due <= $as_of THEN LEAST(w.redacted_at, n.due)
       END AS since
FROM (
$decided
) AS d
LEFT JOIN ($content) AS n ON n.id = d.id
LEFT JOIN (
    SELECT t.record_id, min(t.purged_at) AS redacted_at
    FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
    WHERE t.record = 'redaction' AND r.store = $store
    GROUP BY t.record_id
) AS w ON w.record_id = d.id::text

-- name: manifest_content
-- By when the rules that redact want the content of each conversation gone, and the first doubt about it.
SELECT c.id, c.due, c.doubt
FROM (
$decided
) AS c

-- name: manifest_no_content
-- The same of a policy without such a rule.
SELECT c.id, CAST(NULL AS timestamptz) AS due, CAST(NULL AS text) AS doubt FROM conversations c WHERE false

-- name: manifest_reasoned
-- Each message with the first reason that bars it from training, or none: what the conversation says first, then the message.
SELECT m.id, m.conversation_id, m.author::text AS author, m.created_at, c.account_id, c.kind, c.platform, c.due, c.since,
       p.plan, a.event_id, a.opened, a.left_at, a.ended_at, $capped AS capped_at, $body AS body,
       CASE
           WHEN c.id IS NULL OR c.reason = 'unclassified' OR NOT ($trusted) THEN 'unclassified'
           WHEN c.reason IS NOT NULL THEN c.reason
           WHEN a.purpose IS NULL THEN 'plan'
           WHEN NOT (
               c.whole_plan
               OR COALESCE(m.created_at > a.opened, false)
               OR COALESCE(p.plan = ANY($purpose_plans), false)
           ) THEN 'plan'
           WHEN a.opened IS NULL THEN 'no_consent'
           WHEN NOT (c.whole OR m.created_at > a.opened) THEN 'before_consent'
           WHEN $capped <= $as_of THEN 'too_old'
       END AS reason
FROM messages m
LEFT JOIN pg_temp.sweeper_conversations c ON c.id = m.conversation_id
LEFT JOIN pg_temp.sweeper_accounts a ON a.account_id = c.account_id
CROSS JOIN LATERAL (SELECT a.plans[width_bucket(m.created_at, a.starts)] AS plan OFFSET 0) AS p
WHERE NOT COALESCE($trusted AND m.created_at > $as_of, false) AND COALESCE(c.present, true)$narrowed

-- name: manifest_rows
-- The eligible messages in total order; their text only where it was asked for. A message's turn counts all messages of its
-- conversation. Ids become text after the sort: they are shorter before it, and the server writes them while the client reads.
SELECT r.id::text AS message_id,
       r.conversation_id::text AS conversation_id,
       r.account_id::text AS account_id,
       r.created_at,
       r.author,
       r.kind,
       r.plan,
       r.platform,
       r.event_id AS consent_event_id,
       NULLIF(LEAST(r.due, r.capped_at), 'infinity') AS expires_at,
       r.turn$text
FROM (
    SELECT r.*, row_number() OVER (PARTITION BY $by_conversation ORDER BY r.created_at, $by_message) - 1 AS turn
    FROM ($reasoned) AS r
    ORDER BY $by_conversation, r.created_at, $by_message
) AS r
WHERE r.reason IS NULL

-- name: manifest_counts
-- How many messages there are by the reason that bars them; NULL: eligible.
SELECT r.reason, count(*) AS messages FROM ($reasoned) AS r GROUP BY r.reason

-- name: manifest_load
-- A place for the rows of a manifest, to be checked all at once.
CREATE TEMPORARY TABLE sweeper_manifest (
    message_id $type NOT NULL,
    conversation_id text NOT NULL,
    expires_at timestamptz,
    turn bigint,
    split text
) ON COMMIT DROP

-- name: manifest_lost
-- Of the rows of a manifest, those that may not be trained on, with the reason and since when; those recalled before left out if asked.
SELECT l.message_id, l.conversation_id, l.reason, LEAST(COALESCE(l.since, $as_of), $as_of) AS since
FROM (
    SELECT a.message_id::text AS message_id,
           a.conversation_id,
           CASE WHEN r.reason IS NOT NULL THEN r.reason
                WHEN r.id IS NULL AND t.purged_at IS NOT NULL THEN 'purged'
                WHEN r.id IS NULL THEN 'gone'
                WHEN a.expires_at <= $as_of THEN 'expired' END AS reason,
           CASE WHEN r.reason = 'plan' THEN r.left_at
                WHEN r.reason = 'no_consent' THEN r.ended_at
                WHEN r.reason = 'before_consent' THEN r.opened
                WHEN r.reason = 'too_old' THEN r.capped_at
                WHEN r.reason IS NOT NULL THEN r.since
                WHEN r.id IS NULL THEN t.purged_at
                ELSE a.expires_at END AS since
    FROM pg_temp.sweeper_manifest a
    LEFT JOIN ($reasoned) AS r ON r.id = a.message_id
    LEFT JOIN (
        SELECT t.record_id, max(t.purged_at) AS purged_at
        FROM sweeper.tombstones t JOIN sweeper.runs n ON n.id = t.run_id
        WHERE n.store = $store AND t.record = 'conversation'
        GROUP BY t.record_id
    ) AS t ON t.record_id = a.conversation_id AND r.id IS NULL
    WHERE r.id IS NULL OR r.reason IS NOT NULL OR a.expires_at <= $as_of
) AS l
WHERE NOT $only_new OR NOT EXISTS (
    SELECT FROM sweeper.revocations v WHERE v.manifest_id = $manifest_id AND v.message_id = l.message_id AND v.found_by = 'recall'
)

-- name: manifest_texts
-- The rows of a manifest by conversation and time, with the text of those that may be trained on, or the reason why not.
SELECT l.conversation_id,
       l.message_id::text AS message_id,
       l.turn,
       l.split,
       l.author,
       CASE WHEN l.reason IS NULL THEN l.body END AS body,
       NULLIF(LEAST(l.expires_at, l.due, l.capped_at), 'infinity') AS expires_at,
       l.reason
FROM (
    SELECT a.*, r.author, r.created_at, r.due, r.capped_at, r.body,
           CASE WHEN r.reason IS NOT NULL THEN r.reason
                WHEN r.id IS NULL THEN 'gone'
                WHEN a.expires_at <= $as_of THEN 'expired'
                WHEN v.message_id IS NOT NULL THEN 'revoked' END AS reason
    FROM pg_temp.sweeper_manifest a
    LEFT JOIN ($reasoned) AS r ON r.id = a.message_id
    LEFT JOIN (
        SELECT DISTINCT v.message_id FROM sweeper.revocations v WHERE v.manifest_id = $manifest_id
    ) AS v ON v.message_id = a.message_id::text
) AS l
ORDER BY l.conversation_id COLLATE "C", l.created_at, $by_message
