"""A real PostgreSQL for the tests: a template database per id type, an empty copy of it per test, worlds loaded into it.

Invariant: the program connects as the role `sweeper` of deploy/postgres/roles.sql, and so sweeps with no more
privileges than it needs; only what a test does itself, to arrange and to look, is done as the superuser.
"""

import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from sweeper import embedded
from sweeper.clock import Clock
from sweeper.demo import world as worlds
from sweeper.policy.schema import Policy, parse
from sweeper.postgres import database, migrate
from sweeper.runs.job import Job, read_contract
from sweeper.settings import Settings
from tests.facts import CREATED, World, instant

ROOT = Path(__file__).parents[2]
NAMESPACE = UUID("9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11")
ID_TYPES = ("uuid", "text", "bigint")


def identifier(id_type: str, name: str | None) -> str | None:
    """A world's short id ("c1") as an id of the type; the same every time, and never two names with one id."""
    if name is None:
        return None
    if id_type == "uuid":
        return str(uuid5(NAMESPACE, name))
    return name if id_type == "text" else str(int.from_bytes(name.encode(), "big"))


class _Kept(psycopg.Connection[Any]):
    """A connection that closes when nobody has it any more, without a warning: a store that a test made needs no closing."""

    def __del__(self, *_: object, **__: object) -> None:
        self.close()


@dataclass(frozen=True)
class Store:
    """A database with the sweeper's tables and a reference store whose ids are of one type; `url` is the program's."""

    url: str
    id_type: str
    opened: list[database.Database] = field(default_factory=list)
    idle: list[psycopg.Connection[Any]] = field(default_factory=list)

    @property
    def libpq(self) -> str:
        """The superuser's URL for psycopg and libpq."""
        return make_url(self.url).set(drivername="postgresql", username="postgres").render_as_string()

    @property
    def program(self) -> str:
        """The program's own URL for psycopg and libpq."""
        return make_url(self.url).set(drivername="postgresql").render_as_string()

    def acting(self, role: str) -> "Store":
        """The same database as the program sees it that connects as another role."""
        return replace(self, url=make_url(self.url).set(username=role).render_as_string())

    def instead(self, person: str) -> "Store":
        """The same database for a person instead of the job; a store that is a superuser's stays one."""
        return self.acting(person) if make_url(self.url).username == "sweeper" else self

    def grant_text(self) -> None:
        """Let the job read what people wrote, as a DBA does who wants manifests with text."""
        self.execute("GRANT SELECT (body) ON store.messages TO sweeper")

    @contextmanager
    def connect(self, **options: Any) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, in autocommit, in UTC, with the store as search path.

        One without options is kept for the next caller, who finds it as if it were new.
        """
        if options:
            with psycopg.connect(self.libpq, autocommit=True, **options) as connection:
                connection.execute("".join(f"SET {setting};" for setting in SESSION).encode())
                yield connection
            return
        with ExitStack() as closing:
            connection = closing.enter_context(self._kept() or self._plain())
            yield connection
            if not connection.closed:
                connection.commit()
                with suppress(psycopg.Error):  # its session was ended
                    connection.execute("DISCARD ALL")
                    self.idle.append(connection)
                    closing.pop_all()

    def _kept(self) -> psycopg.Connection[Any] | None:
        while self.idle:
            connection = self.idle.pop()
            if not select.select([connection], [], [], 0)[0]:  # nothing to read: the server has not ended its session
                return connection
            connection.close()
        return None

    def _plain(self) -> psycopg.Connection[Any]:
        return _Kept.connect(
            self.libpq,
            autocommit=True,
            prepare_threshold=None,  # psycopg would not know that DISCARD ALL forgets what is prepared
            options=" ".join(f"-c {setting}" for setting in SESSION),
        )

    def execute(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        with self.connect() as connection:
            cursor = connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def id(self, name: str | None) -> str | None:
        """A world's short id as this store writes it."""
        return identifier(self.id_type, name)

    def settings(self, **sections: Any) -> Settings:
        """Settings for this store; sections as in the file."""
        return Settings.model_validate({"database": {"url": self.url}, "policy": {"file": POLICY}, **sections})

    def job(self, policy: Policy, as_of: str, clock: Clock | None = None, **sections: Any) -> Job:
        """A job on this store at an as-of; the clock says as-of unless one is given."""
        at = instant(as_of)
        settings = self.settings(**sections)
        opened = self.database(settings)
        return Job(opened, read_contract(opened, policy), policy, clock or frozen(as_of), at)

    def database(self, settings: Settings | None = None) -> database.Database:
        """An engine on this store, closed when the test ends."""
        wanted = settings or self.settings()
        for known in self.opened:
            if known.settings == wanted:
                return known
        self.opened.append(database.connect(wanted))
        return self.opened[-1]

    def close(self) -> None:
        """Close the engines and the connections that are kept."""
        for known in self.opened:
            known.engine.dispose()
        while self.idle:
            self.idle.pop().close()

    def wipe(self) -> None:
        """Empty the store and the sweeper's tables, evidence included, and number rows from 1 again."""
        with self.connect() as connection:
            connection.execute(EMPTY)

    def load(self, world: World) -> None:
        """Put a world in the shape of `cases.jsonl` into the store."""
        with self.connect() as connection, connection.transaction(), connection.cursor() as cursor:
            for table, rows in _rows(self.id_type, world).items():
                for row in rows:
                    cursor.execute(
                        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                            sql.Identifier(*table.split(".")),
                            sql.SQL(", ").join(map(sql.Identifier, row)),
                            sql.SQL(", ").join(sql.Placeholder() * len(row)),
                        ),
                        list(row.values()),
                    )

    def left(self) -> set[str]:
        """The ids of the conversations that are there."""
        return {str(row[0]) for row in self.execute("SELECT id FROM conversations")}


