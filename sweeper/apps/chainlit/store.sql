-- The threads of Chainlit (SQLAlchemyDataLayer) as sweeper reads them. Nothing of Chainlit's is changed, but for more indexes.
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DBA_URL"
--
-- It can be run again. Run it again after each upgrade of the application.

BEGIN;
CREATE SCHEMA IF NOT EXISTS store;

-- Chainlit stores times as texts, such as 2026-11-28T12:00:00.123456Z. Any other text gives NULL, never a guess: then the thread is
-- kept, and counted as in doubt. A 30th of February becomes the 2nd of March, which is later.
CREATE OR REPLACE FUNCTION store.instant(at text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN at ~ '^[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+]00:00)$' THEN
        ((make_date(substr(at, 1, 4)::integer, substr(at, 6, 2)::integer, 1) + (substr(at, 9, 2)::integer - 1))
         + make_time(substr(at, 12, 2)::integer, substr(at, 15, 2)::integer,
                     rtrim(split_part(substr(at, 18), '+', 1), 'Z')::double precision)) AT TIME ZONE 'UTC'
END;

-- CHOOSE: where your storage provider keeps files. s3://bucket/, gs://bucket/ or abfs://container@account/, as fsspec names them; no
-- file is removed until [objects] prefixes in sweeper.toml names the same. To change it later, first:
-- DROP INDEX public.sweeper_elements_uri, public.sweeper_elements_odd_uri.
CREATE OR REPLACE FUNCTION store.object_uri(object_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 's3://your-bucket/' || object_key;

-- Indexes are made with them, so whoever writes steps and elements executes them.
GRANT EXECUTE ON FUNCTION store.instant(text), store.object_uri(text) TO PUBLIC;

CREATE OR REPLACE VIEW store.accounts AS
SELECT id, store.instant("createdAt") AS created_at, NULL::timestamptz AS closed_at FROM public.users;

-- No plans. A plan for everyone, where the policy has plans, is one line instead:
-- SELECT 1::bigint AS id, id AS account_id, '-infinity'::timestamptz AS effective_at, 'free'::text AS plan FROM store.accounts;
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::uuid AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

-- No consent, so no thread is ever used for training. Once `sweeper migrate` has run, this reads what `sweeper consent record` writes:
-- SELECT id, account_id::uuid, purpose, granted, recorded_at, effective_at FROM sweeper.consent_events;
CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::uuid AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at
WHERE false;

-- last_activity_at: the newest message of the user. One whose time cannot be read counts as the newest, so that nothing is concluded
-- from the others. A thread without such a message has no last activity, and is kept.
-- created_at: Chainlit writes the local time of its host and calls it UTC, so the first step counts if it is earlier.
-- pinned: a message of the thread is among the user's favorites.
CREATE OR REPLACE VIEW store.conversations AS
SELECT t.id,
       t."userId" AS account_id,
       'chat'::text AS kind,
       'first_party'::text AS platform,
       false AS incognito,
       false AS zero_retention,
       least(store.instant(t."createdAt"),
             (SELECT min(store.instant(s."createdAt")) FROM public.steps s WHERE s."threadId" = t.id)) AS created_at,
       (SELECT nullif(max(coalesce(store.instant(s."createdAt"), 'infinity')), 'infinity')
        FROM public.steps s WHERE s."threadId" = t.id AND s.type = 'user_message') AS last_activity_at,
       NULL::timestamptz AS deleted_at,
       NULL::timestamptz AS restored_at,
       NULL::timestamptz AS flagged_at,
       EXISTS (SELECT FROM public.steps s
               WHERE s."threadId" = t.id AND s.metadata::jsonb -> 'favorite' NOT IN ('false', 'null')) AS pinned
FROM public.threads t;

CREATE OR REPLACE VIEW store.messages AS
SELECT id,
       "threadId" AS conversation_id,
       CASE WHEN type = 'user_message' THEN 'user' ELSE 'assistant' END AS author,
       store.instant("createdAt") AS created_at,
       output AS body
FROM public.steps;

CREATE OR REPLACE VIEW store.attachments AS
SELECT id, "threadId" AS conversation_id, store.object_uri("objectKey") AS uri FROM public.elements;

-- Feedback in Chainlit belongs to a step, and goes with it.
CREATE OR REPLACE VIEW store.feedback AS
SELECT NULL::uuid AS id, NULL::uuid AS account_id, NULL::uuid AS conversation_id, NULL::text AS kind,
       NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript
WHERE false;
COMMIT;

-- Chainlit's documentation makes none but those of the primary keys. CONCURRENTLY: nobody waits for them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_threads_user ON public.threads ("userId");
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_steps_thread ON public.steps ("threadId");
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_steps_user_message ON public.steps
    ("threadId", coalesce(store.instant("createdAt"), 'infinity')) WHERE type = 'user_message';
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_elements_thread ON public.elements ("threadId");
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_elements_uri ON public.elements (store.object_uri("objectKey"));
-- for the few URIs that are not canonical
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_elements_odd_uri ON public.elements (store.object_uri("objectKey"))
    WHERE store.object_uri("objectKey") ~ '^([^a-z]|$|[a-z][a-z0-9+._-]*([^a-z0-9+._:-]|$|:([^/]|$|/([^/]|$))))|^(file|local)://[^/]|^[^/]*//[^/]*[A-Z:]|^[^a/][^/]*//[^/]*@|^([^h]|h[^t]).*[?#]|//.*//|/[.][.]?/|/([.][.]?)?$|::|\\|[\u0001-\u001f\u007f-\u009f]|%([cC]2%[89]|25|0|1|2[dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAcCfF]|6[1-9a-fA-F]|7[0-9aAeEfF])';
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_feedbacks_thread ON public.feedbacks ("threadId");
