"""Everything that could keep a sweep from doing its work, listed at once, each with what mends it.

The law of this file: a bad store is described, never raised; a check only reads. Checks are a table, running them a loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.core.instant import rfc3339
from sweeper.core.policy import Policy
from sweeper.store import hazards
from sweeper.store.contract import ALIKE, missing
from sweeper.store.database import Database, is_gone, reason
from sweeper.store.finding import Finding, Level, fault, ok, warning
from sweeper.store.indexes import indexes
from sweeper.store.migrate import HEAD
from sweeper.store.named import named
from sweeper.store.privileges import further, privileges
from sweeper.store.scene import Scene, look, quoted_if_odd
from sweeper.store.statement import statement

__all__ = ["Finding", "Level", "check"]

OLDEST = 140_000
"""The oldest server version that the statements run on."""
OWN_TRIGGERS = (
    ("erasure_orders", "record"),
    ("events", "insert_only"),
    ("legal_holds", "fence"),
    ("legal_holds", "record"),
    ("tombstones", "insert_only"),
)
"""What guards holds and evidence."""
JOINED = (
    ("plan_changes", "account_id", "accounts"),
    ("consent_events", "account_id", "accounts"),
    ("conversations", "account_id", "accounts"),
    ("feedback", "account_id", "accounts"),
    ("messages", "conversation_id", "conversations"),
    ("attachments", "conversation_id", "conversations"),
    ("feedback", "conversation_id", "conversations"),
)
"""Columns that are joined to another relation's id."""


def check(database: Database, policy: Policy, clock: Clock) -> list[Finding]:
    """All findings about a store, in the order of the table of checks.

    Raises:
        DBAPIError: the database cannot be reached.
    """
    with database.transaction() as connection:
        scene = look(connection, database.settings, policy, clock)
    return [finding for subject, checked in CHECKS.items() for finding in _run(database, scene, subject, checked)]


Check = Callable[[Scene, Connection], Iterable[Finding]]


def _run(database: Database, scene: Scene, subject: str, checked: Check) -> list[Finding]:
    """The findings of one check, in a transaction of its own: what fails hides nothing else."""
    try:
        with database.transaction() as connection:
            return list(checked(scene, connection))
    except DBAPIError as error:
        if is_gone(error):
            raise
        text = f"this could not be looked at: {reason(error)}."
        return [warning(subject, text, "mend the other findings, then run `sweeper check` again.")]


def server(scene: Scene, _: Connection) -> Iterator[Finding]:
    """The server, its version, and whether it lets the session write."""
    session = scene.session
    if session.version_number < OLDEST:
        text = f"the server is PostgreSQL {session.version}, which is too old."
        yield fault("server", text, f"Use PostgreSQL {OLDEST // 10_000} or later.")
    else:
        yield ok("server", f"PostgreSQL {session.version}, database {session.database}, role {session.role}.")
    if session.standby:
        yield fault(
            "server", "this is a standby: nothing can be purged in it.", "SWEEPER_DATABASE_URL: name the primary."
        )
    elif session.read_only:
        yield fault(
            "default_transaction_read_only",
            "transactions are read-only: nothing can be purged.",
            f"ALTER ROLE {scene.role} SET default_transaction_read_only = off;",
        )
    if session.replication_role != "origin":
        yield fault(
            "session_replication_role",
            f"session_replication_role is {session.replication_role}: foreign keys and guards do not work.",
            f"ALTER ROLE {scene.role} SET session_replication_role = origin;",
        )


def timeouts(scene: Scene, _: Connection) -> Iterator[Finding]:
    """Whether the sweeper yields before PostgreSQL calls an application the victim of a deadlock."""
    ours, theirs = scene.settings.database.lock_timeout_ms, scene.session.deadlock_timeout_ms
    if theirs <= ours:
        text = f"deadlock_timeout of the server ({theirs} ms) is not above lock_timeout_ms ({ours} ms)."
        yield fault("lock_timeout_ms", text, f"[database] lock_timeout_ms = {max(theirs // 2, 1)}")


