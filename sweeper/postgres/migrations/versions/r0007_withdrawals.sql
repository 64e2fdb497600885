-- Erasure orders can be withdrawn.

ALTER TABLE sweeper.erasure_orders ADD withdrawn_at timestamptz;
ALTER TABLE sweeper.erasure_orders ADD CHECK (withdrawn_at IS NULL OR due_at IS NULL);
COMMENT ON COLUMN sweeper.erasure_orders.withdrawn_at IS
    'Since when it erases nothing more. It has no due date then; that it had is in the event.';

-- A withdrawn order is one without a due date: no statement that decides has to know of withdrawals. Like the placement of a
-- hold, a withdrawal waits for every batch that could have missed it.
CREATE FUNCTION sweeper.withdraw_order() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE sweeper.fence IN EXCLUSIVE MODE;
    IF NEW.withdrawn_at IS NOT NULL THEN
        NEW.due_at := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fence BEFORE UPDATE ON sweeper.erasure_orders
    FOR EACH ROW WHEN (NEW.withdrawn_at IS DISTINCT FROM OLD.withdrawn_at) EXECUTE FUNCTION sweeper.withdraw_order();
ALTER TABLE sweeper.erasure_orders ENABLE ALWAYS TRIGGER fence;
