-- Of the newest open entries, those whose id is misspelt (another way to write one), impossible, or of no known record.
WITH entries AS MATERIALIZED (
    SELECT e.id, e.$column AS written, $spelt AS spelt
    FROM sweeper.$table e
    WHERE e.$column IS NOT NULL AND $open
    ORDER BY e.id DESC
    LIMIT :limit
), read AS MATERIALIZED (
    SELECT e.id, e.written, e.spelt, CASE WHEN e.spelt ~ '$pattern' THEN CAST(e.spelt AS $type) END AS key FROM entries e
)
SELECT r.id, CASE WHEN r.key IS NULL THEN 'impossible' WHEN r.key::text <> r.spelt THEN 'misspelt' ELSE 'unknown' END AS fault
FROM read r
WHERE r.key::text IS DISTINCT FROM r.spelt OR NOT ($known)
ORDER BY r.id
