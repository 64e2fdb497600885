-- The newest tombstone that is to be seen.
SELECT COALESCE(max(t.id), 0) AS last FROM sweeper.tombstones t
