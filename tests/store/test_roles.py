"""deploy/postgres/roles.sql: each role may do what the table here says and nothing else, by the catalogue and by trying it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RaiseException
from sqlalchemy.exc import DBAPIError

from sweeper import embedded
from sweeper.clock import Clock
from sweeper.errors import SweeperError
from sweeper.manifest import build
from sweeper.policy.schema import Policy
from sweeper.postgres import check, database, protections
from sweeper.postgres.finding import Level
from tests.acceptance.commands import in_process
from tests.facts import instant
from tests.manifest import made
from tests.store import stores
from tests.store.stores import ROLES, Store
from tests.store.test_races import AS_OF, fill, swept

LOGINS = {"sweeper": "sweeper", "auditor": "sweeper_auditor", "officer": "sweeper_officer", "stranger": "nobody's role"}
"""Who logs in, and as member of which role of the file."""
MAY: Mapping[str, Mapping[str, str]] = {
    "sweeper": {
        "sweeper.identity": "SELECT",
        "sweeper.schema_version": "SELECT",
        "sweeper.runs": "SELECT; INSERT; UPDATE started_at finished_at outcome result plan_changes consent_events",
        "sweeper.lease": "SELECT; INSERT; UPDATE run_id token expires_at yields wanted_at",
        "sweeper.tombstones": "SELECT; INSERT record record_id conversation_id account_id rule due_at as_of run_id "
        "policy_digest children approved purged_at",
        "sweeper.events": "SELECT; INSERT kind run_id details",
        "sweeper.object_purges": "SELECT; INSERT uri conversation_id run_id; "
        "UPDATE attempts last_run_id last_error outcome done_at",
        "sweeper.copies": "SELECT; INSERT store name claimed_until; "
        "UPDATE next_leaf delivered_at failed_at last_error claimed_until",
        "sweeper.fence": "UPDATE",
        "sweeper.legal_holds": "SELECT",
        "sweeper.erasure_orders": "SELECT",
        "sweeper.plan_changes": "SELECT",
        "sweeper.consent_events": "SELECT",
        "sweeper.manifests": "SELECT; INSERT; UPDATE state started_at completed_at recalled_at",
        "sweeper.revocations": "SELECT; INSERT manifest_id message_id conversation_id reason since found_at found_by",
        "sweeper.pauses": "SELECT; INSERT reason paused_at; UPDATE resumed_at",
        "sweeper.backfills": "SELECT; INSERT; UPDATE done_until seen_at stopped_at finished_at",
        "sweeper.ledger_sources": "SELECT; UPDATE unnumbered",
        "sweeper.leaves": "SELECT; INSERT",
        "sweeper.tiles": "SELECT; INSERT",
        "sweeper.checkpoints": "SELECT; INSERT size root note signed_by taken_at",
        "store.accounts": "SELECT id created_at closed_at",
        "store.plan_changes": "SELECT id account_id effective_at plan",
        "store.consent_events": "SELECT id account_id purpose granted recorded_at effective_at",
        "store.conversations": "SELECT; DELETE; UPDATE id",
        "store.messages": "SELECT id conversation_id author created_at; UPDATE id",
        "store.attachments": "SELECT conversation_id uri; UPDATE id",
        "store.feedback": "SELECT id account_id conversation_id kind submitted_at transcript; DELETE; UPDATE id",
    },
    "sweeper_auditor": {
        "sweeper.identity": "SELECT",
        "sweeper.schema_version": "SELECT",
        "sweeper.runs": "SELECT",
        "sweeper.tombstones": "SELECT",
        "sweeper.events": "SELECT",
        "sweeper.object_purges": "SELECT id conversation_id run_id attempts last_run_id outcome done_at",
        "sweeper.legal_holds": "SELECT",
        "sweeper.erasure_orders": "SELECT",
        "sweeper.plan_changes": "SELECT",
        "sweeper.consent_events": "SELECT",
        "sweeper.manifests": "SELECT",
        "sweeper.revocations": "SELECT",
        "sweeper.pauses": "SELECT",
        "sweeper.backfills": "SELECT",
        "sweeper.ledger_sources": "SELECT",
        "sweeper.leaves": "SELECT",
        "sweeper.tiles": "SELECT",
        "sweeper.checkpoints": "SELECT",
        "sweeper.copies": "SELECT",
    },
    "sweeper_officer": {
        "sweeper.schema_version": "SELECT",
        "sweeper.legal_holds": "SELECT; INSERT matter account_id conversation_id placed_at; UPDATE released_at",
        "sweeper.erasure_orders": "SELECT; INSERT reference account_id conversation_id recorded_at due_at store; "
        "UPDATE withdrawn_at",
        "sweeper.plan_changes": "SELECT; INSERT account_id plan effective_at",
        "sweeper.consent_events": "SELECT; INSERT account_id purpose granted effective_at",
        "store.accounts": "SELECT id",
        "store.plan_changes": "SELECT account_id effective_at plan",
        "store.consent_events": "SELECT account_id purpose granted recorded_at",
        "store.conversations": "SELECT id account_id",
        "store.feedback": "SELECT account_id conversation_id",
    },
}
"""By role and table: the privileges on all of it, or on the columns that follow. A table that is not named: none."""

Grant = tuple[str, str, str, str]
"""Role, table, privilege, and column or "*"."""
GRANTED = """
SELECT pg_get_userbyid(g.grantee), c.oid::regclass::text, g.privilege_type, '*'
FROM pg_class c, LATERAL aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) g
WHERE c.relnamespace IN ('sweeper'::regnamespace, 'store'::regnamespace) AND c.relkind <> 'i' AND g.grantee <> c.relowner
UNION ALL
SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee) END, c.oid::regclass::text, g.privilege_type, a.attname
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, LATERAL aclexplode(a.attacl) g
WHERE c.relnamespace IN ('sweeper'::regnamespace, 'store'::regnamespace)
"""


def allowed() -> set[Grant]:
    """The table above, grant by grant."""
    found = set()
    for role, tables in MAY.items():
        for table, privileges in tables.items():
            for privilege, *columns in map(str.split, privileges.split(";")):
                found |= {(role, table, privilege, column) for column in columns or ["*"]}
    return found


def granted(store: Store) -> set[Grant]:
    """What the catalogue says of both schemas, the owners' own privileges left out."""
    with psycopg.connect(store.libpq) as connection:
        connection.execute("SET search_path = pg_catalog")
        return set(connection.execute(GRANTED).fetchall())


