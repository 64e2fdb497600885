-- The benchmark's store: people who consented two years ago and are kept, and a daily trickle that has come due.
-- Everything follows from the number of a row, so that every run of the benchmark makes the same store.
SET TIME ZONE 'UTC';
SET session_replication_role = replica;  -- the rows fit by construction: no key is checked while they are made
SET work_mem = '256MB';

CREATE SCHEMA benchmark;
CREATE EXTENSION pg_prewarm SCHEMA benchmark;
CREATE FUNCTION benchmark.dice(n bigint, salt bigint) RETURNS double precision IMMUTABLE PARALLEL SAFE
    RETURN (hashint8extended(n, salt) & 9007199254740991) / CAST(9007199254740992 AS double precision);
CREATE FUNCTION benchmark.id(kind text, n bigint) RETURNS uuid IMMUTABLE PARALLEL SAFE
    RETURN CAST(md5(kind || n) AS uuid);

-- Of a hundred accounts 80 have consented, 10 have not, 8 are commercial, 2 withdrew a month ago.
INSERT INTO store.accounts (id, created_at)
SELECT benchmark.id('account', n), timestamptz '2023-01-01' + benchmark.dice(n, 1) * interval '600 days'
FROM generate_series(0, $accounts - 1) AS n;

INSERT INTO store.plan_changes (account_id, effective_at, plan)
SELECT benchmark.id('account', n),
       timestamptz '2023-01-01' + benchmark.dice(n, 1) * interval '600 days' + again * interval '150 days',
       CASE WHEN n % 100 BETWEEN 90 AND 97 THEN (ARRAY['team', 'enterprise', 'api'])[1 + (n / 100 + again) % 3]
            ELSE (ARRAY['free', 'pro', 'max'])[1 + (n / 100 + again) % 3] END
FROM generate_series(0, $accounts - 1) AS n, generate_series(0, 1) AS again
WHERE again = 0 OR benchmark.dice(n, 2) < 0.25;

-- One in ten of those who consent had changed their mind twice in the first month; half of those who do not, said so.
INSERT INTO store.consent_events (account_id, purpose, granted, recorded_at)
SELECT benchmark.id('account', n), 'model_improvement', e.granted, e.recorded_at
FROM generate_series(0, $accounts - 1) AS n,
     LATERAL (
         VALUES (n % 100 < 80 OR n % 100 >= 98, true, timestamptz '2025-08-28' + benchmark.dice(n, 3) * interval '10 days'),
                (n % 100 < 8, false, timestamptz '2025-09-10'),
                (n % 100 < 8, true, timestamptz '2025-09-20'),
                (n % 100 BETWEEN 80 AND 84, false, timestamptz '2025-09-30'),
                (n % 100 >= 98, false, timestamptz '$as_of' - interval '30 days' - benchmark.dice(n, 4) * interval '2 days')
     ) AS e (happened, granted, recorded_at)
WHERE e.happened;

