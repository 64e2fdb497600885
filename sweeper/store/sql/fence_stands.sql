-- Whether the trigger that lets a placement of a legal hold take the fence is there and fires.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = to_regclass('sweeper.legal_holds') AND t.tgname = 'fence' AND t.tgenabled = 'A'
)
