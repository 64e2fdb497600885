-- How many manifests are in which state, when the one recalled longest ago was, and how many never were.
SELECT m.state, count(*) AS manifests, count(*) FILTER (WHERE m.recalled_at IS NULL) AS never_recalled, min(m.recalled_at) AS recalled_at
FROM sweeper.manifests m WHERE m.store = :store GROUP BY m.state
