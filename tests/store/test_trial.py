"""`sweeper check` tries a purge and rolls it back: what would fail, and where what people wrote would live on."""

import re
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from sweeper.clock import Clock
from sweeper.errors import SweeperError
from sweeper.policy.schema import Policy
from sweeper.postgres import trial
from sweeper.postgres.check import check
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.runs.backfill import begin
from sweeper.runs.backfill_runner import BackfillRunner
from sweeper.runs.sweep import preview, sweep
from tests.store import stores
from tests.store.operated import NOW, chat, world
from tests.store.stores import RELATIONS, Store
from tests.store.test_drain import SCOPE
from tests.store.test_races import AS_OF, another, configure, fill, swept


def found(store: Store, policy: Policy, *, requested: bool | None = None, **sections: Any) -> list[CheckFinding]:
    """All findings."""
    return check(store.database(store.settings(**sections)), policy, Clock(), trial_requested=requested)


def as_owner(store: Store) -> Store:
    """The store as a role sees it that may write its tables."""
    return store.acting("postgres")


def contents(store: Store) -> list[Any]:
    """Every row of the store and of the sweeper's own tables."""
    tables = [f"store.{name}" for name in RELATIONS]
    tables += [
        name
        for (name,) in store.execute(
            "SELECT 'sweeper.' || relname FROM pg_class WHERE relnamespace = 'sweeper'::regnamespace AND relkind = 'r'"
        )
    ]
    return [(table, store.execute(f"SELECT t::text, xmin::text FROM {table} t ORDER BY 1")) for table in tables]


def audit(on: str = "messages", when: str = "AFTER DELETE", what: str = "OLD.body", name: str = "audit") -> str:
    """SQL of a trigger that writes down something of each row."""
    returned = "COALESCE(OLD, NEW)" if "DELETE" in when else "NEW"
    return (
        f"CREATE TABLE IF NOT EXISTS store.{name} (at timestamptz DEFAULT now(), words text);"
        f"CREATE FUNCTION store.write_{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        f"'BEGIN INSERT INTO store.{name} (words) VALUES ({what}); RETURN {returned}; END';"
        f"CREATE TRIGGER {name} {when} ON store.{on} FOR EACH ROW EXECUTE FUNCTION store.write_{name}();"
    )


@pytest.mark.parametrize("store", stores.ID_TYPES, indirect=True)
@pytest.mark.parametrize("rows", [0, 3])
def test_clean_store(rows: int, store: Store, policy: Policy) -> None:
    """As a role that may write the tables, a canary is purged too, from an empty store as well; nothing stays of it all."""
    if store.id_type == "uuid":
        fill(store, rows)
    before = contents(store)
    findings = [
        f for f in found(as_owner(store), policy) if f.subject in ("trial", "canary") or f.level is not Level.OK
    ]
    tried = f"{rows} conversations" if rows and store.id_type == "uuid" else "no record"
    assert [(f.level, f.subject) for f in findings] == [(Level.OK, "canary"), (Level.OK, "trial")]
    assert "was purged, and no table that was written to meanwhile keeps any" in findings[0].text
    assert findings[1].text == f"tried to delete {tried} and rolled it back"
    assert contents(store) == before


def test_job_tries_real_rows_only(store: Store, policy: Policy) -> None:
    """The job's role, which may write no message, says that it tried no canary, and who can; the real rows are tried."""
    fill(store, 30)
    before = contents(store)
    findings = {f.subject: f for f in found(store, policy)}
    assert all(f.level is Level.OK for f in findings.values())
    assert findings["canary"].text == "not tried: the role may not both read and fill store.conversations"
    assert "as a superuser" in findings["canary"].remedy
    assert re.match("tried to delete 1[0-5] conversations and", findings["trial"].text)
    assert contents(store) == before


def worst(store: Store, policy: Policy, subject: str, text: str, **sections: Any) -> Level | None:
    """The level of the one finding about a subject that holds a text; None where there is none."""
    findings = [f for f in found(store, policy, **sections) if f.subject == subject and text in f.text]
    assert len(findings) <= 1, findings
    assert all(f.remedy for f in findings)
    return findings[0].level if findings else None


