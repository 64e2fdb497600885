-- The fence as a lock that only the roles concerned can take, by rows however they come; indexes by which the cost of holds
-- and orders follows what they reach.

-- Batches lock this table in SHARE mode, placements in EXCLUSIVE mode. It has no rows. LOCK TABLE asks for UPDATE on it, which
-- roles.sql grants to the job alone; placements take it as the owner. An advisory lock could be taken by anyone who connects.
CREATE TABLE sweeper.fence ();
COMMENT ON TABLE sweeper.fence IS 'Locked, never filled: a batch shares it, whoever places a hold has it alone.';

CREATE OR REPLACE FUNCTION sweeper.fence_legal_holds() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE sweeper.fence IN EXCLUSIVE MODE;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sweeper.fence_legal_holds() IS 'When this has returned, every batch that could have missed the hold has ended.';

-- Row triggers: an apply worker of logical replication fires no statement triggers, and of row triggers only ENABLE ALWAYS.
DROP TRIGGER fence ON sweeper.legal_holds;
CREATE TRIGGER fence BEFORE INSERT OR UPDATE ON sweeper.legal_holds
    FOR EACH ROW EXECUTE FUNCTION sweeper.fence_legal_holds();
ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER fence;

ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER record;
ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER record_truncation;
ALTER TABLE sweeper.erasure_orders ENABLE ALWAYS TRIGGER record;
ALTER TABLE sweeper.erasure_orders ENABLE ALWAYS TRIGGER record_truncation;
ALTER TABLE sweeper.pauses ENABLE ALWAYS TRIGGER record;
ALTER TABLE sweeper.pauses ENABLE ALWAYS TRIGGER record_truncation;

-- A hold that is released is never read again: each index ends in when it is, "infinity" while it is in force.
DROP INDEX sweeper.legal_holds_spelling_idx, sweeper.legal_holds_spelling_idx1;
$spelling
CREATE INDEX legal_holds_account ON sweeper.legal_holds (sweeper.spelling(account_id), COALESCE(released_at, 'infinity'));
CREATE INDEX legal_holds_conversation
    ON sweeper.legal_holds (sweeper.spelling(conversation_id), COALESCE(released_at, 'infinity'));
CREATE INDEX legal_holds_everything ON sweeper.legal_holds (COALESCE(released_at, 'infinity'))
    WHERE account_id IS NULL AND conversation_id IS NULL;

-- Orders are searched by what they name exactly; by its spelling too, to keep what one may have meant out of training.
DROP INDEX sweeper.erasure_orders_account_id_idx, sweeper.erasure_orders_conversation_id_idx;
CREATE INDEX erasure_orders_account ON sweeper.erasure_orders (account_id, due_at)
    WHERE conversation_id IS NULL AND due_at IS NOT NULL;  -- so that it is not taken for the next one where there are no statistics
CREATE INDEX erasure_orders_recorded ON sweeper.erasure_orders (account_id, recorded_at) INCLUDE (due_at, store)
    WHERE conversation_id IS NULL;
CREATE INDEX erasure_orders_conversation ON sweeper.erasure_orders (conversation_id, due_at);
CREATE INDEX erasure_orders_spelt_account ON sweeper.erasure_orders (sweeper.spelling(account_id));
CREATE INDEX erasure_orders_spelt_conversation ON sweeper.erasure_orders (sweeper.spelling(conversation_id));

-- A program of an older revision shares another fence: one that is at work loses its lease here, and purges nothing more.
UPDATE sweeper.lease SET token = token + 1;
