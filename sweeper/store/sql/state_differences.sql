-- Where the rows of a table are not what the events tell of them: row by row, and column by column where a row is there. Only
-- the columns that an event tells and the table has are compared; instants may differ in their time zone alone. Few rows differ:
-- they are found first, as wholes.
WITH told AS (
$told
), found AS (
$found
), differing AS MATERIALIZED (
    SELECT COALESCE(t.row_id, f.row_id) AS id, t.event_id, t.told, f.here,
           CASE WHEN f.row_id IS NULL THEN 'missing'
                WHEN t.row_id IS NULL OR NOT t.is_begun THEN 'untold'
                WHEN t.told IS NULL THEN 'dropped'
                ELSE 'changed' END AS how
    FROM told t
    FULL JOIN found f ON f.row_id = t.row_id
    WHERE t.row_id IS NULL OR (f.row_id IS NULL) <> (t.told IS NULL)
        OR (f.row_id IS NOT NULL AND (NOT t.is_begun OR NOT f.here @> t.told))
)
SELECT d.id, d.event_id, d.how, c.name, c.told, c.here
FROM differing d
LEFT JOIN LATERAL (
    SELECT k.name, k.told, d.here ->> k.name AS here FROM jsonb_each_text(d.told) AS k (name, told)
    WHERE d.here ? k.name AND d.here ->> k.name IS DISTINCT FROM k.told
) c ON d.how = 'changed'
WHERE d.how <> 'changed' OR c.name IS NOT NULL
ORDER BY length(d.id), d.id, c.name
