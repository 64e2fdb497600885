-- Whether the lease's holder gives way to a run; read without waiting for its batch.
SELECT l.yields FROM sweeper.lease l WHERE l.store = :store
