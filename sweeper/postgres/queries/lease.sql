-- name: lease_prepare
-- Create the store's lease if it is missing; its token continues after that of the last run.
INSERT INTO sweeper.lease (store, token, expires_at)
SELECT :store, COALESCE((SELECT max(r.token) FROM sweeper.runs r WHERE r.store = :store), 0), '-infinity'
WHERE NOT EXISTS (SELECT FROM sweeper.lease l WHERE l.store = :store)
ON CONFLICT (store) DO NOTHING

-- name: lease_look
-- The lease, locked, unless a batch of its holder has it locked now.
SELECT run_id, token, expires_at, yields, expires_at <= clock_timestamp() AS expired,
       wanted_at > clock_timestamp() - make_interval(secs => :fresh) AS preemption_requested
FROM sweeper.lease WHERE store = :store
FOR UPDATE SKIP LOCKED

-- name: lease_holder
-- The kind of run that holds a lease that has not expired.
SELECT r.kind FROM sweeper.lease l JOIN sweeper.runs r ON r.id = l.run_id
WHERE l.store = :store AND l.expires_at > clock_timestamp()

-- name: lease_take
-- Take the lease: the new token fences off the previous holder.
UPDATE sweeper.lease
SET run_id = NULL, token = token + 1, expires_at = clock_timestamp() + make_interval(secs => :seconds), yields = :yields,
    wanted_at = CASE WHEN :yields THEN wanted_at ELSE '-infinity' END
WHERE store = :store
RETURNING token

-- name: lease_is_preemptible
-- Whether the lease's holder can be preempted; read without waiting for its batch.
SELECT l.yields FROM sweeper.lease l WHERE l.store = :store

-- name: lease_request_preemption
-- Request the lease from a preemptible holder; no row if the holder is not preemptible.
UPDATE sweeper.lease SET wanted_at = clock_timestamp() WHERE store = :store AND yields RETURNING token

-- name: lease_renew
-- Renew the lease under its token and return what its holder must know of others; no row if another run has taken the lease.
UPDATE sweeper.lease
SET run_id = COALESCE(:run_id, run_id), expires_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE store = :store AND token = :token
RETURNING token,
          wanted_at > clock_timestamp() - make_interval(secs => :fresh) AS preemption_requested,
          (SELECT p.reason FROM sweeper.pauses p WHERE p.resumed_at IS NULL ORDER BY p.id LIMIT 1) AS paused

-- name: lease_give_back
-- Release the lease, so that the next run need not wait until it expires.
UPDATE sweeper.lease SET expires_at = '-infinity' WHERE store = :store AND token = :token

-- name: pause
-- Pause all stores.
INSERT INTO sweeper.pauses (reason, paused_at) VALUES (:reason, :now) RETURNING id, reason, paused_at

-- name: pauses
-- The pauses in force.
SELECT p.id, p.reason, p.paused_at FROM sweeper.pauses p WHERE p.resumed_at IS NULL ORDER BY p.id

-- name: resume
-- Lift every pause.
UPDATE sweeper.pauses SET resumed_at = :now WHERE resumed_at IS NULL RETURNING id, reason, paused_at, resumed_at
