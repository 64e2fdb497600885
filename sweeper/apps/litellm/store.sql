-- The log of the LiteLLM proxy as sweeper reads it: each request is a conversation of its own. To be run as the owner of the
-- proxy's tables:
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DBA_URL"
--
-- It can be run again. Nothing of LiteLLM's is changed, but for two more indexes. Run it again after each upgrade.

BEGIN;
CREATE SCHEMA IF NOT EXISTS store;

-- One account has all requests. "user" may be empty, NULL or a name that no table has, and such a row would be kept for ever.
CREATE OR REPLACE VIEW store.accounts AS
SELECT 'everyone'::text AS id, NULL::timestamptz AS created_at, NULL::timestamptz AS closed_at;

-- No plans and no consent.
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at
WHERE false;

-- The proxy writes UTC into columns without a time zone.
CREATE OR REPLACE VIEW store.conversations AS
SELECT l.request_id AS id,
       'everyone'::text AS account_id,
       'request'::text AS kind,
       'api'::text AS platform,
       false AS incognito,
       false AS zero_retention,
       l."startTime" AT TIME ZONE 'UTC' AS created_at,
       l."startTime" AT TIME ZONE 'UTC' AS last_activity_at,
       NULL::timestamptz AS deleted_at,
       NULL::timestamptz AS restored_at,
       NULL::timestamptz AS flagged_at
FROM public."LiteLLM_SpendLogs" l;

-- What was asked and answered is in the row itself.
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

-- What is due is found by this index; LiteLLM's own on "startTime" cannot serve a time with a time zone.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_spend_logs_started
    ON public."LiteLLM_SpendLogs" (("startTime" AT TIME ZONE 'UTC'));
-- What still has content is found by this one, so that a run does not look at the requests of 180 days every night.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_spend_logs_content ON public."LiteLLM_SpendLogs" (request_id)
    WHERE messages IS DISTINCT FROM '{}' OR response IS DISTINCT FROM '{}' OR proxy_server_request IS DISTINCT FROM '{}';
ANALYZE public."LiteLLM_SpendLogs", public."LiteLLM_SpendLogGuardrailIndex", public."LiteLLM_SpendLogToolIndex";
