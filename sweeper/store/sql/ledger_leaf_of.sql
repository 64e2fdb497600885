-- The leaf number of a row, if it has one.
SELECT l.first + (:id - l.first_id) AS leaf
FROM (SELECT * FROM sweeper.leaves WHERE source = :source AND first_id <= :id ORDER BY first_id DESC LIMIT 1) l
WHERE :id - l.first_id < l.length
