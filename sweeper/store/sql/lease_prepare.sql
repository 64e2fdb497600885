-- Make sure that the store has a lease to be taken; its token goes on where any run before it ended.
INSERT INTO sweeper.lease (store, token, expires_at)
SELECT :store, COALESCE((SELECT max(r.token) FROM sweeper.runs r WHERE r.store = :store), 0), '-infinity'
WHERE NOT EXISTS (SELECT FROM sweeper.lease l WHERE l.store = :store)
ON CONFLICT (store) DO NOTHING
