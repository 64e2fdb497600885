-- Current state: runs, lease, legal_holds, erasure_orders, object_purges. History, insert-only: tombstones, events.

CREATE TABLE sweeper.identity (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
COMMENT ON TABLE sweeper.identity IS 'Which store this is, so that an approval for one is none for another.';
INSERT INTO sweeper.identity DEFAULT VALUES;

CREATE TABLE sweeper.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store text NOT NULL,
    as_of timestamptz NOT NULL,
    policy_name text NOT NULL,
    policy_digest text NOT NULL,
    token bigint NOT NULL,
    approval text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('completed', 'failed', 'refused', 'stopped', 'interrupted')),
    plan_changes bigint,
    consent_events bigint,
    result jsonb,
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
);
COMMENT ON TABLE sweeper.runs IS 'One row a run. outcome NULL: running, or interrupted and not yet found to be.';
CREATE UNIQUE INDEX ON sweeper.runs (store, token);
CREATE INDEX ON sweeper.runs (store, outcome, as_of);
CREATE INDEX ON sweeper.runs (approval) WHERE approval IS NOT NULL;

CREATE TABLE sweeper.lease (
    store text PRIMARY KEY,
    run_id bigint REFERENCES sweeper.runs,
    token bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE sweeper.lease IS 'Who may purge. The token grows with every holder; a batch commits only under its own.';

-- How an id that a person wrote is compared: a hold in capitals, in braces, with blanks or without hyphens must still hold.
-- It may hold too much, never too little.
CREATE FUNCTION sweeper.spelling(id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ltrim(regexp_replace(lower(id), '[-{}\s\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u3000\ufeff]', '', 'g'), '+0');

CREATE TABLE sweeper.legal_holds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    matter text NOT NULL,
    account_id text,
    conversation_id text,
    placed_at timestamptz DEFAULT clock_timestamp(),
    released_at timestamptz
);
COMMENT ON TABLE sweeper.legal_holds IS 'A hold names a conversation, an account, either of both, or (neither) everything.';
CREATE INDEX ON sweeper.legal_holds (sweeper.spelling(account_id));
CREATE INDEX ON sweeper.legal_holds (sweeper.spelling(conversation_id));
CREATE INDEX ON sweeper.legal_holds (matter);

CREATE TABLE sweeper.erasure_orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reference text NOT NULL,
    account_id text,
    conversation_id text,
    recorded_at timestamptz DEFAULT clock_timestamp(),
    due_at timestamptz,
    store text
);
COMMENT ON COLUMN sweeper.erasure_orders.store IS 'The schema it is about; NULL: every store of this database.';
CREATE INDEX ON sweeper.erasure_orders (account_id);
CREATE INDEX ON sweeper.erasure_orders (conversation_id);

CREATE TABLE sweeper.tombstones (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record text NOT NULL CHECK (record IN ('conversation', 'feedback')),
    record_id text NOT NULL,
    conversation_id text,
    account_id text,
    rule text NOT NULL,
    due_at timestamptz NOT NULL,
    as_of timestamptz NOT NULL,
    run_id bigint NOT NULL REFERENCES sweeper.runs,
    policy_digest text NOT NULL,
    children jsonb NOT NULL,
    approved boolean NOT NULL,
    purged_at timestamptz NOT NULL
);
COMMENT ON TABLE sweeper.tombstones IS 'Insert-only. One row for every purged record, written in the transaction of the purge; no content.';
CREATE INDEX ON sweeper.tombstones (record_id);
CREATE INDEX ON sweeper.tombstones (run_id);
CREATE INDEX ON sweeper.tombstones (purged_at);

CREATE TABLE sweeper.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    run_id bigint,
    actor text NOT NULL DEFAULT session_user,
    details jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE sweeper.events IS 'Insert-only. Everything else that happened, written in the transaction of what it tells.';
CREATE INDEX ON sweeper.events (run_id);

CREATE TABLE sweeper.object_purges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uri text NOT NULL,
    conversation_id text NOT NULL,
    run_id bigint NOT NULL REFERENCES sweeper.runs,
    attempts integer NOT NULL DEFAULT 0,
    last_run_id bigint,
    last_error text,
    outcome text CHECK (outcome IN ('removed', 'absent', 'shared')),
    done_at timestamptz,
    CHECK ((done_at IS NULL) = (outcome IS NULL))
);
COMMENT ON TABLE sweeper.object_purges IS 'Objects of purged attachments. outcome NULL: still to be removed; shared: another attachment names it.';
CREATE INDEX ON sweeper.object_purges (attempts, id) WHERE done_at IS NULL;

-- The fence. A placement takes it exclusively, every batch takes it shared before it reads holds: when a placement
-- has committed, every batch that could have missed it has ended. A transaction lock: nothing outlives its transaction.
CREATE FUNCTION sweeper.fence_legal_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(5857584, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER fence BEFORE INSERT OR UPDATE ON sweeper.legal_holds
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.fence_legal_holds();
ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER fence;  -- replication and restores place holds too

-- Whoever places, changes or drops a hold or an order, by the command or by hand, leaves an event.
CREATE FUNCTION sweeper.record_change() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO sweeper.events (kind, details)
    VALUES (TG_ARGV[0] || '_' || CASE TG_OP WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'changed' ELSE 'dropped' END,
            CASE TG_OP WHEN 'INSERT' THEN jsonb_build_object('now', pg_catalog.to_jsonb(NEW))
                       WHEN 'UPDATE' THEN jsonb_build_object('was', pg_catalog.to_jsonb(OLD), 'now', pg_catalog.to_jsonb(NEW))
                       ELSE jsonb_build_object('was', pg_catalog.to_jsonb(OLD)) END);
    RETURN NULL;
END $$;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sweeper.legal_holds
    FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('hold');
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sweeper.erasure_orders
    FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('order');

CREATE FUNCTION sweeper.record_truncation() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO sweeper.events (kind) VALUES (TG_ARGV[0] || '_truncated');
    RETURN NULL;
END $$;
CREATE TRIGGER record_truncation BEFORE TRUNCATE ON sweeper.legal_holds
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.record_truncation('hold');
CREATE TRIGGER record_truncation BEFORE TRUNCATE ON sweeper.erasure_orders
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.record_truncation('order');

CREATE FUNCTION sweeper.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'sweeper.% is insert-only: evidence is neither changed nor dropped', TG_TABLE_NAME;
END $$;
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.tombstones
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.events
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
