-- Who may do what: the roles of the sweeper, with nothing beyond what each needs.
--
--     psql -X -v ON_ERROR_STOP=1 -f deploy/postgres/roles.sql "$DBA_URL"
--
-- Read it, change part 1, run it after `sweeper migrate`, and again after each later one. Run again it changes nothing; it also
-- takes back whatever else was granted to these roles on these tables. It needs a superuser, or a role that may create roles
-- and owns (or may grant) what is below. It is one transaction: where it fails, nothing was changed.
--
--   sweeper_owner    owns schema sweeper. Nobody logs in as it: `sweeper migrate` acts as it for a member, and for a superuser.
--   sweeper          the job. It deletes conversations, and only adds to the evidence: it can neither change nor drop any.
--   sweeper_auditor  reads the evidence, and nothing of the store: no conversation, no message.
--   sweeper_officer  places and releases legal holds, adds and withdraws erasure orders, records plans and consent. It cannot
--                    purge, and the job cannot release a hold, withdraw an order or record a consent.
--
-- The last two are for people: GRANT sweeper_officer TO alice. Each logs in as herself, and sweeper.events names her.
-- No password is set here: use certificates, SCRAM with \password, or your cloud's identities.
--
-- What these roles do not prevent: the job can *add* tombstones and events that are not true. A member of sweeper_owner or a
-- superuser can switch the triggers off and change evidence. Both show in the signed checkpoints, whose key no database holds.

BEGIN;
SET LOCAL standard_conforming_strings = on;   -- a backslash below is a backslash, whatever the database says
SET LOCAL quote_all_identifiers = off;
SET LOCAL search_path = pg_catalog, pg_temp;  -- no object of anybody else's is taken for one of these
SET LOCAL lock_timeout = '5s';                -- rather than make a sweep and its holds wait behind this, give up

-- 1. What is yours: change it here, and nowhere below -------------------------------------------------------------------------

CREATE TEMPORARY TABLE settings ON COMMIT DROP AS
SELECT 'store' AS store,       -- [store] schema: where the seven relations are, tables or views
       '' AS account_columns,  -- further columns of accounts that your policy reads: 'history_enabled, retention_days'
       '' AS message_columns;  -- 'body', only if this role builds manifests --with-text or exports them: nothing else reads what people wrote

-- The tables that rows are deleted from, as in [purge], [purge.feedback] and [[purge.children]], and those with a foreign key to
-- them, each with the column that says whose a row is. `further` are other columns that lead there (a key of two columns), and
-- for a child's child 'ctid, tableoid', which tell where it lay and so that it is gone. `deletes` is false where ON DELETE
-- CASCADE does it: a cascade runs as the owner of the child table, not as the job. `locks` is the column that the job may write
-- because it could not lock rows otherwise (part 5): never the one that says whose a row is, for with that the job could put what
-- one person wrote into the conversation of another. Columns of [[purge.redact]] go into both `further` and `locks`. `sweeper
-- check`, run as the job, names what is missing here.
CREATE TEMPORARY TABLE purged (relation text, key text, further text, deletes boolean, locks text) ON COMMIT DROP;
INSERT INTO purged VALUES
    ('store.conversations', 'id', '', true, 'id'),
    ('store.feedback', 'id', '', true, 'id'),
    ('store.messages', 'conversation_id', '', false, 'id'),
    ('store.attachments', 'conversation_id', '', false, 'id');

-- 2. The roles ----------------------------------------------------------------------------------------------------------------

DO $$
BEGIN
    IF to_regrole('sweeper_owner') IS NULL THEN CREATE ROLE sweeper_owner NOLOGIN; END IF;
    IF to_regrole('sweeper') IS NULL THEN CREATE ROLE sweeper LOGIN; END IF;
    IF to_regrole('sweeper_auditor') IS NULL THEN CREATE ROLE sweeper_auditor NOLOGIN; END IF;
    IF to_regrole('sweeper_officer') IS NULL THEN CREATE ROLE sweeper_officer NOLOGIN; END IF;
    -- To hand things over to a role one must be a member of it; a superuser is one of every role.
    IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
        EXECUTE format('GRANT sweeper_owner TO %I', current_user);
    END IF;
END $$;

