-- The first node that is kept beyond the numbered leaves.
SELECT t.level, t.first
FROM sweeper.tiles t
CROSS JOIN (SELECT coalesce(max(first + length), 0) AS size FROM sweeper.leaves) l
WHERE t.first + octet_length(t.hashes) / 32 > l.size >> (8 * t.level)
ORDER BY t.level, t.first LIMIT 1