REFUSING = "CREATE FUNCTION store.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''%'', OLD; END';"
CATALOGUE = (
    (audit(what="OLD.id"), "store.messages", "trigger audit runs at each DELETE (store.write_audit())"),
    (
        REFUSING + "CREATE TRIGGER t BEFORE DELETE ON store.attachments EXECUTE FUNCTION store.refuse()",
        "store.attachments",
        "trigger t runs at each DELETE",
    ),
    (
        audit(when="AFTER INSERT OR UPDATE", what="NEW.id", name="newer"),
        "store.messages",
        "trigger newer runs at each INSERT and UPDATE",
    ),
    (
        "CREATE TABLE store.old () INHERITS (store.messages)",
        "store.old",
        "inherits from store.messages: no foreign key",
    ),
    (audit("old", what="OLD.id", name="older"), "store.old", "trigger older runs at each DELETE"),
    (
        "CREATE TABLE store.copies (LIKE store.messages);"
        "CREATE RULE copy AS ON INSERT TO store.messages DO ALSO INSERT INTO store.copies VALUES (NEW.*)",
        "store.messages",
        "rule copy rewrites INSERT",
    ),
    (
        "CREATE MATERIALIZED VIEW store.shown AS SELECT body FROM store.messages",
        "store.shown",
        "this materialized view reads store.messages",
    ),
    (
        "CREATE VIEW store.a AS SELECT body FROM store.messages; CREATE VIEW store.b AS SELECT * FROM store.a;"
        "CREATE MATERIALIZED VIEW public.shown AS SELECT * FROM store.b",
        "public.shown",
        "this materialized view reads store.messages",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;"
        "CREATE FOREIGN TABLE store.far () INHERITS (store.messages) SERVER elsewhere",
        "store.far",
        "this is a foreign table",
    ),
    (
        "CREATE PUBLICATION feed FOR TABLE store.attachments WITH (publish = 'insert, update')",
        "store.attachments",
        "publication feed leaves deletes out",
    ),
    (
        "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert')",
        "store.messages",
        "publication everything leaves deletes out",
    ),
    ("ALTER TABLE store.attachments ADD file oid", "store.attachments", "column file may name large objects"),
    (
        "ALTER TABLE store.feedback ADD CONSTRAINT about FOREIGN KEY (conversation_id) REFERENCES store.conversations",
        "store.feedback",
        "about is ON DELETE NO ACTION",
    ),
    (
        "ALTER TABLE store.conversations RENAME TO threads; CREATE VIEW store.conversations AS SELECT * FROM store.threads;"
        "CREATE TRIGGER t INSTEAD OF DELETE ON store.conversations FOR EACH ROW EXECUTE FUNCTION store.refuse()",
        "store.conversations",
        "t acts on a DELETE from this view",
    ),
)


def test_catalogue(store: Store, policy: Policy) -> None:
    """What may keep content, or refuse, is a warning with a remedy from the catalogue alone, in a store without any row."""
    assert [f for f in found(store, policy, requested=False) if f.level is not Level.OK] == []
    for breaking, _, _ in CATALOGUE:
        store.execute(breaking)
    after = found(store, policy, requested=False, purge={"table": "threads"})
    for _, subject, text in CATALOGUE:
        told = [f for f in after if f.subject == subject and text in f.text]
        assert [(f.level, bool(f.remedy)) for f in told] == [(Level.WARNING, True)], (text, after)


def test_subscription(store: Store, policy: Policy) -> None:
    """What a subscription fills lives on at the publisher."""
    store.execute(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere' PUBLICATION feed WITH (connect = false, slot_name = NONE)"
    )
    try:
        store.execute(
            "SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel "
            "SELECT oid, 'store.messages'::regclass, 'r', NULL FROM pg_subscription"
        )
        assert worst(store, policy, "store.messages", "subscription feed fills this table") is Level.WARNING
    finally:
        store.execute("DROP SUBSCRIPTION feed")  # no database is dropped before


