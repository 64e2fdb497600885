-- Whether the row trigger by which a placement of a legal hold takes the fence is there and fires, for replicated rows too.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = to_regclass('sweeper.legal_holds') AND t.tgname = 'fence' AND t.tgenabled = 'A' AND t.tgtype & 1 = 1
)
