-- Make sure that the store has a lease to be taken.
INSERT INTO sweeper.lease (store, expires_at) VALUES (:store, '-infinity') ON CONFLICT (store) DO NOTHING
