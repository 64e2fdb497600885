-- LangGraph's checkpoints as sweeper reads them. Nothing of LangGraph's is changed, but for one more index.
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DBA_URL"
--
-- It can be run again. Run it again after each upgrade of the application.

BEGIN;
CREATE SCHEMA IF NOT EXISTS store;

-- The time in a checkpoint's id, which is a UUIDv6. Any other id gives NULL: then the thread is kept, and counted as in doubt.
CREATE OR REPLACE FUNCTION store.checkpoint_time(checkpoint_id text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN checkpoint_id LIKE '________-____-6___-____-____________' AND translate(checkpoint_id, '0123456789abcdef', '') = '----' THEN
        -- 60 bits: so many tenths of a microsecond since 1582-10-15, of which 122192928000000000 were before 1970
        to_timestamp((
            ('x' || substr(checkpoint_id, 1, 8) || substr(checkpoint_id, 10, 4) || substr(checkpoint_id, 16, 3))::bit(60)::bigint
            - 122192928000000000
        ) / 10000000::double precision)
END;
-- An index is made with it, so whoever writes checkpoints executes it.
GRANT EXECUTE ON FUNCTION store.checkpoint_time(text) TO PUBLIC;

-- LangGraph knows no accounts. One account has all threads.
CREATE OR REPLACE VIEW store.accounts AS
SELECT 'everyone'::text AS id, NULL::timestamptz AS created_at, NULL::timestamptz AS closed_at;

-- No plans. A plan for everyone, where the policy has plans, is one line instead:
-- SELECT 1::bigint AS id, 'everyone'::text AS account_id, '-infinity'::timestamptz AS effective_at, 'free'::text AS plan;
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

-- No consent, so no thread is ever used for training. Once `sweeper migrate` has run, this reads what `sweeper consent record` writes:
-- SELECT id, account_id, purpose, granted, recorded_at, effective_at FROM sweeper.consent_events;
CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at
WHERE false;

-- A thread is shown by its newest checkpoint, whichever graph or subgraph wrote it. A checkpoint whose id has no time counts as
-- the newest, so that nothing is concluded from the others. The inner query reads the index at the end of this file and nothing
-- else; keep it as it is. The times are computed outside of it, for one row a thread.
CREATE OR REPLACE VIEW store.conversations AS
SELECT c.thread_id AS id,
       'everyone'::text AS account_id,
       'chat'::text AS kind,
       'first_party'::text AS platform,
       false AS incognito,
       false AS zero_retention,
       (SELECT min(store.checkpoint_time(o.checkpoint_id)) FROM public.checkpoints o WHERE o.thread_id = c.thread_id) AS created_at,
       store.checkpoint_time(c.checkpoint_id) AS last_activity_at,
       NULL::timestamptz AS deleted_at,
       NULL::timestamptz AS restored_at,
       NULL::timestamptz AS flagged_at
FROM (
    SELECT DISTINCT ON (n.thread_id) n.thread_id, n.checkpoint_id
    FROM public.checkpoints n
    ORDER BY n.thread_id, coalesce(store.checkpoint_time(n.checkpoint_id), 'infinity') DESC
) c;

-- What was said is inside of the checkpoints and blobs, in a form that only LangGraph reads.
CREATE OR REPLACE VIEW store.messages AS
SELECT NULL::text AS id, NULL::text AS conversation_id, NULL::text AS author, NULL::timestamptz AS created_at, NULL::text AS body
WHERE false;

CREATE OR REPLACE VIEW store.attachments AS
SELECT NULL::text AS id, NULL::text AS conversation_id, NULL::text AS uri WHERE false;

CREATE OR REPLACE VIEW store.feedback AS
SELECT NULL::text AS id, NULL::text AS account_id, NULL::text AS conversation_id, NULL::text AS kind,
       NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript
WHERE false;
COMMIT;

-- CONCURRENTLY: nobody waits for it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_checkpoints_newest ON public.checkpoints
    (thread_id, coalesce(store.checkpoint_time(checkpoint_id), 'infinity') DESC, checkpoint_id);
