-- The sessions of the OpenAI Agents SDK (SQLAlchemySession) as sweeper reads them. Nothing of the SDK's is changed, but for one more
-- index.
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DBA_URL"
--
-- It can be run again. Run it again after each upgrade of the application.

BEGIN;
CREATE SCHEMA IF NOT EXISTS store;

-- The SDK stores times without a zone, in the zone of its database sessions. If that is not UTC, name it here. To name another zone
-- later, first: DROP INDEX public.sweeper_agent_sessions_updated.
CREATE OR REPLACE FUNCTION store.instant(at timestamp) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN at AT TIME ZONE 'UTC';
-- An index is made with it, so whoever writes sessions executes it.
GRANT EXECUTE ON FUNCTION store.instant(timestamp) TO PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM (VALUES (timestamptz '2026-01-01Z'), (timestamptz '2026-07-01Z')) AS t (at)
               WHERE store.instant(t.at::timestamp) <> t.at) THEN
        RAISE EXCEPTION 'this database''s time zone is %, and function store.instant of this file names another: sessions could '
                        'go too soon. Nothing was created.', current_setting('TimeZone')
            USING HINT = 'Write the zone in which your application stores times into store.instant. If that is not the '
                         'database''s, run this file with PGTZ set to it.';
    END IF;
END $$;

-- The SDK knows no accounts. One account has all sessions.
CREATE OR REPLACE VIEW store.accounts AS
SELECT 'everyone'::text AS id, NULL::timestamptz AS created_at, NULL::timestamptz AS closed_at;

-- No plans. A plan for everyone, where the policy has plans, is one line instead:
-- SELECT 1::bigint AS id, 'everyone'::text AS account_id, '-infinity'::timestamptz AS effective_at, 'free'::text AS plan;
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

-- No consent, so no session is ever used for training. Once `sweeper migrate` has run, this reads what `sweeper consent record` writes:
-- SELECT id, account_id, purpose, granted, recorded_at, effective_at FROM sweeper.consent_events;
CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at
WHERE false;

-- updated_at moves whenever items are added, the agent's own included, and when a session is compacted: it is never earlier than
-- the user's last message.
CREATE OR REPLACE VIEW store.conversations AS
SELECT session_id::text AS id,
       'everyone'::text AS account_id,
       'chat'::text AS kind,
       'first_party'::text AS platform,
       false AS incognito,
       false AS zero_retention,
       store.instant(created_at) AS created_at,
       store.instant(updated_at) AS last_activity_at,
       NULL::timestamptz AS deleted_at,
       NULL::timestamptz AS restored_at,
       NULL::timestamptz AS flagged_at
FROM public.agent_sessions;

-- Items are JSON in a text. One that may be the user's counts as the user's.
CREATE OR REPLACE VIEW store.messages AS
SELECT id,
       session_id::text AS conversation_id,
       CASE WHEN message_data ~ '"role": ?"user"' THEN 'user' ELSE 'assistant' END AS author,
       store.instant(created_at) AS created_at,
       message_data AS body
FROM public.agent_messages;

CREATE OR REPLACE VIEW store.attachments AS
SELECT NULL::text AS id, NULL::text AS conversation_id, NULL::text AS uri WHERE false;

CREATE OR REPLACE VIEW store.feedback AS
SELECT NULL::text AS id, NULL::text AS account_id, NULL::text AS conversation_id, NULL::text AS kind,
       NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript
WHERE false;
COMMIT;

-- CONCURRENTLY: nobody waits for it. The SDK itself makes the one on agent_messages (session_id, created_at).
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_agent_sessions_updated ON public.agent_sessions (store.instant(updated_at));
