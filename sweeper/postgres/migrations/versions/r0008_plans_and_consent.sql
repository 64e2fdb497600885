-- Plans and consent, for applications that keep none: the store's plan_changes and consent_events can be views of these tables.
-- The checks refuse what would put all conversations of the account in doubt.

CREATE TABLE sweeper.plan_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL CHECK (btrim(account_id) <> ''),
    effective_at timestamptz NOT NULL
        CHECK (effective_at = '-infinity' OR effective_at >= '2015-01-01 00:00:00+00' AND effective_at < '9999-01-01 00:00:00+00'),
    plan text NOT NULL CHECK (btrim(plan) <> ''),
    recorded_at timestamptz NOT NULL
);
COMMENT ON TABLE sweeper.plan_changes IS 'Insert-only. From effective_at on the account has the plan; -infinity: always.';
CREATE INDEX ON sweeper.plan_changes (account_id);

CREATE TABLE sweeper.consent_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL CHECK (btrim(account_id) <> ''),
    purpose text NOT NULL CHECK (btrim(purpose) <> ''),
    granted boolean NOT NULL,
    recorded_at timestamptz NOT NULL,
    effective_at timestamptz NOT NULL
        CHECK (effective_at >= '2015-01-01 00:00:00+00' AND effective_at < '9999-01-01 00:00:00+00')
);
COMMENT ON TABLE sweeper.consent_events IS 'Insert-only. One row each time that an account grants a purpose or withdraws it.';
CREATE INDEX ON sweeper.consent_events (account_id);

-- The server says when something was recorded, whatever the statement says: no consent is back-dated. Replication keeps the time
-- of the origin.
CREATE FUNCTION sweeper.stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.recorded_at := clock_timestamp();
    NEW.effective_at := COALESCE(NEW.effective_at, NEW.recorded_at);
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON sweeper.plan_changes FOR EACH ROW EXECUTE FUNCTION sweeper.stamp();
CREATE TRIGGER stamp BEFORE INSERT ON sweeper.consent_events FOR EACH ROW EXECUTE FUNCTION sweeper.stamp();

CREATE TRIGGER record AFTER INSERT ON sweeper.plan_changes FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('plan');
CREATE TRIGGER record AFTER INSERT ON sweeper.consent_events FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('consent');
ALTER TABLE sweeper.plan_changes ENABLE ALWAYS TRIGGER record;
ALTER TABLE sweeper.consent_events ENABLE ALWAYS TRIGGER record;

CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.plan_changes
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.consent_events
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
