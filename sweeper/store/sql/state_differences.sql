-- Where the rows of a table are not what the events tell of them: row by row, and column by column where a row is there. Only
-- the columns that an event tells and the table has are compared; instants may differ in their time zone alone.
WITH told AS (
$told
), found AS (
$found
)
SELECT COALESCE(t.row_id, f.row_id) AS id, t.event_id,
       CASE WHEN f.row_id IS NULL THEN 'missing'
            WHEN t.row_id IS NULL OR NOT t.is_begun THEN 'untold'
            WHEN t.told IS NULL THEN 'dropped'
            ELSE 'changed' END AS how,
       d.name, d.told, d.here
FROM told t
FULL JOIN found f ON f.row_id = t.row_id
LEFT JOIN LATERAL (
    SELECT k.name, k.told, f.here ->> k.name AS here FROM jsonb_each_text(t.told) AS k (name, told)
    WHERE f.here ? k.name AND f.here ->> k.name IS DISTINCT FROM k.told
) d ON f.row_id IS NOT NULL AND t.is_begun AND NOT f.here @> t.told
WHERE t.row_id IS NULL OR (f.row_id IS NULL) <> (t.told IS NULL) OR (f.row_id IS NOT NULL AND NOT t.is_begun) OR d.name IS NOT NULL
ORDER BY length(COALESCE(t.row_id, f.row_id)), 1, d.name