def denied(connection: psycopg.Connection[Any], deed: str) -> bool:
    """Whether a deed is refused for want of a privilege; nothing of it stays."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(deed)
    except InsufficientPrivilege:
        return True
    return False


@pytest.fixture(scope="module")
def still(server: embedded.Server, ruled_template: str) -> Iterator[Store]:
    """A database of the file's roles in which nothing is changed."""
    store = stores.copy(server, ruled_template, "ruled_still", "uuid")
    yield store
    store.close()
    stores.drop(server, "ruled_still")


# What is granted


def test_catalogue(still: Store) -> None:
    """Each role has exactly the privileges of the table, on every table and sequence of both schemas; nobody else has any."""
    assert granted(still) == allowed()


def owners(store: Store) -> set[str]:
    """Whose schema sweeper is, and what is in it."""
    found = store.execute(
        "SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'sweeper'::regnamespace "
        "UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'sweeper'::regnamespace "
        "UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'sweeper'"
    )
    return {owner for (owner,) in found}


def test_all_belongs_to_the_owner(still: Store) -> None:
    """Schema sweeper and whatever is in it belong to sweeper_owner, which nobody logs in as."""
    assert owners(still) == {"sweeper_owner"}
    roles = still.execute(
        "SELECT rolname, rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls "
        "FROM pg_roles WHERE rolname ~ '^sweeper' ORDER BY 1"
    )
    assert roles == [(name, name == "sweeper", False) for name in sorted({"sweeper_owner", *MAY})]


def test_functions_and_schemas(still: Store) -> None:
    """Of the functions only the one that compares ids may be executed, by the job and the officer; schemas may only be used."""
    functions = still.execute(
        "SELECT p.proname, g.grantee::regrole::text "
        "FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) g "
        "WHERE p.pronamespace = 'sweeper'::regnamespace AND g.grantee <> p.proowner ORDER BY 2"
    )
    assert functions == [("spelling", "sweeper"), ("spelling", "sweeper_officer")]
    schemas = still.execute(
        "SELECT n.nspname, g.grantee::regrole::text, g.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) g "
        "WHERE n.nspname IN ('store', 'sweeper') AND g.grantee <> n.nspowner ORDER BY 1, 2"
    )
    users = {"store": ("sweeper", "sweeper_officer"), "sweeper": tuple(sorted(MAY))}
    assert schemas == [(schema, role, "USAGE") for schema, roles in users.items() for role in roles]


# What is done


DEEDS = {
    "SELECT": "SELECT {column} FROM {table} LIMIT 0",
    "INSERT": "INSERT INTO {table} ({column}) OVERRIDING SYSTEM VALUE SELECT NULL WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = DEFAULT WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
    "TRUNCATE": "TRUNCATE {table} CASCADE",
}


