-- The views through which the sweeper reads Open WebUI, and the indexes that it needs. To be run as the owner of the
-- application's tables:
--
--     psql -X -v ON_ERROR_STOP=1 -f store.sql "$DATABASE_URL"
--
-- It can be run again, and changes nothing in the application's tables. To take it back: DROP SCHEMA store CASCADE, and DROP INDEX
-- for the indexes whose names begin with sweeper_.

CREATE SCHEMA IF NOT EXISTS store;

-- Functions ------------------------------------------------------------------------------------------------------------------

-- A time of the application, in seconds since 1970; some clients of its API write milliseconds. What is no time becomes NULL,
-- and NULL keeps the chat.
CREATE OR REPLACE FUNCTION store.at(epoch bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN epoch BETWEEN 1 AND 9999999999 THEN to_timestamp(epoch)
            WHEN epoch BETWEEN 10000000000 AND 9999999999999 THEN to_timestamp(epoch / 1000) END;

-- Where the bytes of a file are. With another STORAGE_PROVIDER than local files, `path` is a URI already. A relative path, from a
-- relative DATA_DIR, is shown as it is: nothing is removed by it, and it is reported.
CREATE OR REPLACE FUNCTION store.uri(path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN path LIKE '/%' THEN 'file://' || path ELSE path END;

-- The ids of files in a JSON document, wherever they stand in it: every UUID. It reads the text, so that no document fails.
CREATE OR REPLACE FUNCTION store.uuids(document text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT DISTINCT lower(found[1]) FROM
             regexp_matches(document, '[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}', 'g') AS found);

-- The chat that a chat of a sub-agent or a timer works for.
CREATE OR REPLACE FUNCTION store.parent(meta json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN meta::text LIKE '%"parent_chat_id"%' THEN substring(meta::text FROM '"parent_chat_id": *"([^"]+)"') END;

-- When the newest user message of a chat's own JSON was written; NULL if none says so. What cannot be read is infinity, which
-- keeps the chat.
CREATE OR REPLACE FUNCTION store.newest_user_message(chat json) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT max(store.at((message.value ->> 'timestamp')::numeric::bigint))
            FROM json_each(chat #> '{history,messages}') AS message WHERE message.value ->> 'role' = 'user');
EXCEPTION WHEN others THEN
    RETURN 'infinity';
END $$;

-- Indexes --------------------------------------------------------------------------------------------------------------------
-- CONCURRENTLY: the application goes on meanwhile. If one fails half-way, DROP INDEX it and run this file again.

-- When users wrote last in each chat: the last activity is read from this index alone.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_chat_message_user
    ON public.chat_message (chat_id, updated_at, created_at) WHERE role = 'user';
-- Rows that name a chat.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_shared_chat_chat ON public.shared_chat (chat_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_automation_run_chat ON public.automation_run (chat_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_chatidtag_chat ON public.chatidtag (chat_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_feedback_chat ON public.feedback ((meta ->> 'chat_id'));
-- Files: which messages name one, and which rows have the same bytes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_chat_message_files
    ON public.chat_message USING gin (store.uuids(files::text)) WHERE files::text NOT IN ('null', '[]');
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_file_uri ON public.file (store.uri(path));
-- Paths that may name the same file as another one does; the pattern is the one that `sweeper check` prints.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_file_odd_uri ON public.file (store.uri(path))
    WHERE store.uri(path) ~ '^([^a-z]|$|[a-z][a-z0-9+._-]*([^a-z0-9+._:-]|$|:([^/]|$|/([^/]|$))))|^(file|local)://[^/]|^[^/]*//[^/]*[A-Z:]|^[^a/][^/]*//[^/]*@|^([^h]|h[^t]).*[?#]|//.*//|/[.][.]?/|/([.][.]?)?$|::|\\|[\u0001-\u001f\u007f-\u009f]|%([cC]2%[89]|25|0|1|2[dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAcCfF]|6[1-9a-fA-F]|7[0-9aAeEfF])';

-- Views ----------------------------------------------------------------------------------------------------------------------

BEGIN;

CREATE OR REPLACE VIEW store.accounts AS
SELECT u.id::text AS id, store.at(u.created_at) AS created_at, NULL::timestamptz AS closed_at FROM public."user" u;

-- Open WebUI has no plans and asks for no consent. To build training manifests, let these two views read sweeper.plan_changes and
-- sweeper.consent_events instead, and write a policy with plans.
CREATE OR REPLACE VIEW store.plan_changes AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::timestamptz AS effective_at, NULL::text AS plan WHERE false;

CREATE OR REPLACE VIEW store.consent_events AS
SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
       NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at WHERE false;

-- Last activity: when the newest user message was sent or last edited, or the chat was made, imported, cloned or forked, whichever
-- is later. Without any row in chat_message it is updated_at, which also moves when somebody pins, archives or files the chat:
-- that keeps longer, never shorter. For more than a million chats, updated_at alone is quicker (see the page):
--     store.at(c.updated_at) AS last_activity_at
--     CREATE INDEX CONCURRENTLY ON public.chat (user_id, store.at(updated_at));
--
-- A chat that a sub-agent or a timer has for itself goes with the chat that it works for, and not while its timer is set.
CREATE OR REPLACE VIEW store.conversations AS
SELECT c.id::text AS id, c.user_id::text AS account_id, 'chat' AS kind, 'first_party' AS platform,
       false AS incognito, false AS zero_retention,
       store.at(c.created_at) AS created_at,
       GREATEST(store.at(c.created_at), COALESCE(wrote.last_at, store.at(c.updated_at))) AS last_activity_at,
       NULL::timestamptz AS deleted_at, NULL::timestamptz AS restored_at, NULL::timestamptz AS flagged_at,
       COALESCE(c.pinned, false) OR c.timer_at IS NOT NULL
           OR COALESCE((SELECT p.pinned FROM public.chat p WHERE p.id = store.parent(c.meta)), false) AS pinned
FROM public.chat c
CROSS JOIN LATERAL (
    SELECT max(GREATEST(store.at(m.updated_at), store.at(m.created_at))) AS last_at
    FROM public.chat_message m WHERE m.chat_id IN (c.id, store.parent(c.meta)) AND m.role = 'user'
) AS wrote;

-- The application writes each message into chat_message and into the chat's own JSON, and swallows some errors of the first. The
-- newest user message of the JSON is shown as a row of its own, so that a chat is kept if chat_message lacks it.
CREATE OR REPLACE VIEW store.messages AS
SELECT m.id, m.chat_id AS conversation_id, m.role AS author, store.at(m.created_at) AS created_at, m.content::text AS body
FROM public.chat_message m
UNION ALL
SELECT c.id || ' (newest in JSON)', c.id::text, 'user', store.newest_user_message(c.chat), NULL FROM public.chat c;

-- The files of a chat; and every file once more for no chat, so that bytes stay as long as any row has them.
CREATE OR REPLACE VIEW store.attachments AS
SELECT n.id, n.chat_id AS conversation_id, store.uri(f.path) AS uri
FROM public.chat_file n JOIN public.file f ON f.id = n.file_id
UNION ALL
SELECT f.id::text, NULL, store.uri(f.path) FROM public.file f;

-- What names files without a foreign key: messages of other chats (a clone or a fork has the files of its original), folders,
-- notes, models, and chats shared by a link.
CREATE OR REPLACE VIEW store.named_files AS
SELECT store.uuids(m.files::text) AS ids FROM public.chat_message m WHERE m.files::text NOT IN ('null', '[]')
UNION ALL SELECT store.uuids(d.data::text) FROM public.folder d
UNION ALL SELECT store.uuids(n.data::text) FROM public.note n
UNION ALL SELECT store.uuids(m.meta) FROM public.model m;

-- Feedback stays; what it copied from a chat goes with the chat ([[purge.children]] in sweeper.toml).
CREATE OR REPLACE VIEW store.feedback AS
SELECT NULL::text AS id, NULL::text AS account_id, NULL::text AS conversation_id, NULL::text AS kind,
       NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript WHERE false;

COMMIT;

-- What the planner knows about the new indexes, and about small tables, which are not analysed by themselves.
ANALYZE public.chat, public.chat_message, public.chat_file, public.file, public.shared_chat, public.automation_run,
    public.feedback, public.chatidtag;