-- Where tables of the store have row-level security, the job must see all rows: it sets row_security = off, and a statement that
-- would see only a part fails. Then, and only then:
--     ALTER ROLE sweeper BYPASSRLS;
-- Where there are replicas, the job waits for those that fall behind ([pace] replica_lag_...). To see how far they are it must be
-- allowed to read all statistics, other sessions' statements with the words in them included; otherwise it says so in its log and
-- waits for none. If you want it to:
--     GRANT pg_read_all_stats TO sweeper;

DO $$
BEGIN
    -- To log in. TEMPORARY: manifests are built, and reports counted, in temporary tables.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO sweeper', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sweeper_owner, sweeper_auditor, sweeper_officer', current_database());
END $$;

-- 3. Schema sweeper and all in it belong to sweeper_owner ---------------------------------------------------------------------

DO $$
DECLARE
    statement text;
BEGIN
    IF to_regnamespace('sweeper') IS NULL THEN CREATE SCHEMA sweeper AUTHORIZATION sweeper_owner; END IF;
    FOR statement IN
        -- The schema first: whoever is to own a table must be allowed to make one there.
        SELECT 'ALTER SCHEMA sweeper OWNER TO sweeper_owner'
        FROM pg_namespace n WHERE n.nspname = 'sweeper' AND n.nspowner <> to_regrole('sweeper_owner')
        UNION ALL
        -- Indexes and the sequences behind ids go with their tables.
        SELECT format('ALTER TABLE %s OWNER TO sweeper_owner', c.oid::regclass)
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('sweeper') AND c.relkind IN ('r', 'p', 'v', 'm')
          AND c.relowner <> to_regrole('sweeper_owner')
        UNION ALL
        -- record_change and record_truncation run with their owner's privileges: whoever changes a hold leaves an event, and
        -- needs no privilege on sweeper.events to do so.
        SELECT format('ALTER ROUTINE %s OWNER TO sweeper_owner', p.oid::regprocedure)
        FROM pg_proc p WHERE p.pronamespace = to_regnamespace('sweeper') AND p.proowner <> to_regrole('sweeper_owner')
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- 4. Nothing for everybody ----------------------------------------------------------------------------------------------------

REVOKE ALL ON SCHEMA sweeper FROM PUBLIC, sweeper, sweeper_auditor, sweeper_officer;
REVOKE ALL ON ALL TABLES IN SCHEMA sweeper FROM PUBLIC, sweeper, sweeper_auditor, sweeper_officer;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA sweeper FROM PUBLIC, sweeper, sweeper_auditor, sweeper_officer;
-- EXECUTE is everybody's unless taken away, and whoever may execute record_change can hang it on a table of her own: every row
-- put there would forge a hold's event. The triggers themselves need no EXECUTE.
REVOKE ALL ON ALL ROUTINES IN SCHEMA sweeper FROM PUBLIC, sweeper, sweeper_auditor, sweeper_officer;
-- What later revisions make. For functions the default must be set for the role as a whole: set for a schema, PUBLIC would keep EXECUTE.
ALTER DEFAULT PRIVILEGES FOR ROLE sweeper_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
-- The job may read new tables, and no more until this file has been run again: so that `sweeper check` can say what is missing.
ALTER DEFAULT PRIVILEGES FOR ROLE sweeper_owner IN SCHEMA sweeper GRANT SELECT ON TABLES TO sweeper;

-- 5. Who may do what ----------------------------------------------------------------------------------------------------------

-- Columns NULL: the whole table. A table or column that this database does not have (yet) is left out.
CREATE TEMPORARY TABLE allowed (role text, relation text, privilege text, columns text) ON COMMIT DROP;

-- The job and the store: read what the contract names, and of messages not what people wrote.
INSERT INTO allowed
SELECT 'sweeper', format('%I.%s', s.store, r.relation), 'SELECT', concat_ws(', ', r.columns, NULLIF(r.further, ''))
FROM settings s,
     LATERAL (VALUES
         ('accounts', 'id, created_at, closed_at', s.account_columns),
         ('plan_changes', 'id, account_id, effective_at, plan', ''),
         ('consent_events', 'id, account_id, purpose, granted, recorded_at, effective_at', ''),
         ('messages', 'id, conversation_id, author, created_at', s.message_columns),
         ('attachments', 'conversation_id, uri', ''),
         -- Of a transcript it only asks whether there is one; PostgreSQL has no privilege for less than the column.
         ('feedback', 'id, account_id, conversation_id, kind, submitted_at, transcript', '')
     ) AS r (relation, columns, further);