@pytest.mark.parametrize("login", LOGINS)
def test_every_deed_on_every_column(login: str, still: Store) -> None:
    """A role that reads, inserts, updates, deletes or truncates is refused wherever the table says nothing of it."""
    columns = still.execute(
        "SELECT format('%I.%I', table_schema, table_name), quote_ident(column_name) FROM information_schema.columns "
        "WHERE table_schema IN ('store', 'sweeper')"
    )
    assert len(columns) > 100
    may = {(table, privilege, column) for role, table, privilege, column in allowed() if role == LOGINS[login]}
    wrong = []
    with psycopg.connect(still.acting(login).program) as connection:
        for table, column in columns:
            for privilege, deed in DEEDS.items():
                fine = {(table, privilege, "*"), (table, privilege, column)} & may
                if denied(connection, deed.format(table=table, column=column)) is bool(fine):
                    wrong.append((table, column, privilege, bool(fine)))
    assert wrong == []


FORGE = (
    "CREATE TEMPORARY TABLE forgery (id int); "
    "CREATE TRIGGER forge AFTER INSERT ON forgery FOR EACH ROW EXECUTE FUNCTION sweeper.record_change('hold')"
)
DENIED = {
    "sweeper": {
        "SET ROLE sweeper_owner",
        "SET session_replication_role = replica",
        "ALTER TABLE sweeper.tombstones DISABLE TRIGGER insert_only",
        "ALTER TABLE sweeper.events DISABLE TRIGGER ALL",
        "ALTER TABLE sweeper.tombstones ADD forged boolean",
        "ALTER TABLE sweeper.events OWNER TO sweeper",
        "DROP TRIGGER insert_only ON sweeper.tombstones",
        "DROP TRIGGER fence ON sweeper.legal_holds",
        "DROP TABLE sweeper.events CASCADE",
        "DROP SCHEMA sweeper CASCADE",
        "CREATE OR REPLACE FUNCTION sweeper.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TABLE sweeper.mine (id int)",
        "CREATE TABLE store.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE RULE keep AS ON DELETE TO store.conversations DO INSTEAD NOTHING",
        "LOCK TABLE sweeper.events IN SHARE MODE",
        "INSERT INTO sweeper.events (kind, actor) VALUES ('hold_changed', 'alice')",
        "INSERT INTO sweeper.events (kind, at) VALUES ('hold_changed', '2020-01-01Z')",
        "INSERT INTO sweeper.events (id, kind) OVERRIDING SYSTEM VALUE VALUES (1, 'hold_changed')",
        "UPDATE sweeper.legal_holds SET released_at = now()",
        "SELECT * FROM store.messages",
        "SELECT max(body) FROM store.messages",
        "COPY store.messages TO STDOUT",
        "DELETE FROM store.messages",
        "UPDATE store.messages SET conversation_id = gen_random_uuid()",
        "UPDATE store.attachments SET conversation_id = gen_random_uuid()",
        "CREATE TRIGGER t AFTER DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        FORGE,
    },
    "auditor": {
        "SET ROLE sweeper",
        "SELECT id FROM store.conversations",
        "SELECT uri FROM sweeper.object_purges",
        "SELECT sweeper.spelling('x')",
        "CREATE TABLE public.mine (id int)",
        "CREATE VIEW sweeper.mine AS SELECT 1",
        "LOCK TABLE sweeper.tombstones IN ROW EXCLUSIVE MODE",
        FORGE,
    },
    "officer": {
        "SET ROLE sweeper",
        "DELETE FROM store.conversations",
        "SELECT id FROM store.conversations FOR UPDATE",
        "SELECT * FROM store.conversations",
        "SELECT conversation_id FROM store.messages",
        "DELETE FROM sweeper.legal_holds",
        "UPDATE sweeper.legal_holds SET matter = 'another'",
        "UPDATE sweeper.erasure_orders SET due_at = NULL",
        "SELECT record_id FROM sweeper.tombstones",
        FORGE,
    },
    "stranger": {
        "SELECT sweeper.spelling('x')",
        "SELECT 1 FROM sweeper.runs",
        "SELECT id FROM store.conversations",
        FORGE,
    },
}


@pytest.mark.parametrize(("login", "deed"), [(login, deed) for login in DENIED for deed in sorted(DENIED[login])])
def test_denied(login: str, deed: str, still: Store) -> None:
    """What would change, drop or forge evidence, or show what people wrote, is refused."""
    with psycopg.connect(still.acting(login).program) as connection:
        assert denied(connection, deed)


def test_the_owner_is_refused_by_the_triggers(still: Store) -> None:
    """Even the owner of the evidence neither changes nor drops any without first switching a trigger off."""
    with psycopg.connect(still.libpq) as connection:
        connection.execute("SET ROLE sweeper_owner")
        for table in ("tombstones", "events", "revocations"):
            for deed in ("UPDATE sweeper.{} SET id = DEFAULT", "DELETE FROM sweeper.{}", "TRUNCATE sweeper.{} CASCADE"):
                with pytest.raises(RaiseException, match="insert-only"), connection.transaction():
                    connection.execute(deed.format(table))


