"""Settings of a database, a role or a server that change what statements mean, do or print: they change nothing here."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

import psycopg
import pytest

from sweeper import embedded
from sweeper.policy.schema import Policy
from sweeper.postgres import migrate, statement
from sweeper.postgres.migrate import MigrationError
from tests.acceptance.commands import Command, in_process
from tests.acceptance.test_printing import SIGNING_KEY
from tests.manifest import made
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import AS_OF

ROOT = Path(__file__).parents[2]
_numbers = count(1)

SETTINGS = {
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "backslash_quote": "off",
    "bytea_output": "escape",
    "IntervalStyle": "sql_standard",
    "DateStyle": "SQL, DMY",
    "TimeZone": "America/St_Johns",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "lc_messages": "C",
    "lc_numeric": "C",
    "check_function_bodies": "off",
    "plan_cache_mode": "force_generic_plan",
    "transaction_timeout": "1s",
    "statement_timeout": "200ms",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1s",
    "enable_seqscan": "off",
    "enable_nestloop": "off",
    "row_security": "on",
    "search_path": "nowhere",
    "synchronous_commit": "off",
    "client_encoding": "LATIN1",
    "client_min_messages": "debug1",
    "default_table_access_method": "heap",
    "constraint_exclusion": "on",
    "work_mem": "64kB",
    "jit": "on",
    "jit_above_cost": "0",
}


PATIENT = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
"""What would hinder the test itself where it arranges and looks, as the superuser."""


def set_for_all(server: embedded.Server, store: Store, settings: Mapping[str, str]) -> None:
    """Set them for the store's database, whoever connects."""
    name = store.execute("SELECT current_database()")[0][0]
    with stores.administered(server) as connection:
        known = {row[0].lower() for row in connection.execute("SELECT name FROM pg_settings").fetchall()}
        for setting, value in settings.items():
            if setting.lower() in known:  # transaction_timeout is younger than some servers
                quoted = value if setting in ("DateStyle", "search_path") else f"'{value}'"
                connection.execute(f"ALTER DATABASE {name} SET {setting} = {quoted}".encode())
                if setting in PATIENT:
                    connection.execute(f"ALTER ROLE postgres IN DATABASE {name} SET {setting} = 0".encode())


@pytest.fixture
def sweeper() -> Command:
    """A command on a store."""
    return partial(in_process)


def work(sweeper: Command, store: Store, folder: Path) -> dict[str, object]:
    """What the commands say that read, purge, record, prove and build."""
    key = folder / "signing.pem"
    key.write_text(SIGNING_KEY)
    keys = {"SWEEPER_SIGNING_KEY_FILE": str(key), "SWEEPER_PSEUDONYM_KEY": "Xk3vQ0pT7mZr9bYw2LdNfHs5JgCa8EuVti1oRnBq"}

    def run(*words: str, code: int = 0) -> str:
        done = sweeper(store, *words, **keys)
        assert (done.code, "Traceback" in done.err) == (code, False), done
        return done.out

    run("migrate")
    with store.connect() as connection:  # as psql would: one statement after another
        connection.execute("SET standard_conforming_strings = on")
        connection.execute(stores.ROLES.encode())
    store.load(made.world())
    chat = store.id("a1c1")
    run("hold", "place", "back\\slash'quote", "--conversation", str(store.id("a1c2")))
    found = [(f["level"], f["subject"]) for f in json.loads(run("check", "--json")) if f["level"] != "ok"]
    built = json.loads(run("manifest", "build", str(folder / "m"), "--as-of", made.AS_OF, "--json"))
    run("manifest", "verify", str(folder / "m"))
    run("order", "add", "DSR", "--conversation", str(chat), "--due", "2026-08-01T00:00:00Z")
    swept = json.loads(run("run", "--json"))
    again = json.loads(run("audit", "checkpoint", "--json"))
    verified = json.loads(run("audit", "verify", "--json"))
    explained = json.loads(run("explain", str(store.id("a1c2")), "--json"))
    proven = json.loads(run("audit", "prove", str(chat), "--json", "--out", str(folder / "r.json")))
    run("audit", "export", str(folder / "l.jsonl"))
    run("status")
    run("report")
    recalled = json.loads(run("manifest", "recall", "--json"))["manifests"][0]["reasons"]
    return {
        "check": found,
        "built": (built["eligible"], built["excluded"]),
        "swept": (swept["by_rule"], swept["held"], swept["outcome"]),
        "checkpoint": bool(again),
        "fault": verified["fault"],
        "explained": {k: explained[k] for k in ("rule", "due_at", "holds", "messages")},
        "proven": (proven["rule"], proven["due_at"]),
        "recalled": recalled,
    }


