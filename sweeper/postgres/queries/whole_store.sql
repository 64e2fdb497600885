-- name: whole_histories
-- What decides about the conversations of an account, as the first queries of a WITH.
stays AS MATERIALIZED (
$stays
), epochs AS MATERIALIZED (
$epochs
), owners AS MATERIALIZED (
    SELECT o.*, n.purposes AS chosen
    FROM (
$owners
    ) AS o
    LEFT JOIN (
        SELECT e.account_id, array_agg(DISTINCT e.purpose::text) AS purposes
        FROM consent_events e
        WHERE e.recorded_at <= $as_of AND e.purpose = ANY($purpose_names)
        GROUP BY e.account_id
    ) AS n ON n.account_id = o.account_id
)

-- name: whole_holds
-- The legal holds that are not released at as-of by what they name, as queries of a WITH: since when one is in force (NULL: it
-- was placed after as-of). What is due and only under such a later hold is skipped.
holds AS MATERIALIZED (
    SELECT h.account_id IS NULL AND h.conversation_id IS NULL AS on_everything,
           sweeper.spelling(h.account_id) AS account_id,
           sweeper.spelling(h.conversation_id) AS conversation_id,
           CASE WHEN NOT COALESCE($placed_trusted, false) THEN '-infinity' WHEN h.placed_at <= $as_of THEN h.placed_at END AS since
    FROM sweeper.legal_holds h
    WHERE ($released_trusted AND h.released_at <= $as_of) IS NOT TRUE
), account_holds AS MATERIALIZED (
    SELECT h.account_id AS id, min(h.since) AS since FROM holds h WHERE h.account_id IS NOT NULL GROUP BY h.account_id
), conversation_holds AS MATERIALIZED (
    SELECT h.conversation_id AS id, min(h.since) AS since FROM holds h WHERE h.conversation_id IS NOT NULL GROUP BY h.conversation_id
), store_holds AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE h.on_everything) > 0 AS placed, min(h.since) FILTER (WHERE h.on_everything) AS since,
           count(h.account_id) > 0 AS of_accounts, count(h.conversation_id) > 0 AS of_conversations
    FROM holds h
)

-- name: whole_messages
-- Per conversation, how many messages it has, when its user wrote last, and when first since the deadline for choosing.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
SELECT m.conversation_id AS id,
       count(*) AS messages,
       max(m.created_at) FILTER (WHERE m.author = 'user') AS latest,
       $late AS late
FROM messages m
GROUP BY m.conversation_id

-- name: whole_conversations
-- The verdict on every conversation that exists at as-of, with its outcome. What was resumed, or flagged after as-of, is decided
-- again by `whole_changed`.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
WITH $histories, $holds
SELECT v.id,
       v.account_id,
       v.last_rule AS rule,
       v.last_due AS due,
       p.held_since,
       v.doubt,
       $outcome AS outcome,
       $spared AS spared,
       v.created_at,
       v.last_activity_at,
       COALESCE(w.messages, 0) AS messages,
       w.latest,
       $flagged_later AS flagged_later,
       NULLIF(array_remove(ARRAY[$anomalies], NULL), '{}') AS anomalies
FROM (
$ruled
) AS v
LEFT JOIN $messages w ON w.id = v.id
CROSS JOIN store_holds s
LEFT JOIN account_holds a ON a.id = CASE WHEN s.of_accounts THEN $account_spelling END
LEFT JOIN conversation_holds b ON b.id = CASE WHEN s.of_conversations THEN $conversation_spelling END
CROSS JOIN LATERAL (
    SELECT LEAST(a.since, b.since, s.since) AS held_since, a.id IS NOT NULL OR b.id IS NOT NULL OR s.placed AS shielded
) AS p
WHERE v.present AND v.id IS NOT NULL

-- name: whole_content
-- By when the rules that redact want the content of each conversation gone, and the first doubt about that.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
WITH $histories
SELECT t.id, t.account_id, v.last_rule AS rule, v.last_due AS due, t.held_since, v.doubt
FROM (
$ruled
) AS v
JOIN $conversations t ON t.id = v.id

-- name: whole_redactions
-- The verdicts on content that is there and that its conversation outlives: what a purge takes first is left out.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
SELECT t.*
FROM $judged t
JOIN $conversations c ON c.id = t.id
WHERE t.due IS NOT NULL AND (c.due <= GREATEST(t.due, $as_of)) IS NOT TRUE AND t.id::text IN ($filled)

