-- What a run purged, by kind of record and rule, as the tombstones say.
SELECT t.record, t.rule, count(*) AS purged FROM sweeper.tombstones t WHERE t.run_id = :run_id GROUP BY t.record, t.rule
