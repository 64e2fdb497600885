-- The sessions of Google ADK (DatabaseSessionService) as sweeper reads them. Nothing of ADK's is changed, but for four more indexes.
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DBA_URL"
--
-- It can be run again. Run it again after each upgrade of the application.

BEGIN;
CREATE SCHEMA IF NOT EXISTS store;

-- A user's name means something within one app only, so an account is both, as in '7:support:alice'. The lengths make sure that no
-- two accounts and no two sessions have one id, whatever is in their names. Indexes are made with these functions: do not change
-- them.
CREATE OR REPLACE FUNCTION store.account_key(app_name text, user_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(app_name) || ':' || app_name || ':' || user_id;

-- As in '7:support:5:alice:3f0c2e9a'.
CREATE OR REPLACE FUNCTION store.session_key(app_name text, user_id text, id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(app_name) || ':' || app_name || ':' || length(user_id) || ':' || user_id || ':' || id;

-- The exact time inside of an event. Anything but a possible number of seconds gives NULL.
CREATE OR REPLACE FUNCTION store.event_time(event jsonb) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(event -> 'timestamp') = 'number' AND event -> 'timestamp' BETWEEN '0' AND '253402300799'
    THEN to_timestamp((event ->> 'timestamp')::double precision)
END;

-- Whoever writes sessions and events executes the first two.
GRANT EXECUTE ON FUNCTION store.account_key(text, text), store.session_key(text, text, text) TO PUBLIC;

-- ADK makes a row here for each user of an app before the user's first session, and does not work without it.
-- It is not purged: what an app remembers of a user beyond sessions is in it.
CREATE OR REPLACE VIEW store.accounts AS
SELECT store.account_key(app_name, user_id) AS id, NULL::timestamptz AS created_at, NULL::timestamptz AS closed_at
FROM public.user_states;

-- No plans. A plan for everyone, where the policy has plans, is one line instead:
-- SELECT 1::bigint AS id, id AS account_id, '-infinity'::timestamptz AS effective_at, 'free'::text AS plan FROM store.accounts;
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

-- No consent, so no session is ever used for training. Once `sweeper migrate` has run, this reads what `sweeper consent record` writes:
-- SELECT id, account_id, purpose, granted, recorded_at, effective_at FROM sweeper.consent_events;
CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at
WHERE false;

-- update_time is the time of the event that was appended last, an agent's included; ADK writes it in UTC without a zone.
CREATE OR REPLACE VIEW store.conversations AS
SELECT store.session_key(app_name, user_id, id) AS id,
       store.account_key(app_name, user_id) AS account_id,
       'chat'::text AS kind,
       'first_party'::text AS platform,
       false AS incognito,
       false AS zero_retention,
       create_time AT TIME ZONE 'UTC' AS created_at,
       update_time AT TIME ZONE 'UTC' AS last_activity_at,
       NULL::timestamptz AS deleted_at,
       NULL::timestamptz AS restored_at,
       NULL::timestamptz AS flagged_at
FROM public.sessions;

-- Earlier versions stored local times in the column; the later one of both times counts, and an event of the user that is later than
-- its session's update_time keeps the session.
CREATE OR REPLACE VIEW store.messages AS
SELECT id::text AS id,
       store.session_key(app_name, user_id, session_id) AS conversation_id,
       CASE WHEN event_data ->> 'author' = 'user' THEN 'user' ELSE 'assistant' END AS author,
       greatest("timestamp" AT TIME ZONE 'UTC', store.event_time(event_data)) AS created_at,
       event_data ->> 'content' AS body
FROM public.events;

CREATE OR REPLACE VIEW store.attachments AS
SELECT NULL::text AS id, NULL::text AS conversation_id, NULL::text AS uri WHERE false;

CREATE OR REPLACE VIEW store.feedback AS
SELECT NULL::text AS id, NULL::text AS account_id, NULL::text AS conversation_id, NULL::text AS kind,
       NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript
WHERE false;
COMMIT;

-- CONCURRENTLY: nobody waits for them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_sessions_key ON public.sessions (store.session_key(app_name, user_id, id));
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_sessions_updated ON public.sessions
    (store.account_key(app_name, user_id), (update_time AT TIME ZONE 'UTC'));
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_events_session ON public.events (store.session_key(app_name, user_id, session_id));
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_user_states_account ON public.user_states (store.account_key(app_name, user_id));
