-- How many messages there are by the reason that bars them; NULL: eligible.
SELECT r.reason, count(*) AS messages FROM ($reasoned) AS r GROUP BY r.reason
