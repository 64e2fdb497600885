-- The conversations that a run purged, page by page.
SELECT t.id, t.record_id FROM sweeper.tombstones t
WHERE t.run_id = :run_id AND t.record = 'conversation' AND t.id > :after ORDER BY t.id LIMIT :limit
