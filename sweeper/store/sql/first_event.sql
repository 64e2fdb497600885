-- When the first event of a kind was recorded that is of a store.
SELECT min(e.at) AS at FROM sweeper.events e WHERE e.kind = :kind AND e.details ->> 'store' = :store
