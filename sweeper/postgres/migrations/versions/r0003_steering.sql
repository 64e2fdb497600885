-- Steering while it runs: pauses (the kill switch), plans of backfills, and a lease that gives way.

CREATE TABLE sweeper.pauses (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resumed_at timestamptz
);
COMMENT ON TABLE sweeper.pauses IS 'The kill switch: while one is not resumed, no process of any store of this database purges.';
CREATE INDEX ON sweeper.pauses (id) WHERE resumed_at IS NULL;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sweeper.pauses
    FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('pause');
CREATE TRIGGER record_truncation BEFORE TRUNCATE ON sweeper.pauses
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.record_truncation('pause');

CREATE TABLE sweeper.backfills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    slices text NOT NULL CHECK (slices IN ('day', 'week', 'month')),
    policy_digest text NOT NULL,
    approval text NOT NULL UNIQUE,
    expected bigint NOT NULL,
    done_until timestamptz NOT NULL,
    begun_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK (since < until),
    CHECK (done_until BETWEEN since AND until)
);
COMMENT ON TABLE sweeper.backfills IS 'Plans of backfills. Everything due before done_until has been swept; seen_at: the process was alive then.';
CREATE INDEX ON sweeper.backfills (store) WHERE finished_at IS NULL;

ALTER TABLE sweeper.runs ADD kind text NOT NULL DEFAULT 'run' CHECK (kind IN ('run', 'backfill', 'reapply'));
ALTER TABLE sweeper.runs ADD backfill_id bigint REFERENCES sweeper.backfills;
CREATE INDEX ON sweeper.runs (backfill_id) WHERE backfill_id IS NOT NULL;

ALTER TABLE sweeper.lease ADD yields boolean NOT NULL DEFAULT false;
ALTER TABLE sweeper.lease ADD wanted_at timestamptz NOT NULL DEFAULT '-infinity';
COMMENT ON COLUMN sweeper.lease.wanted_at IS 'A run waits for this lease since then: a holder that yields gives it back after its batch.';
