-- The lease as it is, without a lock; its end is the database's business, so the database's clock says whether it is held.
SELECT l.run_id, l.expires_at, l.expires_at > clock_timestamp() AS held, l.yields, l.wanted_at,
       (SELECT r.kind FROM sweeper.runs r WHERE r.id = l.run_id) AS kind
FROM sweeper.lease l WHERE l.store = :store