-- Conversations as a whole: what the policy reads may be any column, and the proposing statements hand whole rows on.
INSERT INTO allowed SELECT 'sweeper', format('%I.conversations', s.store), 'SELECT', NULL FROM settings s;
-- The tables behind the purge: to find the rows of a batch, and to see afterwards that they are gone.
INSERT INTO allowed
SELECT 'sweeper', p.relation, 'SELECT', concat_ws(', ', p.key, NULLIF(p.further, '')) FROM purged p;
INSERT INTO allowed SELECT 'sweeper', p.relation, 'DELETE', NULL FROM purged p WHERE p.deletes;
-- A batch's rows are locked FOR UPDATE before they are decided on, and for that PostgreSQL asks for UPDATE on one column at
-- least. The program never writes it; with a row's own id the job could do no more harm than the deleting that it is there for.
INSERT INTO allowed SELECT 'sweeper', p.relation, 'UPDATE', p.locks FROM purged p;

-- The job and its own tables. What is insert-only has no UPDATE and no DELETE; the triggers refuse them to the owner as well.
-- `sweeper check` reads these rows, too, so that grants are written nowhere else.
INSERT INTO allowed VALUES
    ('sweeper', 'sweeper.identity', 'SELECT', NULL),         -- which store this is, for approvals
    ('sweeper', 'sweeper.schema_version', 'SELECT', NULL),   -- which revision: tables of another one are refused
    ('sweeper', 'sweeper.runs', 'SELECT', NULL),
    ('sweeper', 'sweeper.runs', 'INSERT', NULL),
    -- A run is opened, opened again after a lost answer, and closed; what it looked at and under which policy never changes.
    ('sweeper', 'sweeper.runs', 'UPDATE', 'started_at, finished_at, outcome, result, plan_changes, consent_events'),
    ('sweeper', 'sweeper.lease', 'SELECT', NULL),
    ('sweeper', 'sweeper.lease', 'INSERT', NULL),
    ('sweeper', 'sweeper.lease', 'UPDATE', 'run_id, token, expires_at, yields, wanted_at'),
    ('sweeper', 'sweeper.tombstones', 'SELECT', NULL),
    -- Not id: the database numbers them, and the job cannot (OVERRIDING SYSTEM VALUE) put one between two others.
    ('sweeper', 'sweeper.tombstones', 'INSERT',
     'record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at'),
    ('sweeper', 'sweeper.events', 'SELECT', NULL),
    -- Not at and actor: the database records when it happened and who did it.
    ('sweeper', 'sweeper.events', 'INSERT', 'kind, run_id, details'),
    ('sweeper', 'sweeper.object_purges', 'SELECT', NULL),
    ('sweeper', 'sweeper.object_purges', 'INSERT', 'uri, conversation_id, run_id'),
    -- Which object it was about never changes, only what became of it.
    ('sweeper', 'sweeper.object_purges', 'UPDATE', 'attempts, last_run_id, last_error, outcome, done_at'),
    ('sweeper', 'sweeper.copies', 'SELECT', NULL),           -- how far each copy has been told what was purged
    ('sweeper', 'sweeper.copies', 'INSERT', 'store, name, claimed_until'),
    ('sweeper', 'sweeper.copies', 'UPDATE', 'next_leaf, delivered_at, failed_at, last_error, claimed_until'),
    ('sweeper', 'sweeper.fence', 'UPDATE', NULL),            -- to lock it, which keeps holds and batches apart; it has no rows
    ('sweeper', 'sweeper.legal_holds', 'SELECT', NULL),      -- it obeys holds and orders, and places and releases none
    ('sweeper', 'sweeper.erasure_orders', 'SELECT', NULL),
    ('sweeper', 'sweeper.plan_changes', 'SELECT', NULL),     -- `reapply` looks for those that a restore lost
    ('sweeper', 'sweeper.consent_events', 'SELECT', NULL),
    ('sweeper', 'sweeper.manifests', 'SELECT', NULL),
    ('sweeper', 'sweeper.manifests', 'INSERT', NULL),
    -- A manifest moves on, from frozen to started to completed; what it holds never changes.
    ('sweeper', 'sweeper.manifests', 'UPDATE', 'state, started_at, completed_at, recalled_at'),
    ('sweeper', 'sweeper.revocations', 'SELECT', NULL),
    ('sweeper', 'sweeper.revocations', 'INSERT', 'manifest_id, message_id, conversation_id, reason, since, found_at, found_by'),
    ('sweeper', 'sweeper.pauses', 'SELECT', NULL),
    ('sweeper', 'sweeper.pauses', 'INSERT', 'reason, paused_at'),
    ('sweeper', 'sweeper.pauses', 'UPDATE', 'resumed_at'),   -- why and since when it was paused stays
    ('sweeper', 'sweeper.backfills', 'SELECT', NULL),
    ('sweeper', 'sweeper.backfills', 'INSERT', NULL),
    ('sweeper', 'sweeper.backfills', 'UPDATE', 'done_until, seen_at, stopped_at, finished_at'),  -- how far it is; its plan stays
    ('sweeper', 'sweeper.ledger_sources', 'SELECT', NULL),   -- the Merkle tree: it grows, and nothing in it changes
    ('sweeper', 'sweeper.ledger_sources', 'UPDATE', 'unnumbered'),  -- what evidence has no place in it yet
    ('sweeper', 'sweeper.leaves', 'SELECT', NULL),
    ('sweeper', 'sweeper.leaves', 'INSERT', NULL),
    ('sweeper', 'sweeper.tiles', 'SELECT', NULL),
    ('sweeper', 'sweeper.tiles', 'INSERT', NULL),
    ('sweeper', 'sweeper.checkpoints', 'SELECT', NULL),
    ('sweeper', 'sweeper.checkpoints', 'INSERT', 'size, root, note, signed_by, taken_at');

