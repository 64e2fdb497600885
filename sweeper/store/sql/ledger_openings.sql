-- Which events record a run as opened.
SELECT id FROM sweeper.events WHERE kind = 'run_opened' ORDER BY id
