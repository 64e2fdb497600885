-- Whether rows that were to go still lie where they lay.
SELECT EXISTS (
    SELECT 1 FROM $table t
    WHERE t.ctid = ANY(CAST(:places AS tid[])) AND t.tableoid::bigint || t.ctid::text = ANY(CAST(:marks AS text[]))
)
