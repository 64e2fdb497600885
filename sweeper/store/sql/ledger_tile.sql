-- The nodes of one tile that are kept.
SELECT first, hashes FROM sweeper.tiles WHERE level = :level AND first >= :begin AND first < :begin + 256 ORDER BY first
