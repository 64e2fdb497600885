-- How each reapplication of one ledger was let in: by the digest of a person, or NULL.
SELECT details ->> 'confirmed' AS confirmed
FROM sweeper.events
WHERE kind = 'reapply'
  AND details @> jsonb_build_object('log', CAST(:log AS text), 'size', CAST(:size AS bigint), 'root', CAST(:root AS text))