# The roles at work


def faults(ruled: Store, policy: Policy, **sections: Any) -> list[str]:
    """What `check` finds wrong as the job."""
    found = check.check(ruled.database(ruled.settings(**sections)), policy, Clock())
    return [finding.text for finding in found if finding.level is not Level.OK]


def test_the_job_sweeps(ruled: Store, policy: Policy) -> None:
    """With no more than the file grants, `check` has nothing to say, and a run purges with all evidence."""
    assert faults(ruled, policy) == []
    ids = fill(ruled, 3)
    ruled.execute("INSERT INTO attachments SELECT gen_random_uuid(), id, 'memory://ruled/' || id FROM conversations")
    ruled.execute(
        "INSERT INTO feedback (id, account_id, kind, submitted_at) VALUES (gen_random_uuid(), %s, 'thumbs', '2020-01-01Z')",
        ids[0],
    )
    protections.place_hold(ruled.acting("officer").database(), "CASE-1", None, ids[0], instant(AS_OF))
    result = swept(ruled, policy, objects={"prefixes": ["memory://ruled"]}).as_json()
    assert (result["purged"], result["held"], result["feedback_purged"], result["objects_pending"]) == (2, 1, 1, 0)
    assert ruled.left() == {ids[0]}
    assert ruled.execute("SELECT count(*) FROM sweeper.tombstones") == [(3,)]


def test_what_the_officer_does_bears_her_name(ruled: Store, policy: Policy) -> None:
    """Holds and orders leave events of who logged in, though the trigger that writes them runs as the owner."""
    officer = ruled.acting("officer").database()
    protections.place_hold(officer, "CASE-1", None, "c", instant(AS_OF))
    protections.release_holds(officer, "CASE-1", None, instant(AS_OF))
    protections.add_order(officer, "DSR-1", "a", None, instant(AS_OF), None)
    assert ruled.execute("SELECT kind, actor FROM sweeper.events ORDER BY id") == [
        ("hold_added", "officer"),
        ("hold_changed", "officer"),
        ("order_added", "officer"),
    ]


@pytest.mark.parametrize("login", ["auditor", "officer", "stranger"])
def test_nobody_else_purges(login: str, ruled: Store, policy: Policy) -> None:
    """A sweep by any other role purges nothing and records nothing."""
    ids = fill(ruled, 2)
    with pytest.raises((DBAPIError, SweeperError), match="permission denied"):
        swept(ruled.acting(login), policy)
    assert ruled.left() == set(ids)
    assert ruled.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]


def test_the_auditor_audits(ruled: Store, policy: Policy, tmp_path: Path) -> None:
    """The auditor sees what a run did and what is held, and verifies and exports the ledger; she takes no checkpoint."""
    fill(ruled, 2)
    swept(ruled, policy)
    auditor = ruled.acting("auditor")
    with psycopg.connect(auditor.program) as connection:
        seen = "SELECT t.rule, r.outcome FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id"
        assert connection.execute(seen).fetchall() == [("standard", "completed")] * 2
        kinds = connection.execute("SELECT kind, actor FROM sweeper.events ORDER BY id").fetchall()
        assert [kind for kind, _ in kinds] == ["run_opened", "policy_recorded", "run_closed"]
        assert {actor for _, actor in kinds} == {"sweeper"}
    assert protections.list_holds(auditor.database(), released=True) == []
    checkpoint = ("audit", "checkpoint")
    assert in_process(auditor, *checkpoint).code == 1
    assert in_process(ruled, *checkpoint).code == 0
    for words in (("verify",), ("export", str(tmp_path / "ledger.jsonl"))):
        done = in_process(auditor, "audit", *words)
        assert done.code == 0, done.err


def test_manifests(ruled: Store, policy: Policy, tmp_path: Path) -> None:
    """The job builds manifests; with text only where the file's settings let it read the text."""
    ruled.load(made.world())
    job = ruled.job(policy, made.AS_OF)
    assert build.build(job, tmp_path, made.KEY).eligible
    with pytest.raises(database.DatabaseError, match="permission denied for table messages"):
        build.build(job, tmp_path, made.KEY, with_text=True)
    ruled.execute(ROLES.replace("'' AS message_columns", "'body' AS message_columns"))
    assert granted(ruled) - allowed() == {("sweeper", "store.messages", "SELECT", "body")}
    assert build.build(job, tmp_path, made.KEY, with_text=True).eligible