@pytest.mark.parametrize("which", [["standard_conforming_strings"], ["quote_all_identifiers"], list(SETTINGS)], ids=str)
def test_settings_change_nothing(
    which: list[str], sweeper: Command, server: embedded.Server, store: Store, tmp_path: Path
) -> None:
    """Under settings that others made for the database, every command says and does what it does without."""
    told = []
    for name, settings in (("plain", {}), ("set", {name: SETTINGS[name] for name in which})):
        store.wipe()
        store.execute("DROP SCHEMA sweeper CASCADE")
        set_for_all(server, store, settings)
        (tmp_path / name).mkdir()
        told.append(work(sweeper, store, tmp_path / name))
    assert told[0] == told[1]
    assert told[0]["fault"] is None


BEGUN = {
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "bytea_output": "hex",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "extra_float_digits": "1",
    "synchronous_commit": "local",
    "row_security": "off",
    "client_encoding": "UTF8",
    "check_function_bodies": "on",
}
"""What `begin` sets."""


def test_transactions_are_alike(server: embedded.Server, store: Store) -> None:
    """Whatever the database says, a transaction has the values that `begin` sets, and the session keeps its own."""
    set_for_all(server, store, SETTINGS)
    with store.database().transaction() as connection:
        found = {row.name: row.setting for row in connection.exec_driver_sql("SELECT name, setting FROM pg_settings")}
    assert found.get("transaction_timeout", "0") == "0"
    assert {name: found[name] for name in BEGUN} == BEGUN


def test_stronger_commits_stay(server: embedded.Server, store: Store) -> None:
    """Only a commit that may be lost is made to wait; one that waits for standbys is left as it is."""
    set_for_all(server, store, {"synchronous_commit": "remote_apply"})
    with store.database().transaction() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "remote_apply"


def test_begin_needs_no_setting() -> None:
    """No backslash stands in `begin`: it must mean the same under any setting of what a backslash is."""
    assert "\\" not in statement.source("begin")


def test_sql_is_ascii() -> None:
    """Every statement and every revision can be sent to a database of any encoding."""
    files = [*(ROOT / "sweeper").rglob("*.sql"), *(ROOT / "deploy").rglob("*.sql")]
    assert len(files) > 15
    assert [str(file) for file in files if not file.read_bytes().isascii()] == []