def test_child_without_replica_identity(store: Store, policy: Policy) -> None:
    """Children in a publication without a replica identity: the catalogue tells, the trial fails, and so does the run."""
    ids = fill(store, 2)
    store.execute(
        "CREATE TABLE store.notes (conversation_id uuid REFERENCES store.conversations ON DELETE CASCADE);"
        "CREATE INDEX ON store.notes (conversation_id); CREATE PUBLICATION feed FOR TABLE store.notes"
    )
    text = "2 of 2 conversations that were tried could not be purged"
    assert worst(store, policy, "store.notes", "has no replica identity") is Level.FAULT
    assert worst(store, policy, "trial", text) is Level.FAULT
    [finding] = [f for f in found(store, policy) if text in f.text]
    assert 'cannot delete from table "notes" because it does not have a replica identity' in finding.text
    assert swept(store, policy).as_json()["failed"] == len(ids)
    store.execute("ALTER TABLE store.notes REPLICA IDENTITY FULL")
    assert [f for f in found(store, policy) if f.level is not Level.OK] == []
    assert swept(store, policy).as_json()["purged"] == len(ids)


def test_partition_without_replica_identity(store: Store, policy: Policy) -> None:
    """A partition that is published by way of its parent is named itself."""
    store.execute(
        "CREATE TABLE store.notes (conversation_id uuid REFERENCES store.conversations ON DELETE CASCADE) "
        "PARTITION BY HASH (conversation_id); CREATE INDEX ON store.notes (conversation_id);"
        "CREATE TABLE store.notes_0 PARTITION OF store.notes FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "CREATE PUBLICATION feed FOR TABLE store.notes WITH (publish_via_partition_root = true)"
    )
    assert worst(store, policy, "store.notes_0", "has no replica identity") is Level.FAULT


def test_several_rows_of_a_conversation(store: Store, policy: Policy) -> None:
    """Several physical rows of one conversation: the trial says so before a run fails on each of them."""
    ids = fill(store, 200)  # so many that neither end nor its messages lead to the one
    store.execute(
        "CREATE TABLE store.versions AS SELECT c.*, v AS version FROM store.conversations c, generate_series(1, 2) v;"
        "CREATE INDEX ON store.versions (id); GRANT SELECT, DELETE, UPDATE ON store.versions TO sweeper;"
        "ALTER TABLE store.messages DROP CONSTRAINT messages_conversation_id_fkey;"
        "ALTER TABLE store.attachments DROP CONSTRAINT attachments_conversation_id_fkey;"
        "DROP TABLE store.conversations;"
        "CREATE VIEW store.conversations AS SELECT * FROM store.versions WHERE version = 2"
    )
    store.execute("GRANT DELETE ON store.messages, store.attachments TO sweeper")
    store.execute("DELETE FROM store.versions WHERE version = 1 AND id <> %s", ids[150])  # it alone keeps two
    sections: dict[str, Any] = {"purge": {"table": "versions"}}
    text = "store.versions has several rows of one record"
    assert worst(store, policy, "trial", text, **sections) is Level.FAULT
    [finding] = [f for f in found(store, policy, **sections) if text in f.text]
    assert re.match("1 of [0-9]+ conversations that were tried", finding.text)
    assert ids[150] in finding.text
    assert swept(store, policy, **sections).as_json()["failed"] == 1