SESSION = ("TimeZone=UTC", "DateStyle=ISO", "search_path=store")
POLICY = str(ROOT / "config" / "policy.toml")
DIGEST = parse(Path(POLICY).read_text()).digest
"""The digest of that policy, for runs that a test makes up."""
RELATIONS = ("attachments", "messages", "conversations", "feedback", "consent_events", "plan_changes", "accounts")
OWN = (
    "legal_holds",  # the first three before the events that their triggers write, whatever the replication role
    "erasure_orders",
    "pauses",
    "plan_changes",
    "consent_events",
    "object_purges",
    "copies",
    "tombstones",
    "events",
    "lease",
    "runs",
    "backfills",
    "revocations",
    "manifests",
    "leaves",
    "tiles",
    "checkpoints",
)
SEEDED = ("identity", "ledger_sources", "schema_version")  # what `migrate` fills
EMPTY = "".join(
    [
        "SET session_replication_role = replica;",
        *(f"DELETE FROM store.{name};" for name in RELATIONS),
        *(f"DELETE FROM sweeper.{name};" for name in OWN),
        "UPDATE sweeper.ledger_sources SET unnumbered = DEFAULT;",
        "SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence;",
        "RESET session_replication_role",
    ]
)

END_OTHERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
"""Asks the other sessions of the database to end, and tells how many there still were."""


def frozen(at: str) -> Clock:
    """A clock, for this machine and for the database, that stands still."""
    now = instant(at)
    return Clock(lambda: now, lambda _: now)


@contextmanager
def administered(server: embedded.Server) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may create and drop databases."""
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


ROLES = (ROOT / "deploy" / "postgres" / "roles.sql").read_text()
PEOPLE = """
DO $$ BEGIN
    IF to_regrole('officer') IS NULL THEN CREATE ROLE officer LOGIN IN ROLE sweeper_officer; END IF;
    IF to_regrole('auditor') IS NULL THEN CREATE ROLE auditor LOGIN IN ROLE sweeper_auditor; END IF;
    IF to_regrole('stranger') IS NULL THEN CREATE ROLE stranger LOGIN; END IF;
END $$
"""
"""Who logs in beside the job: one for each role of the file that is for people, and one of no role."""
FURTHER = """
GRANT SELECT (history_enabled, retention_days) ON store.accounts TO sweeper;
CREATE FUNCTION public.grant_further() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT d.objid, d.object_type, d.object_identity AS name FROM pg_event_trigger_ddl_commands() d
        WHERE d.object_type IN ('schema', 'table', 'view') AND d.object_identity !~ '^(sweeper|pg_temp|pg_toast)\\M'
    LOOP
        IF made.object_type = 'schema' THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO sweeper, sweeper_officer', made.name);
        ELSE
            EXECUTE format('GRANT SELECT, DELETE ON %s TO sweeper', made.name);
            EXECUTE (SELECT format('GRANT UPDATE (%I) ON %s TO sweeper', a.attname, made.name)
                     FROM pg_attribute a WHERE a.attrelid = made.objid AND a.attnum > 0 AND NOT a.attisdropped
                     ORDER BY a.attnum LIMIT 1);
        END IF;
    END LOOP;
