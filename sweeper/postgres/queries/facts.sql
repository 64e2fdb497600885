-- name: facts_conversations
-- The conversations of a batch as they are now, with the further columns that the policy reads.
SELECT c.id::text AS id,
       c.account_id::text AS account_id,
       c.kind::text AS kind,
       c.platform::text AS platform,
       c.incognito,
       c.zero_retention,
       c.created_at,
       c.last_activity_at,
       c.deleted_at,
       c.restored_at,
       c.flagged_at,
       $columns AS columns
FROM conversations c
WHERE c.id = ANY(CAST(:ids AS $conversation[]))

-- name: facts_accounts
-- The accounts of a batch, with the further columns that the policy reads.
SELECT a.id::text AS id, a.created_at, a.closed_at, $columns AS columns
FROM accounts a
WHERE a.id = ANY(CAST(:ids AS $account[]))

-- name: facts_plan_changes
-- The whole plan history of the accounts of a batch.
SELECT p.account_id::text AS account_id, p.id, p.effective_at, p.plan::text AS plan
FROM plan_changes p
WHERE p.account_id = ANY(CAST(:ids AS $account[]))

-- name: facts_consent_events
-- The whole consent history of the accounts of a batch.
SELECT e.account_id::text AS account_id, e.id, e.purpose::text AS purpose, e.granted, e.recorded_at, e.effective_at
FROM consent_events e
WHERE e.account_id = ANY(CAST(:ids AS $account[]))

-- name: facts_messages
-- How many messages each conversation of a batch has, and when its user wrote last.
SELECT m.conversation_id::text AS conversation_id,
       count(*) AS messages,
       max(m.created_at) FILTER (WHERE m.author = 'user') AS latest_user_message_at,
       min(m.created_at) FILTER (WHERE m.author = 'user' AND m.created_at >= CAST(:deadline AS timestamptz)) AS late_user_message_at
FROM messages m
WHERE m.conversation_id = ANY(CAST(:ids AS $conversation[]))
GROUP BY m.conversation_id

-- name: facts_redacted
-- When the content of each conversation of a batch was last redacted.
SELECT t.record_id AS id, max(t.purged_at) AS redacted_at
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE t.record_id = ANY(CAST(:ids AS text[])) AND t.record = 'redaction' AND r.store = :store
GROUP BY t.record_id

-- name: facts_feedback
-- The feedback rows of a batch as they are now; of a transcript only whether there is one.
SELECT f.id::text AS id,
       f.account_id::text AS account_id,
       f.conversation_id::text AS conversation_id,
       f.kind::text AS kind,
       f.submitted_at,
       f.transcript IS NOT NULL AS has_transcript
FROM feedback f
WHERE f.id = ANY(CAST(:ids AS $feedback[]))

-- name: facts_holds
-- The holds that $named matches, for each id of the batch: those in force and known at as-of, those with an implausible
-- release, and those placed later. Each arm is one descent of an index, and does not start if the arms before it have found
-- enough.
SELECT h.matter, $account AS account_id, $conversation AS conversation_id, h.placed_at, h.released_at
FROM $asked
CROSS JOIN LATERAL (
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') > :as_of
       AND (h.placed_at IS NULL OR h.placed_at <= :as_of OR h.placed_at >= :plausible_before)
     ORDER BY COALESCE(h.released_at, 'infinity') LIMIT :most)
    UNION ALL
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') < :plausible_from
     ORDER BY COALESCE(h.placed_at > :as_of AND h.placed_at < :plausible_before, false) LIMIT :most)
    UNION ALL
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') > :as_of
       AND h.placed_at > :as_of AND h.placed_at < :plausible_before
     ORDER BY COALESCE(h.released_at, 'infinity') LIMIT :most)
    LIMIT :most
) AS h

