-- What the newest event of each row tells of it; NULL: that it was dropped, or given another id. A truncation drops all before it.
SELECT l.row_id, l.event_id, true AS is_begun,
       CASE WHEN e.details -> 'now' ->> 'id' = l.row_id THEN e.details -> 'now' END AS told
FROM (
    SELECT c.row_id, max(e.id) AS event_id
    FROM sweeper.events e
    CROSS JOIN LATERAL (VALUES (e.details -> 'now' ->> 'id'), (e.details -> 'was' ->> 'id')) AS c (row_id)
    WHERE e.kind IN ('${prefix}_added', '${prefix}_changed', '${prefix}_dropped') AND c.row_id IS NOT NULL
        AND e.id > COALESCE((SELECT max(t.id) FROM sweeper.events t WHERE t.kind = '${prefix}_truncated'), -9223372036854775808)
    GROUP BY c.row_id
) l
JOIN sweeper.events e ON e.id = l.event_id