REFUSALS = {
    "trigger": (
        REFUSING + "CREATE TRIGGER t AFTER DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.refuse()",
        "function refuse() failed with SQLSTATE P0001",
    ),
    "deferred trigger": (
        REFUSING + "CREATE CONSTRAINT TRIGGER t AFTER DELETE ON store.messages DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION store.refuse()",
        "function refuse() failed with SQLSTATE P0001",
    ),
    "trigger that chokes on content": (
        "CREATE FUNCTION store.choke() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM OLD.body::integer; EXECUTE OLD.body; RETURN NULL; END';"
        "CREATE TRIGGER t AFTER DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.choke()",
        "function choke() failed with SQLSTATE 22P02",
    ),
    "rows kept back": (
        "CREATE FUNCTION store.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER t BEFORE DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.keep()",
        "rows stayed behind",
    ),
    "privileges of a trigger": (
        audit("conversations", what="OLD.id").replace(
            "SECURITY DEFINER", ""
        )  # a cascade runs as the owner, this as the job
        + "REVOKE ALL ON store.audit FROM sweeper",
        "permission denied for table audit",
    ),
    "foreign key": (
        "ALTER TABLE store.feedback ADD CONSTRAINT about FOREIGN KEY (conversation_id) REFERENCES store.conversations;"
        "INSERT INTO store.feedback (id, conversation_id, kind, submitted_at) "
        "SELECT gen_random_uuid(), id, 'thumbs', now() FROM store.conversations ORDER BY id OFFSET 150 LIMIT 1",
        'violates foreign key constraint "about" on table "feedback"',
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, store: Store, policy: Policy) -> None:
    """What makes the purge of real rows fail is told without what they say; a run fails by it, too."""
    breaking, text = REFUSALS[name]
    fill(store, 200 if "OFFSET" in breaking else 20)  # so many that neither end nor its messages lead to the one
    store.execute(breaking)
    findings = [f for f in found(store, policy) if f.subject == "trial" and f.level is not Level.OK]
    assert [f.level for f in findings] == [Level.FAULT], findings
    assert text in findings[0].text
    assert "secret words" not in str(findings)
    try:
        failed = swept(store, policy).as_json()["failed"]
    except SweeperError as error:  # what every other row would suffer, too, ends the run
        failed = text in str(error)
    assert failed


def test_feedback_is_tried(store: Store, policy: Policy) -> None:
    """Feedback rows are tried, too, and what keeps their transcripts is found."""
    store.execute(
        "INSERT INTO store.feedback (id, kind, submitted_at) VALUES (gen_random_uuid(), 'thumbs', '2015-01-01Z')"
    )
    store.execute(audit("feedback", what="OLD.transcript"))
    assert worst(store, policy, "store.audit", "1 rows were written there") is Level.WARNING
    assert worst(as_owner(store), policy, "store.audit", "store.feedback.transcript") is Level.FAULT
    store.execute(
        REFUSING + "CREATE TRIGGER t AFTER DELETE ON store.feedback FOR EACH ROW EXECUTE FUNCTION store.refuse()"
    )
    assert worst(store, policy, "trial", "1 of 1 feedback rows that were tried could not") is Level.FAULT


def written(name: str, what: str, on: str = "messages", when: str = "AFTER DELETE") -> str:
    """`audit` in other words: a table of its own for each way to copy."""
    return audit(on, when, what, name)


KEPT = {
    "plain": written("plain", "OLD.body"),
    "loud": written("loud", "upper(OLD.body)"),
    "whole_row": written("whole_row", "to_jsonb(OLD)::text"),
    "as_bytes": "CREATE TABLE store.as_bytes (at timestamptz, words bytea);"
    + written("as_bytes", "convert_to(OLD.body, ''UTF8'')"),
    "as_lexemes": "CREATE TABLE store.as_lexemes (at timestamptz, words tsvector);"
    + written("as_lexemes", "to_tsvector(''english'', OLD.body)"),
    "before": written("before", "OLD.body", when="BEFORE DELETE"),
    "inserted": written("inserted", "NEW.body", when="AFTER INSERT"),
    "unlogged": "CREATE UNLOGGED TABLE store.unlogged (at timestamptz, words text);" + written("unlogged", "OLD.body"),
    "history_1": "CREATE TABLE store.history (at timestamptz DEFAULT now(), words text) PARTITION BY RANGE (at);"
    "CREATE TABLE store.history_1 PARTITION OF store.history DEFAULT;" + written("history", "OLD.body"),
    "deferred": written("deferred", "OLD.body").replace(
        "CREATE TRIGGER deferred AFTER DELETE ON store.messages",
        "CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON store.messages DEFERRABLE INITIALLY DEFERRED",
    ),
    "statement": "CREATE TABLE store.statement (words text);"
    "CREATE FUNCTION store.write_statement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
    "'BEGIN INSERT INTO store.statement SELECT body FROM gone; RETURN NULL; END';"
    "CREATE TRIGGER statement AFTER DELETE ON store.messages REFERENCING OLD TABLE AS gone "
    "EXECUTE FUNCTION store.write_statement()",
    "summary": "CREATE TABLE store.summary (words text); INSERT INTO store.summary VALUES ('');"
    "CREATE FUNCTION store.write_summary() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
    "'BEGIN UPDATE store.summary SET words = words || OLD.body; RETURN NULL; END';"
    "CREATE TRIGGER summary AFTER DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.write_summary()",
    "ruled": "CREATE TABLE store.ruled (words text);"
    "CREATE RULE ruled AS ON DELETE TO store.messages DO ALSO INSERT INTO store.ruled VALUES (OLD.body)",
    "titles": "ALTER TABLE store.conversations ADD title varchar(40);"
    + written("titles", "OLD.title", on="conversations"),
    "places": written("places", "OLD.uri", on="attachments"),
    "reactions_kept": "CREATE TABLE store.reactions (message_id uuid NOT NULL REFERENCES store.messages ON DELETE CASCADE, "
    "words jsonb); CREATE INDEX ON store.reactions (message_id);"
    + written("reactions_kept", "OLD.words::text", on="reactions"),
}
"""Ways to keep what people wrote, each in a table of its name."""
HARMLESS = {
    "ids": written("ids", "OLD.id || '' '' || OLD.conversation_id"),
    "counts": written("counts", "length(OLD.body)"),
    "kinds": written("kinds", "OLD.kind || OLD.platform", on="conversations"),
    "accounts_seen": written("accounts_seen", "OLD.account_id", on="conversations"),
}


@pytest.mark.parametrize("rows", [0, 2])
def test_survivors(rows: int, store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever text of the canary is left, the table and what it came from are a fault; where only ids are, nothing is said."""
    monkeypatch.setattr(trial, "SEARCH_SECONDS", 600.0)
    fill(store, rows)
    for breaking in (KEPT | HARMLESS).values():
        store.execute(breaking)
    before = contents(store)
    findings = [f for f in found(as_owner(store), policy) if f.level is Level.FAULT]
    assert {f.subject for f in findings} == {f"store.{name}" for name in KEPT}, findings
    sources = {f.subject: f.text for f in findings}
    for name, source in (("plain", "messages.body"), ("titles", "conversations.title"), ("places", "attachments.uri")):
        assert f"it keeps text of store.{source}:" in sources[f"store.{name}"]
    assert "store.reactions.words" in sources["store.reactions_kept"]
    unlooked = [f for f in found(as_owner(store), policy) if "rows were written there" in f.text]
    assert unlooked == []
    assert contents(store) == before
    assert store.execute("SELECT count(*) FROM store.plain") == [(0,)]


def test_job_names_what_was_written_to(store: Store, policy: Policy) -> None:
    """Without a canary, tables that triggers wrote to are named as not looked at; nothing is called clean."""
    fill(store, 3)
    for name in ("plain", "summary"):
        store.execute(KEPT[name])
    for name in ("plain", "summary"):
        assert (
            worst(store, policy, f"store.{name}", "6 rows were written there while records were deleted")
            is Level.WARNING
        )


def test_table_that_cannot_be_read(store: Store, policy: Policy) -> None:
    """Where the role may not read what a trigger wrote, that is said, and nothing is called clean."""
    store.execute("DROP ROLE IF EXISTS writing_role; CREATE ROLE writing_role LOGIN IN ROLE sweeper")
    writer = store.acting("writing_role")
    try:
        store.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA store TO writing_role")
        store.execute(KEPT["plain"] + "REVOKE ALL ON store.plain FROM sweeper")
        findings = found(writer, policy)
        [told] = [f for f in findings if f.subject == "store.plain"]
        assert (told.level, told.text.partition(": ")[2]) == (Level.WARNING, "the role may not read it")
        assert not any("meanwhile keeps any" in f.text for f in findings)
    finally:
        writer.close()
        store.execute("DROP OWNED BY writing_role; DROP ROLE writing_role")


UNMADE = {
    "check": (
        "ALTER TABLE store.messages ADD CHECK (body IN ('ok'))",
        "nothing could be marked in store.messages: none of its columns keeps a mark",
    ),
    "required parent": (
        "ALTER TABLE store.conversations ADD FOREIGN KEY (account_id) REFERENCES store.accounts",
        'null value in column "account_id"',
    ),
    "encrypted": (
        "CREATE FUNCTION store.encrypt() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.body = md5(NEW.body); NEW.uri = NULL; RETURN NEW; EXCEPTION WHEN undefined_column THEN RETURN NEW; END';"
        "CREATE TRIGGER e BEFORE INSERT ON store.messages FOR EACH ROW EXECUTE FUNCTION store.encrypt();"
        "CREATE FUNCTION store.drop_uri() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.uri = NULL; RETURN NEW; END';"
        "CREATE TRIGGER e BEFORE INSERT ON store.attachments FOR EACH ROW EXECUTE FUNCTION store.drop_uri();",
        "nothing could be marked in store.messages",
    ),
}


@pytest.mark.parametrize("name", UNMADE)
def test_canary_that_cannot_be_made(name: str, store: Store, policy: Policy) -> None:
    """Where no canary can be made, that is a note with its reason, and nothing is called clean."""
    breaking, why = UNMADE[name]
    store.execute(breaking)
    findings = [f for f in found(as_owner(store), policy) if f.subject == "canary"]
    assert all(f.level is Level.OK for f in findings)
    assert [why in f.text for f in findings].count(True) == 1, findings
    assert not any("store.messages.body" in f.text for f in findings)


def test_rows_that_others_lock_are_left_out(store: Store, policy: Policy) -> None:
    """A conversation, or a message of one, that somebody holds locked is left out at once and counted."""
    ids = fill(store, 5)
    with another(store) as application:
        application.execute("SELECT FROM conversations WHERE id = %s FOR UPDATE", [ids[0]])
        application.execute("SELECT FROM messages WHERE conversation_id = %s FOR UPDATE", [ids[1]])
        [told] = [f for f in found(store, policy) if f.subject == "trial"]
    assert told.text.startswith("tried to delete 3 conversations and")
    assert told.text.endswith("; 2 were skipped, locked by others or too large")


def test_locked_table_is_not_waited_for(store: Store, policy: Policy) -> None:
    """A table that somebody has locked is given up on in the trial; the other findings are there."""
    fill(store, 2)
    with another(store) as application:
        application.execute("LOCK TABLE messages IN SHARE MODE")
        told = [f for f in found(store, policy) if f.subject == "trial"]
    assert [(f.level, "2 were skipped" in f.text) for f in told] == [(Level.OK, True)]


def test_triggers_that_act_elsewhere(store: Store, policy: Policy) -> None:
    """Where a trigger seems to act outside of the transaction nothing is tried unless it is asked for, and then it is."""
    fill(store, 1)
    store.execute(KEPT["plain"].replace("'BEGIN", "'BEGIN IF false THEN PERFORM dblink_exec(''x'', ''y''); END IF;"))
    told = [f for f in found(store, policy) if f.subject in ("trial", "canary")]
    assert [(f.level, f.subject) for f in told] == [(Level.WARNING, "trial")]
    assert "write_plain() may act outside of the transaction" in told[0].text
    assert "tried to delete 1 conversations and" in str(found(store, policy, requested=True))
    assert [f.text for f in found(store, policy, requested=False) if f.subject == "trial"] == ["not taken, as asked"]


def test_nothing_is_notified(store: Store, policy: Policy) -> None:
    """A notification that a trigger sends is taken back with the rest."""
    fill(store, 1)
    store.execute(
        "CREATE FUNCTION store.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY gone; RETURN NULL; END';"
        "CREATE TRIGGER tell AFTER DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.tell()"
    )
    with store.connect() as listener:
        listener.execute("LISTEN gone")
        assert "tried to delete 1 conversations and" in str(found(store, policy))
        store.execute("NOTIFY gone, 'after the check'")
        assert [told.payload for told in listener.notifies(stop_after=1)] == ["after the check"]


def test_uncounted_writes(store: Store, policy: Policy) -> None:
    """Where the server does not count what is written, no table is called clean."""
    fill(store, 1)
    configure(store, "track_counts", "off")
    findings = found(as_owner(store), policy)
    assert [(f.level, f.subject) for f in findings if "track_counts" in f.text] == [(Level.WARNING, "trial")]
    assert not any("meanwhile keeps any" in f.text for f in findings)


def test_run_warns_once(store: Store, policy: Policy) -> None:
    """A run logs the hazards of the catalogue in one line, a backfill not with each slice, and none where there are none."""
    fill(store, 3)
    job = store.job(policy, AS_OF, guards={"history": False, "volume": False})
    job.database.stop.ask()
    with capture_logs() as quiet:
        sweep(job)
    store.execute(KEPT["plain"] + "CREATE MATERIALIZED VIEW store.shown AS SELECT body FROM store.messages")
    with capture_logs() as logged:
        assert swept(store, policy, purge={"batch": 1}).as_json()["purged"] == 3
    assert not any("hazards" in line for line in quiet)
    [told] = [line["hazards"] for line in logged if "hazards" in line]
    assert [hazard.partition(":")[0] for hazard in told] == ["store.shown", "store.messages"]


def test_backfill_warns_once(store: Store, policy: Policy) -> None:
    """A backfill of several slices logs the hazards in one line."""
    store.load(world(chat("c1", timedelta(days=40)), chat("c2", timedelta(days=3))))
    store.execute(KEPT["plain"])
    job = store.job(policy, NOW, guards={"history": False, "volume": False})
    plan = begin(job, SCOPE, preview(job, scope=SCOPE).approval)
    with capture_logs() as logged:
        assert BackfillRunner(job, plan).run().purged_now == 2
    assert len([line for line in logged if "hazards" in line]) == 1
    assert len([line for line in logged if line["event"] == "run opened"]) == 2


def test_run_that_may_not_read_the_catalogue(store: Store, policy: Policy) -> None:
    """A role that may not read all of the catalogue purges all the same, and says that it could not look."""
    fill(store, 1)
    store.execute("REVOKE SELECT ON pg_catalog.pg_publication FROM PUBLIC")
    with capture_logs() as logged:
        assert swept(store, policy).as_json()["purged"] == 1
    assert [line["reason"] for line in logged if "the catalogue could not be read" in line["event"]]


def test_no_time_to_look(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables for which no time is left are named as not looked at, and nothing is called clean."""
    monkeypatch.setattr(trial, "SEARCH_SECONDS", 0.0)
    store.execute(KEPT["plain"])
    findings = found(as_owner(store), policy)
    [told] = [f for f in findings if f.subject == "store.plain"]
    assert (told.level, told.text.partition(": ")[2]) == (Level.WARNING, "other tables took too long")
    assert not any("meanwhile keeps any" in f.text for f in findings)


def test_partitions(store: Store, policy: Policy) -> None:
    """Conversations and messages in partitions, with keys of two columns: a trigger of one partition is found."""
    fill(store, 3)
    store.execute(
        """
        CREATE TABLE store.chats (LIKE store.conversations, tenant integer NOT NULL DEFAULT 7,
            number bigint GENERATED ALWAYS AS IDENTITY, state text NOT NULL CHECK (state IN ('open', 'closed')),
            PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
        CREATE TABLE store.chats_7 PARTITION OF store.chats FOR VALUES IN (7);
        CREATE TABLE store.words (tenant integer NOT NULL, chat uuid NOT NULL, said_at timestamptz NOT NULL, words text NOT NULL,
            FOREIGN KEY (tenant, chat) REFERENCES store.chats ON DELETE CASCADE) PARTITION BY RANGE (said_at);
        CREATE TABLE store.words_2026 PARTITION OF store.words FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        CREATE INDEX ON store.words (tenant, chat);
        INSERT INTO store.chats OVERRIDING SYSTEM VALUE SELECT c.*, 7, 1, 'open' FROM store.conversations c;
        """
    )
    store.execute(
        "INSERT INTO store.words SELECT 7, conversation_id, created_at, body FROM store.messages;"
        "DROP TABLE store.messages, store.attachments, store.conversations;"
        "CREATE VIEW store.conversations AS SELECT * FROM store.chats;"
        "CREATE VIEW store.messages AS SELECT gen_random_uuid() AS id, chat AS conversation_id, 'user'::text AS author, "
        "said_at AS created_at, words AS body FROM store.words;"
        "CREATE VIEW store.attachments AS SELECT NULL::uuid AS id, NULL::uuid AS conversation_id, NULL::text AS uri WHERE false"
    )
    sections: dict[str, Any] = {"purge": {"table": "chats"}}
    findings = [f for f in found(as_owner(store), policy, **sections) if f.subject in ("trial", "canary")]
    assert [f.level for f in findings] == [Level.OK, Level.OK], findings
    assert findings[0].text.startswith("marked text in store.words.words, ")
    store.execute(audit("words_2026", what="OLD.words"))
    assert (
        worst(as_owner(store), policy, "store.audit", "it keeps text of store.words.words", **sections) is Level.FAULT
    )


def test_half_a_canary_clears_nothing(store: Store, policy: Policy) -> None:
    """Where no message could be marked, what real messages were written to stays named, though the canary wrote there too."""
    fill(store, 2)
    store.execute("ALTER TABLE store.messages ADD CHECK (body = 'secret words')")
    store.execute(KEPT["plain"])
    findings = found(as_owner(store), policy)
    assert any(f.text.startswith("nothing could be marked in store.messages") for f in findings)
    assert [f.level for f in findings if f.subject == "store.plain"] == [Level.WARNING]
