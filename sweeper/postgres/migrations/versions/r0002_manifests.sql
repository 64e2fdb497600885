-- Training manifests as they stand, and (insert-only) what left them since.

CREATE TABLE sweeper.manifests (
    id text PRIMARY KEY,
    store text NOT NULL,
    directory text NOT NULL,
    as_of timestamptz NOT NULL,
    policy_digest text NOT NULL,
    eligible bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('frozen', 'started', 'completed')),
    frozen_at timestamptz NOT NULL,
    started_at timestamptz,
    completed_at timestamptz,
    recalled_at timestamptz,
    CHECK ((started_at IS NULL) = (state = 'frozen')),
    CHECK ((completed_at IS NULL) = (state <> 'completed'))
);
COMMENT ON TABLE sweeper.manifests IS 'The id follows from the content: a manifest is never changed, only moved on.';

CREATE TABLE sweeper.revocations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    manifest_id text NOT NULL REFERENCES sweeper.manifests,
    message_id text NOT NULL,
    conversation_id text NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL,
    found_at timestamptz NOT NULL,
    found_by text NOT NULL CHECK (found_by IN ('freeze', 'start', 'recall')),
    UNIQUE (manifest_id, message_id, found_by)
);
COMMENT ON TABLE sweeper.revocations IS 'Insert-only. Rows of a manifest that may not be trained on any more, and since when; no content.';

CREATE INDEX ON sweeper.events ((details ->> 'manifest'));

CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.revocations
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
CREATE FUNCTION sweeper.refuse_drop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'sweeper.% keeps what was: a manifest is evidence and is not dropped', TG_TABLE_NAME;
END $$;
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON sweeper.manifests
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_drop();

CREATE FUNCTION sweeper.only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.store, NEW.directory, NEW.as_of, NEW.policy_digest, NEW.eligible, NEW.frozen_at)
           IS DISTINCT FROM (OLD.id, OLD.store, OLD.directory, OLD.as_of, OLD.policy_digest, OLD.eligible, OLD.frozen_at)
       OR OLD.started_at IS NOT NULL AND NEW.started_at IS DISTINCT FROM OLD.started_at
       OR OLD.completed_at IS NOT NULL AND NEW.completed_at IS DISTINCT FROM OLD.completed_at THEN
        RAISE EXCEPTION 'sweeper.manifests is evidence: a manifest only moves on, from frozen to started to completed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_forward BEFORE UPDATE ON sweeper.manifests FOR EACH ROW EXECUTE FUNCTION sweeper.only_forward();
