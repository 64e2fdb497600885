-- A rule may redact instead of purge: the evidence is a tombstone with record = 'redaction'.

ALTER TABLE sweeper.tombstones
    DROP CONSTRAINT tombstones_record_check,
    ADD CONSTRAINT tombstones_record_check CHECK (record IN ('conversation', 'feedback', 'redaction'));
COMMENT ON TABLE sweeper.tombstones IS
    'Insert-only. One row for every purged record and every redaction, written in the transaction of the purge; no content.';
COMMENT ON COLUMN sweeper.tombstones.purged_at IS 'When the record was purged, or its content redacted.';

CREATE INDEX tombstones_redactions ON sweeper.tombstones (record_id) WHERE record = 'redaction';
