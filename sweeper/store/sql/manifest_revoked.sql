-- How many rows are named in the files beside a manifest: those that had left when it was frozen or started.
SELECT count(DISTINCT r.message_id) FROM sweeper.revocations r
WHERE r.manifest_id = :manifest_id AND r.found_by IN ('freeze', 'start')