-- name: content_of_any
-- The conversation of each row of a table that has content left to redact.
SELECT $key::text FROM $table t WHERE $left

-- name: whole_no_content
-- The same under a policy without such a rule.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
SELECT t.id, t.account_id, CAST(NULL AS text) AS rule, CAST(NULL AS timestamptz) AS due, t.held_since, CAST(NULL AS text) AS doubt
FROM $conversations t

-- name: whole_any
-- Whether any of what is to be purged must be decided again; no row: no.
SELECT true FROM $table t WHERE t.outcome = 'purge' AND $which LIMIT 1

-- name: whole_changed
-- Skip what is to be purged as stored, but no longer is once its last activity and its flag are looked at otherwise.
WITH changed AS MATERIALIZED (
    SELECT c.id, c.account_id, c.kind, c.platform, c.incognito, c.zero_retention, c.created_at, $last AS last_activity_at,
           c.deleted_at, c.restored_at, CASE WHEN t.flagged_later THEN $as_of ELSE c.flagged_at END AS flagged_at$further
    FROM $table t
    JOIN conversations c ON c.id = t.id
    WHERE t.outcome = 'purge' AND $which
), $histories
UPDATE $table t
SET outcome = 'spared', spared = $reason
FROM (
$ruled
) AS v
WHERE v.id = t.id AND (v.last_due <= $as_of) IS NOT TRUE

-- name: whole_feedback
-- The verdict on every feedback row, with its outcome.
CREATE TEMPORARY TABLE $table ON COMMIT DROP AS
WITH $holds, ordered AS (
    SELECT o.id, min(o.due_at) AS due_at
    FROM (
        SELECT f.id, f.submitted_at, o.recorded_at, o.due_at
        FROM sweeper.erasure_orders o
        JOIN feedback f ON f.conversation_id::text = o.conversation_id
        WHERE (o.account_id IS NULL OR o.account_id = f.account_id::text) AND (o.store IS NULL OR o.store = $store)
        UNION ALL
        SELECT f.id, f.submitted_at, o.recorded_at, o.due_at
        FROM sweeper.erasure_orders o
        JOIN feedback f ON f.account_id::text = o.account_id
        WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = $store)
    ) AS o
    WHERE $due_trusted
      AND (o.recorded_at IS NULL OR o.recorded_at <= $as_of AND $ordered_trusted AND o.submitted_at <= o.recorded_at)
    GROUP BY o.id
)
SELECT DISTINCT ON (v.id) v.id,
       v.account_id,
       v.conversation_id,
       v.last_rule AS rule,
       v.last_due AS due,
       p.held_since,
       v.doubt,
       $outcome AS outcome,
       $spared AS spared,
       v.submitted_at AS created_at,
       v.anomalies
FROM (
    SELECT f.id, f.account_id, f.conversation_id, f.submitted_at, d.doubt,
           CASE
               WHEN d.doubt IS NOT NULL THEN 'unclassified'
               WHEN o.due_at < COALESCE(t.due, 'infinity') THEN 'erasure_order'
               ELSE CASE t.due $rules END
           END AS last_rule,
           CASE WHEN d.doubt IS NULL THEN NULLIF(LEAST(t.due, o.due_at), 'infinity') END AS last_due,
           $anomalies AS anomalies
    FROM (
        SELECT f.id, f.account_id, f.conversation_id, f.kind::text AS kind, f.submitted_at, f.transcript IS NOT NULL AS has_transcript,
               count(*) OVER (PARTITION BY f.id) > 1 AS repeated
        FROM feedback f
        WHERE f.id IS NOT NULL
    ) AS f
    LEFT JOIN ordered o ON o.id = f.id
    CROSS JOIN LATERAL (SELECT CASE $doubts END AS doubt OFFSET 0) AS d
    CROSS JOIN LATERAL (SELECT $dues OFFSET 0) AS n
    CROSS JOIN LATERAL (SELECT LEAST($names) AS due OFFSET 0) AS t
) AS v
CROSS JOIN store_holds s
LEFT JOIN account_holds a ON a.id = CASE WHEN s.of_accounts THEN $account_spelling END
LEFT JOIN conversation_holds b ON b.id = CASE WHEN s.of_conversations THEN $conversation_spelling END
CROSS JOIN LATERAL (
    SELECT LEAST(a.since, b.since, s.since) AS held_since, a.id IS NOT NULL OR b.id IS NOT NULL OR s.placed AS shielded
) AS p

