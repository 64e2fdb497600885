-- The copies of the data elsewhere ([[copies]] in the settings), and how far each has been told what was purged.

CREATE TABLE sweeper.copies (
    store text NOT NULL,
    name text NOT NULL,
    next_leaf bigint NOT NULL DEFAULT 0 CHECK (next_leaf >= 0),
    delivered_at timestamptz,
    failed_at timestamptz,
    last_error text,
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (store, name)
);
COMMENT ON TABLE sweeper.copies IS
    'The cursor of each copy: it has acknowledged the tombstones of the store whose leaf number is below next_leaf.';
COMMENT ON COLUMN sweeper.copies.failed_at IS 'When the last delivery failed; NULL: it did not.';
COMMENT ON COLUMN sweeper.copies.claimed_until IS 'Until then one process delivers; a killed one leaves it.';