-- The auditor reads what happened. It needs no conversation: evidence is judged by itself, and a receipt by its signature.
INSERT INTO allowed
SELECT 'sweeper_auditor', 'sweeper.' || t.name, 'SELECT', t.columns
FROM (VALUES
    ('identity', NULL), ('schema_version', NULL),  -- which store, which revision: the commands ask
    ('runs', NULL), ('tombstones', NULL), ('events', NULL), ('manifests', NULL), ('revocations', NULL),
    ('legal_holds', NULL), ('erasure_orders', NULL), ('plan_changes', NULL), ('consent_events', NULL), ('pauses', NULL), ('backfills', NULL),
    ('ledger_sources', NULL), ('leaves', NULL), ('tiles', NULL), ('checkpoints', NULL), ('copies', NULL),
    -- Whether the objects of attachments are gone. Not their names, which can tell much, and not the errors.
    ('object_purges', 'id, conversation_id, run_id, attempts, last_run_id, outcome, done_at')
) AS t (name, columns);

-- The officer places and releases holds, adds and withdraws orders, records plans and consent; who, when and what the trigger
-- writes into sweeper.events.
INSERT INTO allowed VALUES
    ('sweeper_officer', 'sweeper.schema_version', 'SELECT', NULL),
    ('sweeper_officer', 'sweeper.legal_holds', 'SELECT', NULL),
    ('sweeper_officer', 'sweeper.legal_holds', 'INSERT', 'matter, account_id, conversation_id, placed_at'),
    ('sweeper_officer', 'sweeper.legal_holds', 'UPDATE', 'released_at'),  -- a hold is released; it is not turned into another
    ('sweeper_officer', 'sweeper.erasure_orders', 'SELECT', NULL),
    ('sweeper_officer', 'sweeper.erasure_orders', 'INSERT', 'reference, account_id, conversation_id, recorded_at, due_at, store'),
    ('sweeper_officer', 'sweeper.erasure_orders', 'UPDATE', 'withdrawn_at'),  -- the trigger takes its due date away
    ('sweeper_officer', 'sweeper.plan_changes', 'SELECT', NULL),
    ('sweeper_officer', 'sweeper.plan_changes', 'INSERT', 'account_id, plan, effective_at'),
    ('sweeper_officer', 'sweeper.consent_events', 'SELECT', NULL),
    ('sweeper_officer', 'sweeper.consent_events', 'INSERT', 'account_id, purpose, granted, effective_at');