END $$;
CREATE EVENT TRIGGER grant_further ON ddl_command_end WHEN TAG IN ('CREATE SCHEMA', 'CREATE TABLE', 'CREATE VIEW', 'ALTER TABLE')
    EXECUTE FUNCTION public.grant_further();
"""
"""What a DBA grants beside the file: the columns that policies read and, of tables that a test makes or alters, what a purge
needs there. Of schema sweeper nothing is granted."""


def reference(id_type: str) -> str:
    """The SQL that makes the reference store."""
    return worlds.reference("store", id_type)


def create(server: embedded.Server, id_type: str) -> str:
    """Make the template database of an id type; returns its name."""
    name = f"template_{id_type}"
    with administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    opened = database.connect(Settings.model_validate({"database": {"url": server.url(name)}}))
    migrate.migrate(opened)
    opened.engine.dispose()
    with psycopg.connect(server.url(name).replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(reference(id_type))
        connection.execute("ALTER TABLE store.accounts ADD history_enabled boolean, ADD retention_days integer")
        for script in (ROLES, PEOPLE, FURTHER):
            connection.execute(script)
    return name


class Templates(dict[str, str]):
    """The names of the template databases by id type; each is made when it is first asked for."""

    def __init__(self, server: embedded.Server) -> None:
        self.server = server

    def __missing__(self, id_type: str) -> str:
        self[id_type] = create(self.server, id_type)
        return self[id_type]


def copy(server: embedded.Server, template: str, name: str, id_type: str) -> Store:
    """A fresh database from a template; the program works on it as the role `sweeper`."""
    with administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    return Store(server.url(name), id_type).acting("sweeper")


def drop(server: embedded.Server, name: str) -> None:
    """Drop a database, whoever is connected."""
    with administered(server) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class SharedDatabase:
    """A copy of a template that one test after another uses.

    After each test its rows are deleted, its sequences restarted and its settings reset. If the test changed anything else (a
    table, a privilege, a statistic, a row that a migration wrote), or made a table grow beyond what the planner assumes of one
    it knows nothing of, the next test gets a new copy. So no test sees what another one did.
    """

    def __init__(self, server: embedded.Server, template: str, id_type: str) -> None:
        self.server, self.template, self.id_type = server, template, id_type
        self.copies = 0
        self.state: list[tuple[Any, ...]] | None = None  # what a fresh copy looks like; None if there is no copy
        self.since = ""  # the first transaction on it
        self.kept: psycopg.Connection[Any] | None = None  # what empties the copy in use

    @property
    def name(self) -> str:
        """The name of the copy in use."""
        return f"{self.template}_copy_{self.copies}"

    @contextmanager
    def lent(self) -> Iterator[Store]:
        """The database for one test, as the program sees it."""
        if self.state is None:
            self.copies += 1
            copy(self.server, self.template, self.name, self.id_type)
            connection = self._connection()
            self.since = connection.execute("SELECT pg_current_xact_id()::xid").fetchall()[0][0]
            self.state = _state(connection, self.since)
        store = Store(self.server.url(self.name), self.id_type).acting("sweeper")
        try:
            yield store
        finally:
            store.close()
            if not self._emptied():
                self.close()

    def close(self) -> None:
        """Drop the copy in use."""
        if self.state is not None:
            self.state = None
            if self.kept:
                self.kept.close()
            drop(self.server, self.name)

    def _connection(self) -> psycopg.Connection[Any]:
        """One connection for the copy's whole life: the catalogue that it has read is the dear part of these statements."""
        if self.kept is None or self.kept.closed:
            self.kept = psycopg.connect(Store(self.server.url(self.name), self.id_type).libpq, autocommit=True)
        return self.kept

    def _emptied(self) -> bool:
        """Delete the rows that the test left; returns whether the database is then as it was."""
        with suppress(psycopg.Error):  # the test has ended this session
            return self._emptied_once()
        with suppress(psycopg.Error):  # the test changed what a session may do here
            return self._emptied_once()
        return False

    def _emptied_once(self) -> bool:
        connection = self._connection()
        while connection.execute(END_OTHERS).fetchone() != (0,):
            pass  # asked again at once: given a time-out, pg_terminate_backend looks only every 100 ms
        connection.execute(f"ALTER DATABASE {self.name} RESET ALL".encode())
        connection.execute(EMPTY)
        return _state(connection, self.since) == self.state


