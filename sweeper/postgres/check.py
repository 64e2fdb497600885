"""Checks whether a store can be swept; reports every fault and hazard, each with the statement or setting that fixes it.

Invariant: a check changes nothing (a trial is rolled back), and no finding hides another.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.postgres import contract as contracts
from sweeper.postgres import hazards, indexes, migrate, privileges, reach, trial, vacuum
from sweeper.postgres.branches import Branch, branches, cycles, everything_below, redactions
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database, reason
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.postgres.privileges import Need
from sweeper.postgres.related_tables import OUTLIVING, Key, columns_of
from sweeper.postgres.statement import statement
from sweeper.settings import GuardSettings, Settings

OLDEST_SERVER = 140_000


@dataclass(frozen=True)
class CheckContext:
    """What the checks read; `contract` is None if the store does not fulfil it."""

    connection: Connection
    settings: Settings
    policy: Policy
    clock: Clock
    types: Mapping[str, Mapping[str, str]]
    kinds: Mapping[str, str]
    contract: Contract | None
    revision: str | None

    def rows(self, name: str, **parameters: Any) -> Sequence[Any]:
        """Return the rows of one of the statements for checks."""
        return self.connection.execute(statement(name), parameters).all()

    @property
    def family(self) -> tuple[Branch, ...]:
        """The tables whose rows are purged with a conversation."""
        return branches(self.contract.conversations) if self.contract else ()

    @property
    def oids(self) -> list[int]:
        """The oids of all tables that a purge deletes from."""
        return hazards.purged_tables(self.contract) if self.contract else []


def check(
    database: Database, policy: Policy, clock: Clock, *, trial_requested: bool | None = None
) -> list[CheckFinding]:
    """Return all findings about the store of the settings.

    Args:
        database: the store's database.
        policy: the policy of the runs.
        clock: this machine's clock and the database's.
        trial_requested: whether to run the trial purge (see `trial.findings`); None: unless a trigger seems to act outside the
            database.

    Raises:
        DBAPIError: the database cannot be reached.
    """
    revision = database.within(lambda connection: _revision(connection))
    with database.transaction() as connection:
        types, kinds = contracts.relations(connection, database.settings.store.schema_name)
        contract, faults = _contract(connection, database.settings, policy, types)
        subject = CheckContext(connection, database.settings, policy, clock, types, kinds, contract, revision)
        findings = [*(finding for run_check in CHECKS for finding in run_check(subject)), *faults]
        ready = revision == migrate.HEAD and not any(_lacking(subject, list(dict.fromkeys(_needs(subject)))))
    if contract is None or not ready:
        text = "not taken: the faults above prevent it"
        return [*findings, CheckFinding(Level.OK, "trial", text, "fix them and check again")]
    return [*findings, *trial.findings(database, contract, clock, requested=trial_requested)]


def _revision(connection: Connection) -> str | None:
    if not connection.execute(statement("check_own_revision")).scalar_one():
        return None
    found: str | None = connection.execute(statement("check_revision")).scalar_one_or_none()
    return found


def _contract(
    connection: Connection, settings: Settings, policy: Policy, types: Mapping[str, Mapping[str, str]]
) -> tuple[Contract | None, list[CheckFinding]]:
    faults = [
        CheckFinding(Level.FAULT, "contract", fault, "add it, for instance in a view of that name")
        for fault in contracts.faults(types, settings.store.schema_name, policy)
    ]
    if faults:
        return None, faults
    try:
        with connection.begin_nested():
            return contracts.read(connection, settings, policy), []
    except DBAPIError as error:
        return None, [CheckFinding(Level.FAULT, "purge", f"the tables cannot be read: {reason(error)}", "see [purge]")]
    except ConfigurationError as error:
        return None, [CheckFinding(Level.FAULT, "purge", str(error), "see [purge] in the settings")]


def _server(subject: CheckContext) -> Iterator[CheckFinding]:
    found = subject.rows("check_session")[0]
    yield CheckFinding(Level.OK, "server", f"PostgreSQL {found.version}, database {found.database}, role {found.role}")
    if found.version_number < OLDEST_SERVER:
        yield CheckFinding(Level.FAULT, "server", f"PostgreSQL {found.version} is older than 14", "upgrade the server")
    if found.standby or found.read_only:
        yield CheckFinding(Level.FAULT, "server", "the server or the role is read-only", "connect to the primary")
    if found.replication_role != "origin":
        yield CheckFinding(
            Level.FAULT,
            "server",
            f"session_replication_role is {found.replication_role}: foreign keys do not fire, children would be orphaned",
            f"ALTER ROLE {found.role} RESET session_replication_role",
        )
    if not found.temporary:
        yield CheckFinding(
            Level.WARNING,
            "manifest",
            f"role {found.role} may not make temporary tables: no training manifest can be built, checked or recalled, and "
            "`report`, `forecast` and `explain --all` fail",
            f"GRANT TEMPORARY ON DATABASE {found.database} TO {found.role}",
        )
    limit = subject.settings.database.lock_timeout_ms
    if limit >= found.deadlock_timeout_ms:
        yield CheckFinding(
            Level.FAULT,
            "lock_timeout",
            f"[database] lock_timeout_ms {limit} is not below deadlock_timeout {found.deadlock_timeout_ms} ms: an application "
            "could be made the victim of a deadlock",
            f"set [database] lock_timeout_ms below {found.deadlock_timeout_ms}",
        )


def _clock(subject: CheckContext) -> Iterator[CheckFinding]:
    now, database_now = subject.clock.now(), subject.clock.database_now(subject.connection)
    apart, limit = abs((now - database_now).total_seconds()), subject.settings.guards.clock_tolerance_seconds
    if apart > limit:
        yield CheckFinding(
            Level.FAULT,
            "clock",
            f"here it is {rfc3339(now)}, in the database {rfc3339(database_now)}: {apart:.0f} s apart, the limit is {limit} s",
            "fix the wrong clock",
        )


def _policy(subject: CheckContext) -> Iterator[CheckFinding]:
    yield CheckFinding(Level.OK, "policy", f"{subject.policy.name!r}, digest {subject.policy.digest}")
    if subject.settings.purge.redact and subject.policy.redacting is None:
        yield CheckFinding(
            Level.WARNING,
            "policy",
            "[[purge.redact]] names columns, and no rule of the policy redacts: they are never emptied",
            'give a rule action = "redact", or remove [[purge.redact]]',
        )


def _own_tables(subject: CheckContext) -> Iterator[CheckFinding]:
    unread = subject.revision is None and any(row.table == "schema_version" for row in subject.rows("check_own"))
    if subject.revision != migrate.HEAD and not unread:
        state = "missing" if subject.revision is None else f"at revision {subject.revision}, not {migrate.HEAD}"
        yield CheckFinding(Level.FAULT, "schema sweeper", f"the sweeper's own tables are {state}", "sweeper migrate")
    if subject.revision == migrate.HEAD:
        yield from _own_parts(subject)


def _own_parts(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find tables and triggers of the newest revision that somebody has since dropped or disabled."""
    tables = {row.table for row in subject.rows("check_own")}
    firing = {(row.table, row.trigger): row.fires for row in subject.rows("check_own_triggers")}
    for table in sorted(privileges.own_tables() - tables):
        yield CheckFinding(Level.FAULT, f"sweeper.{table}", "the table is missing", "restore it from a backup")
    for table, trigger in OWN_TRIGGERS:
        fires = firing.get((table, trigger))
        if table in tables and not fires:
            yield CheckFinding(
                Level.FAULT,
                f"sweeper.{table}",
                f"its trigger {trigger} is {'missing' if fires is None else 'disabled'}: what it protects is unprotected",
                f"ALTER TABLE sweeper.{table} ENABLE ALWAYS TRIGGER {trigger}"
                if fires is False
                else "restore the trigger",
            )