CREATE TABLE benchmark.talks AS
WITH fates AS (
    SELECT n, CASE
        WHEN floor(n * $due) > floor((n - 1) * $due) THEN (ARRAY[
            'standard', 'standard', 'standard', 'standard', 'standard', 'standard', 'standard', 'standard',
            'commercial', 'commercial', 'commercial', 'commercial', 'deleted', 'deleted', 'deleted',
            'consent_ended', 'consent_ended', 'consent_ended', 'incognito', 'incognito'
        ])[1 + CAST(floor(n * $due) AS bigint) % 20]
        WHEN benchmark.dice(n, 5) < 0.900 THEN 'kept'
        WHEN benchmark.dice(n, 5) < 0.960 THEN 'young standard'
        WHEN benchmark.dice(n, 5) < 0.985 THEN 'young commercial'
        WHEN benchmark.dice(n, 5) < 0.995 THEN 'young deleted'
        ELSE 'young incognito' END AS fate
    FROM generate_series(CAST(1 AS bigint), $conversations) AS n
), owners AS (
    -- Within a class of accounts the first ones own the most: the median owns ten conversations, the first thousands.
    SELECT f.n, f.fate, c.first, c.size,
           CAST(floor(benchmark.dice(f.n, 6) ^ 2 * ($accounts / 100 * c.size)) AS bigint) AS place
    FROM fates f
    JOIN (VALUES ('kept', 0, 80), ('deleted', 0, 80), ('incognito', 0, 80), ('standard', 80, 10), ('commercial', 90, 8),
                 ('consent_ended', 98, 2)) AS c (fate, first, size) ON c.fate = regexp_replace(f.fate, '^young ', '')
), lives AS (
    SELECT n, fate, place / size * 100 + first + place % size AS account,
           timestamptz '$as_of' - CASE
               WHEN fate IN ('standard', 'commercial', 'incognito')
                   THEN interval '30 days' + benchmark.dice(n, 7) * interval '2 days'
               WHEN fate IN ('young standard', 'young commercial', 'young incognito')
                   THEN benchmark.dice(n, 7) * interval '30 days'
               WHEN fate = 'kept' THEN benchmark.dice(n, 7) * interval '780 days'
               ELSE interval '33 days' + benchmark.dice(n, 7) * interval '740 days' END AS last_activity_at,
           timestamptz '$as_of' - CASE fate
               WHEN 'deleted' THEN interval '30 days' + benchmark.dice(n, 8) * interval '2 days'
               WHEN 'young deleted' THEN benchmark.dice(n, 8) * interval '30 days' END AS deleted_at
    FROM owners
)
SELECT l.*,
       l.fate <> 'kept' AND l.fate NOT LIKE 'young %' AS due,
       l.last_activity_at - benchmark.dice(n, 9) * CASE WHEN benchmark.dice(n, 10) < 0.05
           THEN interval '10 days' ELSE interval '90 minutes' END AS created_at
FROM lives l;

INSERT INTO store.conversations
    (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at, deleted_at)
SELECT benchmark.id('conversation', t.n), benchmark.id('account', t.account),
       CASE WHEN benchmark.dice(t.n, 11) < 0.2 THEN 'coding_session' ELSE 'chat' END,
       CASE WHEN benchmark.dice(t.n, 12) < 0.1 THEN 'bedrock' ELSE 'first_party' END,
       t.fate IN ('incognito', 'young incognito'), false, t.created_at, t.last_activity_at, t.deleted_at
FROM benchmark.talks t
ORDER BY t.created_at;

-- In the order in which they were written: the messages of a conversation lie near each other, among those of others.
INSERT INTO store.messages (id, conversation_id, author, created_at, body)
SELECT benchmark.id('message', t.n * 1000000 + place), benchmark.id('conversation', t.n),
       CASE WHEN place % 2 = 0 THEN 'user' ELSE 'assistant' END,
       t.created_at + (t.last_activity_at - t.created_at) * place / GREATEST($messages - 1, 1) AS written_at,
       repeat(md5(CAST(t.n * 1000000 + place AS text)), 2 + CAST(floor(benchmark.dice(t.n * 1000000 + place, 13) * 9) AS integer))
FROM benchmark.talks t, generate_series(0, $messages - 1) AS place
ORDER BY written_at;

INSERT INTO store.attachments (id, conversation_id, uri)
SELECT benchmark.id('attachment', t.n), benchmark.id('conversation', t.n), 'memory://benchmark/' || t.n
FROM benchmark.talks t
WHERE benchmark.dice(t.n, 14) < 0.02;

INSERT INTO store.feedback (id, account_id, conversation_id, kind, submitted_at, rating)
SELECT benchmark.id('feedback', t.n), benchmark.id('account', t.account), benchmark.id('conversation', t.n), 'thumbs',
       t.last_activity_at, 1
FROM benchmark.talks t
WHERE benchmark.dice(t.n, 15) < 0.02;

CREATE TABLE benchmark.due AS SELECT benchmark.id('conversation', t.n) AS id FROM benchmark.talks t WHERE t.due;
DROP TABLE benchmark.talks;