-- name: whole_ahead
-- How many conversations were created after as-of.
SELECT count(DISTINCT c.id) FROM conversations c WHERE c.created_at > $as_of AND $created_trusted

-- name: whole_counts
-- The records by rule and state: how many, their earliest and latest due, and how many of them fall due within some days.
SELECT t.rule, t.outcome, t.spared, CASE WHEN t.outcome = 'unclassified' THEN t.doubt END AS doubt, t.held_since IS NOT NULL AS held,
       count(*) AS records, min(t.due) AS oldest, max(t.due) AS newest,
       ARRAY[$within] AS within
FROM $table t
GROUP BY 1, 2, 3, 4, 5

-- name: whole_anomalies
-- How many records have each anomaly.
SELECT a.anomaly, count(*) AS records FROM $table t CROSS JOIN LATERAL unnest(t.anomalies) AS a (anomaly) GROUP BY a.anomaly

-- name: whole_due
-- What falls due in each day, week or month, by rule and outcome.
SELECT date_trunc('$by', t.due) AS begin, t.rule, t.outcome, t.held_since IS NOT NULL AS held, count(*) AS records,
       sum($messages) AS messages
FROM $table t
WHERE t.due IS NOT NULL $until
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4

-- name: whole_every
-- The verdict on every record of a kind, in the order of its id.
SELECT t.id::text AS id, t.account_id::text AS account_id, t.rule, t.due, t.held_since, t.doubt, t.outcome, t.spared
FROM $table t
ORDER BY t.id

-- name: whole_examples
-- The first ids of the unclassified records of each doubt.
SELECT d.doubt, ARRAY(
           SELECT t.id::text FROM $table t WHERE t.outcome = 'unclassified' AND t.doubt = d.doubt ORDER BY t.id LIMIT $most
       ) AS ids
FROM (SELECT DISTINCT t.doubt FROM $table t WHERE t.outcome = 'unclassified') AS d
ORDER BY d.doubt

-- name: whole_ages
-- The records by rule and by the interval in which they were created.
SELECT t.rule, width_bucket(t.created_at, $bounds) AS bucket, count(*) AS records
FROM $table t
WHERE $trusted
GROUP BY 1, 2

-- name: whole_held
-- The records that a legal hold keeps by rule and by the interval in which the first hold was placed.
SELECT t.rule, width_bucket(t.held_since, $bounds) AS bucket, count(*) AS records
FROM $table t
WHERE t.held_since IS NOT NULL
GROUP BY 1, 2

-- name: whole_accounts
-- The accounts with the most conversations of some.
SELECT t.account_id::text AS account_id, count(*) AS records
FROM $table t
WHERE $where
GROUP BY t.account_id
ORDER BY count(*) DESC, t.account_id
LIMIT $most

-- name: whole_first
-- The first id of the records of each rule and outcome.
SELECT DISTINCT ON (t.rule, t.outcome) t.rule, t.outcome, t.id::text AS id
FROM $table t
WHERE $where
ORDER BY t.rule, t.outcome, t.id

-- name: whole_size
-- What the tables of some records occupy, those of their children apart, with indexes and
-- partitions; and how many records and messages there are.
SELECT o.own, o.below, count(t.id) AS records, COALESCE($messages, 0) AS messages
FROM (
    SELECT COALESCE(sum(pg_total_relation_size(COALESCE(p.relid, CAST(s.oid AS oid)))) FILTER (WHERE s.oid = ANY($own)), 0) AS own,
           COALESCE(sum(pg_total_relation_size(COALESCE(p.relid, CAST(s.oid AS oid)))) FILTER (WHERE s.oid <> ALL($own)), 0) AS below
    FROM unnest($own || $below) AS s (oid)
    LEFT JOIN LATERAL pg_partition_tree(CAST(CAST(s.oid AS oid) AS regclass)) AS p ON true
) AS o
LEFT JOIN $table t ON true
GROUP BY o.own, o.below
