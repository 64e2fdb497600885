-- `account` and `explain` find the tombstones of one account, and those that were due in a time, without reading all of them.

SELECT set_config('statement_timeout', '0', true);  -- there may be very many
CREATE INDEX tombstones_account ON sweeper.tombstones (account_id, due_at);
