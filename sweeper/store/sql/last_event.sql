-- When the latest event of a kind was recorded that is of a store, or of all.
SELECT max(e.at) AS at FROM sweeper.events e WHERE e.kind = :kind AND coalesce(e.details ->> 'store', :store) = :store
