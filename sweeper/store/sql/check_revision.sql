-- The revision of the sweeper's own tables.
SELECT v.version_num FROM sweeper.schema_version v