_ALL_ROWS = """
pg_class pg_attribute pg_attrdef pg_constraint pg_index pg_inherits pg_trigger pg_rewrite pg_type pg_proc pg_policy pg_publication
pg_publication_rel pg_event_trigger pg_default_acl pg_statistic
"""
CATALOGUES = dict.fromkeys(_ALL_ROWS.split(), "true") | {
    "pg_namespace": "nspname !~ '^pg_(toast_)?temp_'",  # temporary schemas stay when their sessions have ended
    "pg_database": "datname = current_database()",
    "pg_db_role_setting": "setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
}
"""The catalogues that tell what a database is beside its rows, and which of their rows do."""
_CHANGED = (
    "SELECT '{0}', count(*), count(*) FILTER (WHERE age(xmin) < age('{1}'::xid))::text FROM pg_catalog.{0} WHERE {2}"
)
_SEED = "SELECT '{0}', count(*), string_agg(t::text, ' ' ORDER BY t::text) FROM sweeper.{0} t"
_SIZES = """
SELECT 'sizes', sum(relpages), concat(sum(reltuples), bool_or(pg_relation_size(oid) > 81920)) FROM pg_class
WHERE relkind = 'r' AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('store', 'sweeper'))
"""


def _state(connection: psycopg.Connection[Any], since: str) -> list[tuple[Any, ...]]:
    """What stays as it is while nobody does more than write rows.

    Every change of a catalogue is an insert, an update or a delete: counted are its rows, and those that are younger than the
    transaction `since`.
    """
    parts = [_CHANGED.format(name, since, which) for name, which in CATALOGUES.items()]
    parts += [_SEED.format(name) for name in SEEDED]
    return connection.execute(" UNION ALL ".join([*parts, _SIZES]).encode()).fetchall()


def _rows(id_type: str, world: World) -> dict[str, list[dict[str, Any]]]:
    """The rows of a world by table. Absent columns have the defaults of `cases.jsonl`; an explicit null stays NULL."""

    def named(name: str | None) -> str | None:
        return identifier(id_type, name)

    rows: dict[str, list[dict[str, Any]]] = {}
    for account in world["accounts"]:
        rows.setdefault("accounts", []).append(
            {
                "id": named(account["id"]),
                "created_at": account.get("created_at", CREATED),
                "closed_at": account.get("closed_at"),
                **account.get("columns", {}),
            }
        )
        for plan in account["plans"]:
            rows.setdefault("plan_changes", []).append(
                {"account_id": named(account["id"]), **_columns(plan, ("id", "effective_at", "plan"))}
            )
        for event in account["consent"]:
            rows.setdefault("consent_events", []).append(
                {
                    "account_id": named(account["id"]),
                    "purpose": event.get("purpose", "model_improvement"),
                    **_columns(event, ("id", "granted", "recorded_at", "effective_at")),
                }
            )
    for conversation in world["conversations"]:
        rows.setdefault("conversations", []).append(
            {
                "id": named(conversation["id"]),
                "account_id": named(conversation["account"]),
                "kind": conversation.get("kind", "chat"),
                "platform": conversation.get("platform", "first_party"),
                "incognito": conversation.get("incognito", False),
                "zero_retention": conversation.get("zero_retention", False),
                **{
                    column: conversation.get(column)
                    for column in ("created_at", "last_activity_at", "deleted_at", "restored_at", "flagged_at")
                },
            }
        )
        for message in conversation["messages"]:
            rows.setdefault("messages", []).append(
                {
                    "id": named(message["id"]),
                    "conversation_id": named(conversation["id"]),
                    "author": message.get("author"),
                    "created_at": message.get("created_at"),
                    "body": "secret words",
                }
            )
    for feedback in world.get("feedback", ()):
        rows.setdefault("feedback", []).append(
            {
                "id": named(feedback["id"]),
                "account_id": named(feedback.get("account")),
                "conversation_id": named(feedback.get("conversation")),
                **_columns(feedback, ("kind", "submitted_at", "transcript")),
            }
        )
    for table, entries, label in (
        ("sweeper.legal_holds", world["holds"], "matter"),
        ("sweeper.erasure_orders", world["orders"], "reference"),
    ):
        for number, entry in enumerate(entries, 1):
            instants = ("placed_at", "released_at") if label == "matter" else ("recorded_at", "due_at")
            rows.setdefault(table, []).append(
                {
                    label: f"matter {number}",
                    "account_id": named(entry.get("account")),
                    "conversation_id": named(entry.get("conversation")),
                    **{column: entry.get(column) for column in instants},
                }
            )
    return rows


def _columns(entry: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}
