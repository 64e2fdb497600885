"""`sweeper check` names what is wrong with a store, and its remedy mends it."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from sweeper.clock import Clock
from sweeper.policy.schema import Policy
from sweeper.postgres import indexes
from sweeper.postgres.check import check
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.report import status
from tests.acceptance.commands import in_process
from tests.acceptance.test_printing import SIGNING_KEY
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import fill, swept


def bad(store: Store, policy: Policy, **sections: object) -> list[CheckFinding]:
    """What is found that is not in order."""
    found = check(store.database(store.settings(**sections)), policy, Clock())
    return [finding for finding in found if finding.level is not Level.OK]


@pytest.mark.parametrize("store", stores.ID_TYPES, indirect=True)
def test_reference_store_is_in_order(store: Store, policy: Policy) -> None:
    """The reference store gives no fault and no warning; what is not read and not tried is named."""
    assert bad(store, policy) == []
    subjects = {finding.subject for finding in check(store.database(), policy, Clock())}
    assert subjects - {"dead rows"} == {"server", "policy", "store.messages", "backups", "canary", "trial"}


BROKEN = {
    "missing relation": ("DROP TABLE store.attachments", "contract", "relation store.attachments is missing", None),
    "missing column": (
        "ALTER TABLE store.conversations DROP flagged_at",
        "contract",
        "column store.conversations.flagged_at is missing",
        "ALTER TABLE store.conversations ADD flagged_at timestamptz",
    ),
    "wrong type": (
        "ALTER TABLE store.feedback ALTER submitted_at TYPE timestamp",
        "contract",
        "column store.feedback.submitted_at is timestamp without time zone, must be timestamp with time zone",
        "ALTER TABLE store.feedback ALTER submitted_at TYPE timestamptz",
    ),
    "unindexed key": ("DROP INDEX store.messages_conversation_id_idx", "store.messages", "has no index", ""),
    "unindexed search": (
        "DROP INDEX store.conversations_account_id_last_activity_at_idx",
        "store.conversations",
        "is searched by (account_id, last_activity_at) without an index",
        "",
    ),
    "unindexed deletions": (
        "DROP INDEX store.conversations_account_id_deleted_at_idx",
        "store.conversations",
        "WHERE deleted_at IS NOT NULL without an index",
        "",
    ),
    "trigger before delete": (
        "CREATE FUNCTION store.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keep BEFORE DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.keep()",
        "store.messages",
        "trigger keep runs before each DELETE",
        "DROP TRIGGER keep ON store.messages",
    ),
    "rule": (
        "CREATE RULE nothing AS ON DELETE TO store.attachments DO INSTEAD NOTHING",
        "store.attachments",
        "rule nothing rewrites DELETE",
        "",
    ),
    "set null": (
        "CREATE TABLE store.notes (chat uuid REFERENCES store.conversations ON DELETE SET NULL);"
        "CREATE INDEX ON store.notes (chat)",
        "store.notes",
        "is ON DELETE SET NULL: its rows stay when their conversation goes",
        "DROP TABLE store.notes",
    ),
    "restrict": (
        "CREATE TABLE store.notes (chat uuid REFERENCES store.conversations ON DELETE RESTRICT);"
        "CREATE INDEX ON store.notes (chat)",
        "store.notes",
        "is ON DELETE RESTRICT",
        "DROP TABLE store.notes",
    ),
    "way back": (
        "ALTER TABLE store.conversations ADD forked_from uuid REFERENCES store.conversations ON DELETE CASCADE",
        "store.conversations",
        "leads from one conversation to another with ON DELETE CASCADE",
        "ALTER TABLE store.conversations DROP forked_from",
    ),
    "child without a key": (
        "CREATE TABLE store.summaries (conversation_id uuid, words text)",
        "store.summaries",
        "looks like a conversation's key but has no foreign key",
        "DROP TABLE store.summaries",
    ),
    "switched off key": (
        "ALTER TABLE store.conversations DISABLE TRIGGER ALL",
        "store.conversations",
        "is disabled: children would be orphaned",
        "",
    ),
    "switched off evidence": (
        "ALTER TABLE sweeper.legal_holds DISABLE TRIGGER fence",
        "sweeper.legal_holds",
        "its trigger fence is disabled",
        "",
    ),
    "switched off ledger": (
        "ALTER TABLE sweeper.tiles DISABLE TRIGGER insert_only",
        "sweeper.tiles",
        "its trigger insert_only is disabled",
        "",
    ),
    "objects anywhere": (
        "INSERT INTO store.conversations (id, account_id) VALUES (gen_random_uuid(), gen_random_uuid());"
        "INSERT INTO store.attachments SELECT gen_random_uuid(), id, 's3://b/o' FROM store.conversations",
        "objects",
        "[objects] prefixes is empty: no object is removed",
        "DELETE FROM store.attachments",
    ),
    "odd URIs cannot be searched": (
        "DROP INDEX store.attachments_uri_idx1",
        "store.attachments",
        "is searched by (uri) for URIs that are not canonical",
        "",
    ),
    "odd URIs of another type cannot be searched": (
        "ALTER TABLE store.attachments ALTER uri TYPE varchar; DROP INDEX store.attachments_uri_idx1",
        "store.attachments",
        "is searched by (uri) for URIs that are not canonical",
        "",
    ),
    "not migrated": ("DROP SCHEMA sweeper CASCADE", "schema sweeper", "own tables are missing", None),
    "joined types": (
        "ALTER TABLE store.conversations ALTER account_id TYPE text",
        "conversations.account_id",
        "is text, but accounts.id is uuid",
        "ALTER TABLE store.conversations ALTER account_id TYPE uuid USING account_id::uuid",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_findings(name: str, store: Store, policy: Policy) -> None:
    """What is wrong is named, and is gone once the remedy (the finding's own, where none is written here) is carried out."""
    breaking, subject, text, mending = BROKEN[name]
    with store.connect() as connection:
        connection.execute(breaking)
    found = [finding for finding in bad(store, policy) if subject == finding.subject and text in finding.text]
    assert found, bad(store, policy)
    assert all(finding.remedy for finding in found)
    if mending is None:
        return
    for remedy in [mending] if mending else [finding.remedy for finding in found]:
        store.execute(remedy)
    assert bad(store, policy) == []


def test_objects_that_wait_for_a_place(store: Store, policy: Policy) -> None:
    """Objects of purged attachments that no place is listed for are counted, until one is."""
    ids = fill(store, 1)
    store.execute("INSERT INTO attachments VALUES (gen_random_uuid(), %s, 'memory://b/o')", ids[0])
    swept(store, policy)
    [found] = bad(store, policy)
    assert (found.level, found.subject) == (Level.WARNING, "objects")
    assert "1 objects of purged attachments are still there" in found.text
    assert "[objects] prefixes = " in found.remedy
    assert bad(store, policy, objects={"prefixes": ["memory://b"]}) == []


def test_place_that_cannot_be_reached(store: Store, policy: Policy) -> None:
    """A place for which fsspec knows no protocol, or lacks a package, is a fault that names it."""
    [found] = bad(store, policy, objects={"prefixes": ["memory://b", "unheard-of://b"]})
    assert (found.level, found.subject) == (Level.FAULT, "objects")
    assert "no object below unheard-of://b/ can be removed" in found.text


def privileges(store: Store, role: str, table: str) -> set[str]:
    """What a role may do to a table, or to some of its columns."""
    names = ("SELECT", "INSERT", "UPDATE", "DELETE")
    able = store.execute(
        f"SELECT {', '.join(f'has_any_column_privilege(%s, %s, {n!r})' for n in names[:3])}, "
        "has_table_privilege(%s, %s, 'DELETE')",
        *(role, table) * 4,
    )[0]
    return {name for name, may in zip(names, able, strict=True) if may}


def test_privileges(store: Store, policy: Policy) -> None:
    """A role that may do nothing is told each missing privilege with its GRANT; with no more than these it sweeps."""
    store.execute("DROP ROLE IF EXISTS sweeping_role")
    store.execute("CREATE ROLE sweeping_role LOGIN")
    fill(store, 2)
    as_role = store.acting("sweeping_role")
    try:
        for _ in range(4):  # what lies in a schema can be seen only once the schema may be used
            faults = [finding for finding in bad(as_role, policy) if finding.level is Level.FAULT]
            assert all(finding.remedy.startswith("GRANT ") or finding.subject == "purge" for finding in faults)
            for finding in faults:
                if finding.subject != "purge":
                    store.execute(finding.remedy)
        assert bad(as_role, policy) == []
        assert swept(as_role, policy).as_json()["purged"] == 2
        for table, most in (("tombstones", {"INSERT", "SELECT"}), ("legal_holds", {"SELECT"})):
            assert privileges(store, "sweeping_role", f"sweeper.{table}") == most
    finally:
        as_role.close()
        store.execute("DROP OWNED BY sweeping_role")
        store.execute("DROP ROLE sweeping_role")


def test_row_security(store: Store, policy: Policy) -> None:
    """Row-level security that reaches the role is a fault; a superuser, whom it does not reach, is not bothered."""
    store.execute("ALTER TABLE messages ENABLE ROW LEVEL SECURITY")
    found = bad(store, policy)
    assert [(f.level, f.subject) for f in found] == [(Level.FAULT, "store.messages"), (Level.WARNING, "trial")]
    assert all("row-level security" in finding.text for finding in found)
    assert bad(store.acting("postgres"), policy) == []


PEOPLE = {
    "hold place": "sweeper.legal_holds",
    "hold release": "sweeper.legal_holds",
    "order add": "sweeper.erasure_orders",
    "order withdraw": "sweeper.erasure_orders",
    "plan record": "sweeper.plan_changes",
    "consent record": "sweeper.consent_events",
}


def test_commands_for_people(store: Store, policy: Policy) -> None:
    """That the job may place no holds is a warning, with its GRANT, only while no other role may place them either."""
    store.execute(f"REVOKE ALL ON {', '.join(PEOPLE.values())} FROM sweeper_officer")
    found = bad(store, policy)
    assert [(f.level, f.subject) for f in found] == [(Level.WARNING, table) for table in PEOPLE.values()]
    for finding, command in zip(found, PEOPLE, strict=True):
        assert finding.text == f"neither role sweeper nor any other but the owner may run `sweeper {command}`"
        store.execute(finding.remedy.partition(" TO ")[0] + " TO sweeper_officer")
    assert bad(store, policy) == []


def test_clock(store: Store, policy: Policy) -> None:
    """Clocks that are further apart than allowed are a fault; at the limit they are not."""
    now = Clock().now()
    for apart, faults in ((300, 0), (301, 1)):
        clock = Clock(lambda: now, lambda _, apart=apart: now + timedelta(seconds=apart))  # type: ignore[misc]  # a default in a lambda
        found = [f for f in check(store.database(), policy, clock) if f.subject == "clock"]
        assert len(found) == faults


def test_lock_timeout(store: Store, policy: Policy) -> None:
    """A lock time-out that is not below the server's deadlock_timeout is a fault."""
    found = bad(store, policy, database={"url": store.url, "lock_timeout_ms": 1000})
    assert [finding.subject for finding in found] == ["lock_timeout"]


def test_physical_table(store: Store, policy: Policy) -> None:
    """A view without its table named is a fault that names the setting; a feedback view is a warning."""
    store.execute("ALTER TABLE conversations RENAME TO chats")
    store.execute("CREATE VIEW store.conversations AS SELECT * FROM store.chats")
    store.execute("ALTER TABLE feedback RENAME TO opinions")
    store.execute("CREATE VIEW store.feedback AS SELECT * FROM store.opinions")
    assert ["[purge] table" in finding.text for finding in bad(store, policy)] == [True]
    found = bad(store, policy, purge={"table": "chats"})
    assert ("feedback", Level.WARNING) in [(finding.subject, finding.level) for finding in found]


def test_indexes_behind_views(store: Store, policy: Policy) -> None:
    """An index that a search behind a view lacks is named by what the view computes; once it is there, the finding is gone."""
    store.execute("ALTER TABLE conversations RENAME TO chats")
    store.execute("ALTER TABLE attachments RENAME TO files")
    for name, columns in (("chats", "account_id, last_activity_at"), ("files", "uri")):
        for index in store.execute(
            f"SELECT indexname FROM pg_indexes WHERE tablename = '{name}' AND indexdef LIKE '%({columns})%'"
        ):
            store.execute(f"DROP INDEX {index[0]}")
    utc = "last_activity_at AT TIME ZONE 'UTC' AT TIME ZONE 'UTC'"
    columns = (
        "id, account_id, kind, platform, incognito, zero_retention, created_at, deleted_at, restored_at, flagged_at"
    )
    store.execute(f"CREATE VIEW store.conversations AS SELECT {columns}, {utc} AS last_activity_at FROM store.chats")
    store.execute(
        "CREATE VIEW store.attachments AS SELECT id, conversation_id, 's3://b/' || uri AS uri FROM store.files"
    )
    settings = {"purge": {"table": "chats", "children": [{"table": "files", "key": "conversation_id"}]}}
    found = bad(store.acting("postgres"), policy, **settings)
    searched = "(account_id, (((last_activity_at AT TIME ZONE 'UTC'::text) AT TIME ZONE 'UTC'::text)))"
    assert {finding.remedy.partition(" ON ")[2].partition(" ~ ")[0] for finding in found} == {
        *(f"store.chats {searched}{where}" for where in ("", " WHERE incognito", " WHERE zero_retention")),
        *(f"store.files ((('s3://b/'::text || uri))){where}" for where in ("", " WHERE (('s3://b/'::text || uri)")),
    }
    assert {finding.level for finding in found} == {Level.WARNING}
    for finding in found:
        store.execute(finding.remedy.replace("CONCURRENTLY ", ""))
    assert bad(store.acting("postgres"), policy, **settings) == []


def test_views_that_compute_too_much(store: Store, policy: Policy) -> None:
    """Where no index on one table can help, the finding names the view and the table that each batch would read whole."""
    store.execute("ALTER TABLE plan_changes RENAME TO plans")
    store.execute(
        "CREATE VIEW store.plan_changes AS SELECT max(id) AS id, max(account_id::text)::uuid AS account_id, effective_at, "
        "max(plan) AS plan FROM store.plans GROUP BY effective_at"
    )
    (found,) = bad(store.acting("postgres"), policy)
    assert found.text == "view store.plan_changes is searched by (account_id), and the table is read whole for it"
    assert (found.subject, "what view store.plan_changes compares" in found.remedy) == ("store.plans", True)
    store.execute("ANALYZE store.plans")  # it is known to be empty: the planner has no reason to choose an index
    assert bad(store.acting("postgres"), policy) == []


def test_unseen_indexes(store: Store, policy: Policy) -> None:
    """That the indexes of a materialized view were not looked at is said, and `status` does not claim that nothing is wrong."""
    store.execute("ALTER TABLE feedback RENAME TO opinions")
    store.execute("CREATE MATERIALIZED VIEW store.feedback AS SELECT * FROM store.opinions")
    every = check(store.acting("postgres").database(), policy, Clock())
    assert [f.text for f in every if f.subject == "indexes"] == [
        "not looked at in what is neither a table nor a plain view: feedback"
    ]
    unseen = status.read(store.acting("postgres").database(), Clock()).not_looked_at
    assert any(line.startswith("Indexes of feedback:") for line in unseen)


def test_searches_are_documented() -> None:
    """Whoever has views reads in the documentation which columns are searched."""
    text = (stores.ROOT / "docs" / "tables.md").read_text().replace("\n", " ")
    for relation, columns, _ in indexes.SEARCHED:
        assert f"`{relation}`" in text
        assert f"({', '.join(f'`{column}`' for column in columns)})" in text


def test_command(store: Store) -> None:
    """The command prints the findings as JSON and exits 1 on a fault, 0 without."""
    codes = []
    for breaking in ("SELECT 1", "ALTER TABLE store.conversations DROP flagged_at"):
        store.execute(breaking)
        done = in_process(store, "check", "--json")
        found = json.loads(done.out)
        codes.append((done.code, any(finding["level"] == "fault" for finding in found)))
        assert set(found[0]) == {"level", "subject", "text", "remedy"}
    assert codes == [(0, False), (1, True)]


PATTERN = "a" * 32


def test_keys(store: Store, tmp_path: Path) -> None:
    """A key that others may read is a warning, one that is a pattern a fault; neither's content is printed."""
    signing, pseudonym = tmp_path / "signing.pem", tmp_path / "pseudonym.key"
    signing.write_text(SIGNING_KEY)
    pseudonym.write_text(PATTERN)

    def found(mode: int, **files: Path) -> tuple[int, list[tuple[str, str, str]]]:
        for file in (signing, pseudonym):
            file.chmod(mode)
        done = in_process(store, "check", "--json", **{name: str(file) for name, file in files.items()})
        assert SIGNING_KEY.splitlines()[1] not in done.out + done.err
        assert PATTERN not in done.out + done.err
        findings = [f for f in json.loads(done.out) if f["subject"].endswith(" key")]
        return done.code, [(f["level"], f["subject"], f["text"].partition(" (mode")[2]) for f in findings]

    one = {"SWEEPER_SIGNING_KEY_FILE": signing}
    both = one | {"SWEEPER_PSEUDONYM_KEY_FILE": pseudonym}
    assert found(0o600) == (0, [("warning", "signing key", "")])
    assert found(0o600, **one) == (0, [("ok", "signing key", "")])
    assert found(0o644, **one) == (0, [("ok", "signing key", ""), ("warning", "signing key", " 0644)")])
    assert found(0o640, **both) == (
        1,
        [
            ("ok", "signing key", ""),
            ("fault", "pseudonym key", ""),
            ("warning", "signing key", " 0640)"),
            ("warning", "pseudonym key", " 0640)"),
        ],
    )
    pseudonym.write_text(hashlib.sha256(b"a key").hexdigest())
    assert found(0o600, **both) == (0, [("ok", "signing key", ""), ("ok", "pseudonym key", "")])