@pytest.fixture
def encoded(server: embedded.Server, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty database of another encoding."""
    name = f"encoded_{next(_numbers)}"
    with stores.administered(server) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    store = Store(server.url(name), "text")
    yield store
    store.close()
    stores.drop(server, name)


@pytest.mark.parametrize("encoded", ["LATIN1", "SQL_ASCII", "LATIN9", "WIN1252", "EUC_JP"], indirect=True)
def test_encodings(encoded: Store, sweeper: Command, policy: Policy) -> None:
    """A database in another encoding is migrated, checked, swept and verified; what it cannot hold is refused in one line."""
    assert sweeper(encoded, "migrate").code == 0
    encoded.execute(stores.reference("text"))
    encoded.execute("ALTER TABLE store.accounts ADD history_enabled boolean, ADD retention_days integer")
    encoded.execute("INSERT INTO store.accounts (id, created_at) VALUES ('acc', '2019-01-01Z')")
    fill_text(encoded)
    assert sweeper(encoded, "check").code == 0
    done = sweeper(encoded, "run", "--as-of", AS_OF, "--accept-history", "--json")
    assert (done.code, json.loads(done.out)["purged"]) == (0, 2)
    assert sweeper(encoded, "audit", "verify").code == 0
    placed = sweeper(encoded, "hold", "place", "訴訟 ✓ Ελλάδα", "--everything")
    assert (placed.code, len(placed.err.splitlines())) in ((0, 0), (1, 1))
    assert "Traceback" not in placed.err


def fill_text(store: Store) -> None:
    """Two conversations that are due."""
    store.execute("INSERT INTO store.plan_changes (account_id, effective_at, plan) VALUES ('acc', '-infinity', 'free')")
    store.execute(
        "INSERT INTO store.conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, "
        "last_activity_at) "
        "SELECT 'c' || n, 'acc', 'chat', 'first_party', false, false, '2026-01-01Z', '2026-02-01Z' FROM generate_series(1, 2) n"
    )


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_bytes_that_are_no_text(encoded: Store, sweeper: Command) -> None:
    """Bytes that a database of encoding SQL_ASCII took without looking end a command in one line."""
    sweeper(encoded, "migrate")
    encoded.execute(stores.reference("text"))
    with psycopg.connect(encoded.libpq, autocommit=True, client_encoding="latin1") as connection:
        connection.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('M\u00fcller')".encode("latin1"))
    done = sweeper(encoded, "hold", "list")
    assert (done.code, len(done.err.splitlines()), "Traceback" in done.err) == (1, 1, False)
    assert "does not fit the database's encoding" in done.err


OBSTACLES = {
    "a function of the same name": (
        "CREATE FUNCTION sweeper.spelling(id text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
        "Something else has that name",
    ),
    "a table of the same name": ("CREATE TABLE sweeper.lease (x integer)", "Something else has that name"),
    "a type of the same name": (
        "CREATE TYPE sweeper.tombstones AS (x integer)",
        "Something else has that name",
    ),
    "no privilege": ("REVOKE CREATE ON SCHEMA sweeper FROM sweeping_owner", "Run it as the owner of schema sweeper"),
    "read only": ("ALTER DATABASE {name} SET default_transaction_read_only = on", "connect to the primary"),
    "a trigger that says no": (
        "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no\\r\\nway'; END $$;"
        "CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.no()",
        "Fix that, then run `sweeper migrate` again",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_obstacles(name: str, server: embedded.Server, nothing: Store, sweeper: Command) -> None:
    """Whatever the server refuses ends `migrate` in one line, with what was not done, and nothing has changed."""
    breaking, way_out = OBSTACLES[name]
    database = nothing.execute("SELECT current_database()")[0][0]
    nothing.execute(
        "DO $$ BEGIN IF to_regrole('sweeping_owner') IS NULL THEN CREATE ROLE sweeping_owner LOGIN; END IF; END $$"
    )
    nothing.execute("CREATE SCHEMA sweeper AUTHORIZATION sweeping_owner")
    nothing.execute(breaking.format(name=database))
    before = nothing.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'sweeper'::regnamespace")
    role = "postgres" if name == "read only" else "sweeping_owner"
    done = sweeper(nothing, "migrate", SWEEPER_DATABASE_URL=nothing.acting(role).url)
    assert (done.code, done.out, "Traceback" in done.err) == (1, "", False)
    assert len(done.err.splitlines()) == 1
    assert "was not reached" in done.err
    assert "Nothing was changed" in done.err
    assert way_out in done.err
    assert nothing.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'sweeper'::regnamespace") == before
    with stores.administered(server) as connection:
        connection.execute(f"ALTER DATABASE {database} RESET ALL")
    nothing.execute("DROP OWNED BY sweeping_owner CASCADE")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("INSERT INTO sweeper.schema_version VALUES ('0001')", "holds 2 rows"),
        ("UPDATE sweeper.schema_version SET version_num = '0000'", "does not know"),
        ("ALTER TABLE sweeper.schema_version ALTER version_num TYPE integer USING 3", "newer program"),
    ],
)
def test_versions(state: str, told: str, store: Store, sweeper: Command) -> None:
    """A revision that no program wrote is told, with what to do."""
    store.execute(state)
    done = sweeper(store, "migrate")
    assert (done.code, told in done.err, "Traceback" in done.err) == (2, True, False)


def test_gone_while_migrating(nothing: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is lost while it migrates leaves open whether it had committed, and that is said."""
    opened = nothing.acting("postgres").database()

    def cut(*_: object) -> None:
        nothing.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'active'"
        )

    monkeypatch.setattr(migrate, "_refuse_foreign", cut)
    with pytest.raises(MigrationError, match=re.compile("server is gone.*is not known")):
        migrate.migrate(opened)
