-- Events with these ids as JSON texts, in order of id; instants are in UTC, jsonb is a text. The limit makes it use the key.
SELECT t.id, row_to_json(l)::text AS told
FROM unnest(CAST(:ids AS int8multirange)) AS r (ids)
CROSS JOIN LATERAL (
    SELECT * FROM sweeper.events t
    WHERE t.id >= lower(r.ids) AND t.id <= coalesce(upper(r.ids), 9223372036854775807) AND t.id <@ r.ids
    ORDER BY t.id LIMIT :limit
) t
CROSS JOIN LATERAL (SELECT t.id, t.at, t.kind, t.run_id, t.actor, t.details::text AS details) l
ORDER BY t.id
