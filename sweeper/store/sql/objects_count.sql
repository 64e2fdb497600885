-- How many objects are still to be removed.
SELECT count(*) AS pending FROM sweeper.object_purges WHERE done_at IS NULL
