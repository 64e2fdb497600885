-- Whether the row triggers by which changes of holds and orders take the fence are there and fire, replicated rows included.
SELECT count(*) = 2
FROM pg_catalog.pg_trigger t
WHERE t.tgrelid IN (to_regclass('sweeper.legal_holds'), to_regclass('sweeper.erasure_orders'))
  AND t.tgname = 'fence' AND t.tgenabled = 'A' AND t.tgtype & 1 = 1