OWN_TRIGGERS = (
    ("legal_holds", "fence"),
    ("legal_holds", "record"),
    ("legal_holds", "record_truncation"),
    ("erasure_orders", "fence"),
    ("erasure_orders", "record"),
    ("erasure_orders", "record_truncation"),
    *(
        (table, trigger)
        for table in ("plan_changes", "consent_events")
        for trigger in ("stamp", "record", "insert_only")
    ),
    ("tombstones", "insert_only"),
    ("events", "insert_only"),
    ("manifests", "keep"),
    ("manifests", "only_forward"),
    ("revocations", "insert_only"),
    ("pauses", "record"),
    ("pauses", "record_truncation"),
    ("leaves", "insert_only"),
    ("tiles", "insert_only"),
    ("checkpoints", "insert_only"),
)


def _privileges(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find the privileges that a run needs and the role lacks."""
    role = subject.rows("check_session")[0].role
    needs = list(dict.fromkeys(_needs(subject)))
    for row in subject.rows("check_schemas", oids=sorted({need.oid for need in needs})):
        yield CheckFinding(
            Level.FAULT,
            f"schema {row.schema}",
            f"role {role} may not use it",
            f"GRANT USAGE ON SCHEMA {row.schema} TO {role}",
        )
    yield from _lacking_findings(role, list(_lacking(subject, needs)))
    for row in subject.rows("check_spelling"):
        yield CheckFinding(
            Level.FAULT,
            row.function,
            f"role {role} may not execute it, so no hold can be looked up",
            f"GRANT EXECUTE ON FUNCTION {row.function} TO {role}",
        )


def _lacking_findings(role: str, lacking: Sequence[Need]) -> Iterator[CheckFinding]:
    """Yield a finding for each lacking privilege, or a single one if the role is clearly not meant for the job."""
    bare = {(need.table, need.privilege.partition(" ")[0]) for need in lacking}
    records = {("sweeper.tombstones", "INSERT"), ("sweeper.runs", "INSERT")}
    if records <= bare and ("sweeper.legal_holds", "SELECT") not in bare:
        yield CheckFinding(
            Level.FAULT,
            f"role {role}",
            f"it is not the job's role: {len(lacking)} privileges to purge and to record are missing",
            "connect as the job's role; deploy/postgres/roles.sql has that, and roles for officers and auditors",
        )
        return
    for need in lacking:
        yield CheckFinding(
            Level.FAULT,
            need.table,
            f"role {role} lacks {need.grant} on {need.table}{', or on any other column' if need.any_column else ''}",
            f"GRANT {need.grant} ON {need.table} TO {role}",
        )


def _needs(subject: CheckContext) -> Iterator[Need]:
    yield from privileges.of_own_tables(_own_oids(subject))
    for row in _relations(subject):
        yield privileges.to_read(row.oid, row.name, row.relation, subject.policy)
    if subject.contract is not None:
        yield from privileges.to_purge(subject.contract, _read_by_expressions(subject))


def _read_by_expressions(subject: CheckContext) -> dict[tuple[int, str], tuple[str, ...]]:
    """Return the columns that each key reads that is an expression, by table and expression."""
    if subject.contract is None:
        return {}
    root = subject.contract.conversations
    keys = {(root.oid, root.key): root.table} if root.is_expression else {}
    for branch in (*branches(root), *redactions(root)):
        if branch.key.expression:
            keys[branch.key.oid, branch.key.expression] = branch.table
    return {(oid, key): columns_of(subject.connection, table, oid, key) for (oid, key), table in keys.items()}


def _lacking(subject: CheckContext, needs: Sequence[Need]) -> Iterator[Need]:
    numbered = [{"number": number, **vars(need)} for number, need in enumerate(needs)]
    for row in subject.rows("check_privileges", needs=json.dumps(numbered)):
        yield needs[row.number]


def _own_oids(subject: CheckContext) -> dict[str, int]:
    return {row.table: row.oid for row in subject.rows("check_own")}


def _relations(subject: CheckContext) -> Sequence[Any]:
    schema = subject.settings.store.schema_name
    return subject.rows("check_relations", schema=schema, relations=list(contracts.CONTRACT))


def _left_to_others(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find privileges that only other commands need; a warning if no other role could run them."""
    role = subject.rows("check_session")[0].role
    needs = privileges.of_people(_own_oids(subject))
    able = {(row.oid, row.privilege) for row in subject.rows("check_people", oids=[need.oid for need in needs])}
    for need in _lacking(subject, list(needs)):
        if (need.oid, need.privilege) not in able:
            yield CheckFinding(
                Level.WARNING,
                need.table,
                f"neither role {role} nor any other but the owner may run `sweeper {needs[need]}`",
                f"GRANT {need.grant} ON {need.table} TO {role}, or better to another role: see deploy/postgres/roles.sql",
            )
    texts = [privileges.to_read_text(row.oid, row.name) for row in _relations(subject) if row.relation == "messages"]
    for need in _lacking(subject, texts):
        text = (
            f"role {role} does not read what people wrote; `manifest build --with-text` would need {need.grant} on it"
        )
        yield CheckFinding(Level.OK, need.table, text)


def _indexes(subject: CheckContext) -> Iterator[CheckFinding]:
    for index in indexes.missing(subject.connection, subject.settings.store.schema_name, subject.contract):
        yield CheckFinding(Level.WARNING, index.table, index.effect, index.create)
    if views := indexes.unseen(subject.connection, subject.settings.store.schema_name):
        text = f"not looked at in what is neither a table nor a plain view: {', '.join(views)}"
        yield CheckFinding(Level.OK, "indexes", text, "see Your tables in the documentation for what is searched")


def _guards(subject: CheckContext) -> Iterator[CheckFinding]:
    for guard, refused in subject.settings.guards.off.items():
        text = f"guard {guard} is off: runs no longer refuse {refused}"
        yield CheckFinding(Level.WARNING, "guards", text, f"[guards] {GuardSettings.line(guard)}")


def _hazards(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find what makes a delete affect fewer or more rows than intended."""
    if subject.contract is not None:
        yield from hazards.hazards(subject.connection, subject.contract)
    for row in subject.rows("check_touched", oids=subject.oids):
        if row.secured:
            yield CheckFinding(
                Level.FAULT,
                row.name,
                "row-level security applies to this role: statements are refused rather than shown a part of the rows",
                f"ALTER ROLE {subject.rows('check_session')[0].role} BYPASSRLS",
            )
    for row in subject.rows("check_disabled", oids=subject.oids):
        yield CheckFinding(
            Level.FAULT,
            row.table,
            f"the trigger of foreign key {row.key} is disabled: children would be orphaned",
            f"ALTER TABLE {row.table} ENABLE TRIGGER ALL",
        )


ACTIONS = {"n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT", "a": "NO ACTION"}


def _reach(subject: CheckContext) -> Iterator[CheckFinding]:
    """Name the places outside of the tables where purged content lives on."""
    if subject.contract is not None:
        tables = vacuum.read(subject.connection, subject.contract)
        yield from reach.outside(subject.connection, subject.settings, tables)


def _keys(subject: CheckContext) -> Iterator[CheckFinding]:
    for branch in everything_below(subject.contract.conversations) if subject.contract else ():
        if branch.key.leads_back and branch.key.stored_action in ("a", "r"):
            yield CheckFinding(
                Level.WARNING,
                branch.table,
                f"{branch.key.name} leads from one conversation to another with ON DELETE {ACTIONS[branch.key.stored_action]}: "
                "a conversation that others point to is kept and counted as failed until those are gone",
                f"give {branch.key.name} ON DELETE SET NULL",
            )
        elif not branch.key.leads_back:
            yield from _key(branch.key)
    for branch in cycles(subject.contract.conversations) if subject.contract else ():
        yield CheckFinding(
            Level.WARNING,
            branch.table,
            f"{branch.key.name} leads from one conversation to another with ON DELETE CASCADE: a conversation that others point "
            "to is kept and counted as failed",
            f"give {branch.key.name} ON DELETE SET NULL",
        )


def _key(key: Key) -> Iterator[CheckFinding]:
    action = ACTIONS.get(key.stored_action)
    if key.action == "unset":
        yield CheckFinding(
            Level.WARNING,
            key.table,
            f"{key.name} is ON DELETE {action}: its rows stay when their conversation goes, with whatever they hold of it",
            f"if they should go, give {key.name} ON DELETE CASCADE or name the table in [[purge.children]]",
        )
    elif action in ("SET NULL", "SET DEFAULT"):
        yield CheckFinding(
            Level.WARNING,
            key.table,
            f"{key.name} is ON DELETE {action}, but the rows are content: the purge deletes them itself first",
            f"give {key.name} ON DELETE CASCADE",
        )
    elif action:
        yield CheckFinding(
            Level.WARNING,
            key.table,
            f"{key.name} is ON DELETE {action}: the purge deletes its rows itself first, which is slower",
            f"give {key.name} ON DELETE CASCADE",
        )


def _keyless(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find tables that look like children of a conversation and whose rows would be orphaned."""
    if subject.contract is None:
        return
    names = {"conversationid"} | {
        column.replace("_", "").lower()
        for branch in subject.family
        if branch.is_direct
        for column in branch.key.columns
    }
    outliving = [row.oid for row in _relations(subject) if row.relation in OUTLIVING]
    known = [*subject.oids, *outliving, *(branch.key.oid for branch in redactions(subject.contract.conversations))]
    rows = subject.rows(
        "check_unkeyed", schema=subject.settings.store.schema_name, oids=subject.oids, known=known, names=sorted(names)
    )
    for row in rows:
        yield CheckFinding(
            Level.WARNING,
            row.table,
            f"column {row.column} looks like a conversation's key but has no foreign key: its rows would be orphaned",
            f'[[purge.children]] table = "{row.setting}" key = "{row.column}"',
        )


def _feedback(subject: CheckContext) -> Iterator[CheckFinding]:
    if subject.contract is not None and subject.contract.feedback is None and subject.policy.feedback:
        yield CheckFinding(
            Level.WARNING,
            "feedback",
            "the relation is a view and its table is not named: feedback that is due cannot be purged",
            '[purge.feedback] table = "…"',
        )


def _objects(subject: CheckContext) -> Iterator[CheckFinding]:
    if subject.contract is None:
        return
    if subject.settings.objects.prefixes:
        yield from _file_systems(subject.settings.objects.prefixes)
        return
    schema = subject.settings.store.schema_name
    waiting = _value(subject, "objects_count", store=schema) if subject.revision == migrate.HEAD else 0
    if waiting or _value(subject, "check_objects"):
        yield CheckFinding(
            Level.WARNING,
            "objects",
            "attachments name objects and [objects] prefixes is empty: no object is removed"
            + (f", and {waiting} objects of purged attachments are still there" if waiting else ""),
            '[objects] prefixes = ["s3://bucket/"], with the places whose objects may be removed',
        )


def _value(subject: CheckContext, name: str, **parameters: Any) -> Any:
    """Return the single value of a statement; None if it fails, since a missing privilege is a finding of its own."""
    try:
        with subject.connection.begin_nested():
            return subject.rows(name, **parameters)[0][0]
    except DBAPIError:
        return None


def _file_systems(prefixes: Sequence[str]) -> Iterator[CheckFinding]:
    """Find prefixes whose file system fsspec does not know or cannot import."""
    for prefix in prefixes:
        protocol = prefix.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            yield CheckFinding(
                Level.FAULT,
                "objects",
                f"no object below {prefix} can be removed: {error}",
                f"install what fsspec needs for {protocol}, or take {prefix} out of [objects] prefixes",
            )


JOINED = (
    ("accounts", "id", "conversations", "account_id"),
    ("accounts", "id", "plan_changes", "account_id"),
    ("accounts", "id", "consent_events", "account_id"),
    ("conversations", "id", "messages", "conversation_id"),
    ("conversations", "id", "attachments", "conversation_id"),
)


def _types(subject: CheckContext) -> Iterator[CheckFinding]:
    for left, key, right, column in JOINED:
        one, other = subject.types.get(left, {}).get(key), subject.types.get(right, {}).get(column)
        if one and other and one != other:
            yield CheckFinding(
                Level.FAULT,
                f"{right}.{column}",
                f"is {other}, but {left}.{key} is {one}: they cannot be joined by an index",
                f"give both one type, for instance with a cast in a view and an index on it: {one}",
            )


def _unlocked(subject: CheckContext) -> Iterator[CheckFinding]:
    """Find tables behind the conversations view whose rows no batch locks."""
    if subject.contract is None:
        return
    schema = subject.settings.store.schema_name
    root = subject.contract.conversations
    others = [
        r.name for r in subject.rows("base_tables", schema=schema, relations=["conversations"]) if r.oid != root.oid
    ]
    if others:
        yield CheckFinding(
            Level.WARNING,
            f"{schema}.conversations",
            f"it also reads {', '.join(others)}, whose rows no batch locks: a batch may miss a change there in the fraction of a "
            "second before its commit (accounts, histories, holds and orders are read again before the commit)",
            f"select only columns of {root.table}, or make whatever changes {others[0]} also update the row of {root.table}",
        )


CHECKS: tuple[Callable[[CheckContext], Iterator[CheckFinding]], ...] = (
    _server,
    _clock,
    _policy,
    _own_tables,
    _privileges,
    _left_to_others,
    _guards,
    _indexes,
    _hazards,
    _reach,
    _keys,
    _keyless,
    _unlocked,
    _feedback,
    _objects,
    _types,
)