-- `hold place` says how many conversations an id reaches, and refuses one that the store does not know; `hold list`
-- marks what finds nothing; `consent record` says whether the store shows what was recorded.
INSERT INTO allowed
SELECT 'sweeper_officer', format('%I.%s', s.store, r.relation), 'SELECT', r.columns
FROM settings s, (VALUES
    ('accounts', 'id'), ('conversations', 'id, account_id'), ('feedback', 'account_id, conversation_id'),
    ('plan_changes', 'account_id, effective_at, plan'), ('consent_events', 'account_id, purpose, granted, recorded_at')
) AS r (relation, columns);

DO $$
DECLARE
    statement text;
    missing text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON TABLE %s FROM sweeper, sweeper_auditor, sweeper_officer', to_regclass(a.relation))
        FROM allowed a WHERE to_regclass(a.relation) IS NOT NULL
        UNION ALL
        SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, a.role)
        FROM allowed a
        JOIN pg_class c ON c.oid = to_regclass(a.relation)
        JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL
        SELECT format('GRANT %s%s ON TABLE %s TO %I', a.privilege, ' (' || found.columns || ')', c.oid::regclass, a.role)
        FROM allowed a
        JOIN pg_class c ON c.oid = to_regclass(a.relation)
        CROSS JOIN LATERAL (
            SELECT string_agg(quote_ident(t.attname), ', ' ORDER BY t.attnum) AS columns
            FROM regexp_split_to_table(a.columns, '\s*,\s*') AS w (name)
            JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = w.name AND NOT t.attisdropped
        ) AS found
        WHERE a.columns IS NULL
           OR found.columns IS NOT NULL  -- columns that are not there never become the whole table
          AND NOT EXISTS (  -- a grant on the whole table is not repeated by column
              SELECT FROM allowed whole
              WHERE whole.columns IS NULL AND whole.role = a.role AND whole.privilege = a.privilege
                AND to_regclass(whole.relation) = c.oid
          )
    LOOP
        EXECUTE statement;
    END LOOP;
    SELECT string_agg(DISTINCT a.relation, ', ') INTO missing FROM allowed a WHERE to_regclass(a.relation) IS NULL;
    IF missing IS NOT NULL THEN
        RAISE NOTICE 'left out, because not there: %. Run this again once it is.', missing;
    END IF;
END $$;

-- Ids that people wrote are compared by it, and the indexes of holds are on it: an INSERT there runs it as whoever inserts.
DO $$
BEGIN
    IF to_regprocedure('sweeper.spelling(text)') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION sweeper.spelling(text) TO sweeper, sweeper_officer;
    END IF;
END $$;

-- 6. What this file cannot mend -----------------------------------------------------------------------------------------------

DO $$
DECLARE
    warning text;
BEGIN
    FOR warning IN
        SELECT format('role %s is a superuser: nothing above restrains it', r.rolname)
        FROM pg_roles r WHERE r.rolname IN ('sweeper', 'sweeper_auditor', 'sweeper_officer') AND r.rolsuper
        UNION ALL
        SELECT format('role %s is a member of sweeper_owner: REVOKE sweeper_owner FROM %s', r.rolname, r.rolname)
        FROM pg_roles r
        WHERE r.rolname IN ('sweeper', 'sweeper_auditor', 'sweeper_officer') AND NOT r.rolsuper
          AND pg_has_role(r.oid, 'sweeper_owner', 'MEMBER')
        UNION ALL
        -- Before PostgreSQL 15, and in databases that come from there, everybody may create in schema public.
        SELECT format('role sweeper may create objects in schema %I; if your applications allow: REVOKE CREATE ON SCHEMA %I '
                      'FROM PUBLIC', n.nspname, n.nspname)
        FROM pg_namespace n
        WHERE n.nspname NOT LIKE 'pg\_%' AND has_schema_privilege('sweeper', n.oid, 'CREATE')
          AND NOT pg_has_role('sweeper', n.nspowner, 'USAGE')
    LOOP
        RAISE WARNING '%', warning;
    END LOOP;
END $$;

COMMIT;
