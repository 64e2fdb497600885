-- The ledger: a Merkle tree (RFC 6962) whose leaves are the rows of tombstones and events, and its checkpoints.

-- Rows commit in another order than that of their ids, so ids say nothing about what has been seen. What has no leaf number
-- yet is told as ranges: the ids after the last one, and those that were left out because nobody had committed them.
CREATE TABLE sweeper.ledger_sources (
    source text PRIMARY KEY CHECK (source IN ('tombstones', 'events')),
    unnumbered int8multirange NOT NULL DEFAULT '{(,)}'
);
COMMENT ON TABLE sweeper.ledger_sources IS 'Which ids have no leaf number yet. Whoever gives leaf numbers locks these rows.';
INSERT INTO sweeper.ledger_sources (source) VALUES ('tombstones'), ('events');

CREATE TABLE sweeper.leaves (
    first bigint PRIMARY KEY CHECK (first >= 0),
    source text NOT NULL REFERENCES sweeper.ledger_sources,
    first_id bigint NOT NULL,
    length bigint NOT NULL CHECK (length > 0),
    UNIQUE (source, first_id)
);
COMMENT ON TABLE sweeper.leaves IS 'Insert-only. The rows first_id, first_id + 1, ... are the leaves first, first + 1, ..., length of them.';

CREATE TABLE sweeper.tiles (
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    first bigint NOT NULL CHECK (first >= 0),
    hashes bytea NOT NULL,
    PRIMARY KEY (level, first),
    CHECK (octet_length(hashes) > 0 AND octet_length(hashes) % 32 = 0 AND first % 256 + octet_length(hashes) / 32 <= 256)
);
COMMENT ON TABLE sweeper.tiles IS 'Insert-only. Neighbouring nodes of one level (l: the roots of 256 ^ l leaves), a tile of 256 or a part of one.';
ALTER TABLE sweeper.tiles ALTER hashes SET STORAGE EXTERNAL;  -- hashes do not compress

CREATE TABLE sweeper.checkpoints (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size bigint NOT NULL CHECK (size > 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note text NOT NULL,
    signed_by text,
    taken_at timestamptz NOT NULL
);
COMMENT ON TABLE sweeper.checkpoints IS 'Insert-only. What the tree was; note is C2SP tlog-checkpoint. signed_by: the key''s id, NULL: unsigned.';
CREATE INDEX ON sweeper.checkpoints (size);

CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.leaves
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.tiles
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweeper.checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION sweeper.refuse_change();