-- name: facts_orders
-- The erasure orders that may name a record of a batch, however they spell its id. An order with another spelling than the
-- store's may mean another record: like an order without a date it moves no due date, and the records that it may mean are not
-- used for training.
SELECT o.reference, a.id AS account_id, NULL AS conversation_id, o.recorded_at, CASE WHEN o.account_id = a.id THEN o.due_at END AS due_at
FROM unnest(CAST(:accounts AS text[])) AS a (id)
JOIN sweeper.erasure_orders o ON sweeper.spelling(o.account_id) = $account_spelling
WHERE o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
UNION ALL
SELECT o.reference, r.account_id, r.conversation_id, o.recorded_at,
       CASE WHEN o.conversation_id = r.conversation_id AND (o.account_id IS NULL OR o.account_id = r.account_id) THEN o.due_at END
FROM unnest(CAST(:owners AS text[]), CAST(:conversations AS text[])) AS r (account_id, conversation_id)
JOIN sweeper.erasure_orders o ON sweeper.spelling(o.conversation_id) = $conversation_spelling
WHERE (o.account_id IS NULL OR sweeper.spelling(o.account_id) = $owner_spelling) AND (o.store IS NULL OR o.store = :store)

-- name: facts_order_dues
-- The earliest date of the erasure orders that cover each record of a batch (policy, Retention): known at as-of, recorded while
-- the record existed, and spelling its ids exactly. Each order of an account is read once: the records divide its time into
-- intervals, and the orders of a later interval also cover the records before it. OFFSET 0 with the dates outside, because a
-- planner may otherwise walk all orders of the account by date, once for each record.
WITH records AS (
    SELECT r.number, r.account_id, r.conversation_id, COALESCE(r.since, 'infinity') AS since
    FROM unnest(CAST(:owners AS text[]), CAST(:conversations AS text[]), CAST(:since AS timestamptz[]))
         WITH ORDINALITY AS r (account_id, conversation_id, since, number)
), stretches AS (
    SELECT r.number, r.account_id, r.since, lag(r.since) OVER (PARTITION BY r.account_id ORDER BY r.since DESC, r.number) AS until
    FROM records r
    WHERE r.account_id IS NOT NULL
), of_stretches AS (
    SELECT s.number, s.account_id, s.since,
           LEAST(
               (SELECT min(t.due_at) FROM (
                    SELECT o.due_at FROM sweeper.erasure_orders o
                    WHERE o.account_id = s.account_id AND o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
                      AND o.recorded_at >= s.since AND o.recorded_at < s.until AND o.recorded_at <= :as_of
                    OFFSET 0) AS t
                WHERE t.due_at >= :plausible_from AND t.due_at < :plausible_before),
               CASE WHEN s.until IS NULL THEN
                   (SELECT min(t.due_at) FROM (
                        SELECT o.due_at FROM sweeper.erasure_orders o
                        WHERE o.account_id = s.account_id AND o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
                          AND (o.recorded_at >= s.since AND o.recorded_at <= :as_of OR o.recorded_at IS NULL)
                        OFFSET 0) AS t
                    WHERE t.due_at >= :plausible_from AND t.due_at < :plausible_before)
               END
           ) AS due_at
    FROM stretches s
)
SELECT f.number - 1 AS number, min(f.due_at) AS due_at
FROM (
    SELECT s.number, min(s.due_at) OVER (PARTITION BY s.account_id ORDER BY s.since DESC) AS due_at FROM of_stretches s
    UNION ALL
    SELECT r.number, o.due_at
    FROM records r
    CROSS JOIN LATERAL (
        SELECT min(o.due_at) AS due_at FROM sweeper.erasure_orders o
        WHERE o.conversation_id = r.conversation_id
          AND (o.account_id IS NULL OR o.account_id = r.account_id) AND (o.store IS NULL OR o.store = :store)
          AND (o.recorded_at IS NULL OR o.recorded_at <= :as_of AND o.recorded_at >= r.since)
          AND o.due_at >= :plausible_from AND o.due_at < :plausible_before
    ) AS o
) AS f
WHERE f.due_at IS NOT NULL
GROUP BY f.number

-- name: messages
-- The messages of one conversation, without their text.
SELECT m.id::text AS id, m.author::text AS author, m.created_at
FROM messages m
WHERE m.conversation_id = CAST(:id AS $conversation)
ORDER BY m.created_at, m.id
