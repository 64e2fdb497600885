-- How a view is defined.
SELECT pg_get_viewdef(CAST(:oid AS oid)) AS definition
