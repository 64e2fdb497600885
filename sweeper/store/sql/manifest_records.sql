-- What was recorded of a manifest when it was frozen, copied and started, in order.
SELECT e.details FROM sweeper.events e
WHERE e.details ->> 'manifest' = :id AND e.kind IN ('manifest_frozen', 'manifest_copied', 'manifest_started')
ORDER BY e.id
