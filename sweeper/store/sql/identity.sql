-- Which store this is: the database's name and what was drawn when the sweeper's tables were made.
SELECT current_database() AS name, i.id::text AS id FROM sweeper.identity i
