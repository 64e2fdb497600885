-- Keep nodes of the tree.
INSERT INTO sweeper.tiles (level, first, hashes)
SELECT n.level, n.first, n.hashes
FROM unnest(CAST(:levels AS smallint[]), CAST(:firsts AS bigint[]), CAST(:hashes AS bytea[])) AS n (level, first, hashes)