def own_tables(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """The sweeper's own tables, their revision, and the triggers that guard them."""
    if "schema_version" not in scene.own:
        yield fault("sweeper tables", "the sweeper's own tables are missing.", "sweeper migrate")
        return
    if "schema_version" in scene.readable:
        found = connection.execute(statement("check_revision")).scalar_one_or_none()
        if found == HEAD:
            yield ok("sweeper tables", f"revision {found}.")
        else:
            yield fault(
                "sweeper tables", f"the sweeper's own tables are at revision {found}, not {HEAD}.", "sweeper migrate"
            )
    fires = {(row.table, row.trigger): row.fires for row in connection.execute(statement("check_own_triggers"))}
    for table, trigger in OWN_TRIGGERS:
        if table not in scene.own:
            yield fault(
                "sweeper tables", f"sweeper.{table} is missing.", "restore it from a backup of the schema sweeper."
            )
        elif not fires.get((table, trigger)):
            is_off = (table, trigger) in fires
            yield fault(
                f"trigger {trigger}",
                f"the trigger {trigger} of sweeper.{table} is {'switched off' if is_off else 'missing'}.",
                f"ALTER TABLE sweeper.{table} ENABLE TRIGGER {trigger};"
                if is_off
                else "restore it from the first revision in sweeper/store/migrations.",
            )


def contract(scene: Scene, _: Connection) -> Iterator[Finding]:
    """The seven relations with their columns and types, and the further columns that the policy reads."""
    lacking = [(text, "offer it in the table, or through a view.") for text in missing(scene.types, scene.schema)]
    for relation in ("accounts", "conversations"):
        for column in further(scene.policy, relation):
            if relation in scene.types and column not in scene.types[relation]:
                text = f"column {scene.schema}.{relation}.{column} is missing (the policy reads it)"
                lacking.append((text, f"offer it in {scene.schema}.{relation}, or mend the policy."))
    for text, remedy in lacking:
        yield fault("contract", f"{text}.", remedy)
    if not lacking:
        yield ok("contract", f"{scene.schema} offers all seven relations.")


def places(scene: Scene, _: Connection) -> Iterator[Finding]:
    """The physical tables that the settings name."""
    yield from scene.astray
    if scene.root:
        yield ok("[purge] table", f"conversations are purged from {scene.root.table}.")


def joins(scene: Scene, _: Connection) -> Iterator[Finding]:
    """Columns that are joined and have different types."""
    for relation, column, other in JOINED:
        found, wanted = scene.types.get(relation, {}).get(column), scene.types.get(other, {}).get("id")
        if found and wanted and not _alike(found, wanted):
            name = scene.relations[relation].name
            yield fault(
                f"type {name}.{column}",
                f"{name}.{column} is {found}, {scene.relations[other].name}.id is {wanted}.",
                f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {wanted} USING {column}::{wanted};"
                if scene.relations[relation].is_table
                else f"give {column} the type {wanted} in the view {name}.",
            )
    root, offered = scene.root, scene.types.get("conversations", {}).get("id")
    if root and offered and not _alike(root.type, offered):
        text = (
            f"{root.table}.{quoted_if_odd(root.key)} is {root.type}, the relation conversations offers id as {offered}."
        )
        yield fault("type [purge] key", text, f"offer id as {root.type} in {scene.schema}.conversations.")


def _alike(one: str, other: str) -> bool:
    return one == other or any({one, other} <= group for group in ALIKE.values())


def clocks(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """This machine's clock against the database's."""
    guards, here, there = scene.settings.guards, scene.clock.now(), scene.clock.database_now(connection)
    apart = abs((here - there).total_seconds())
    text = f"this machine's clock says {rfc3339(here)}, the database's {rfc3339(there)}, {apart:.0f} s apart."
    if apart <= guards.clock_tolerance_seconds:
        yield ok("clock", text)
    else:
        say = fault if guards.clock else warning
        yield say("clock", text, "mend the wrong clock, or raise [guards] clock_tolerance_seconds.")


def policy(scene: Scene, _: Connection) -> Iterator[Finding]:
    """Which policy this is."""
    yield ok("policy", f"{scene.policy.name}, digest {scene.policy.digest}.")


def objects(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Attachments while nothing says where objects may be removed."""
    readable = "uri" in scene.types.get("attachments", {})
    if not scene.settings.objects.prefixes and readable and connection.execute(statement("check_objects")).scalar_one():
        text = "attachments exist and [objects] prefixes is empty, so that whatever object a URI names may be removed."
        yield warning("[objects] prefixes", text, '[objects] prefixes = ["s3://bucket/"]')


CHECKS: Mapping[str, Check] = {
    "server": server,
    "timeouts": timeouts,
    "sweeper tables": own_tables,
    "contract": contract,
    "[purge]": places,
    "privileges": privileges,
    "join types": joins,
    "indexes": indexes,
    "triggers": hazards.triggers,
    "rules": hazards.rules,
    "keys": hazards.keys,
    "disabled keys": hazards.disabled,
    "row security": hazards.security,
    "children": hazards.children,
    "clock": clocks,
    "policy": policy,
    "[objects]": objects,
    "holds and orders": named,
}
"""The checks in the order in which they are shown."""
