"""Tries what a batch does, on a few real records and on a canary, in transactions that are rolled back.

Invariant: nothing stays and nothing is waited for. Each record is deleted by itself under the locks of a batch, and one that
others hold locked is left out. A rollback does not undo everything: sequences advance, and what a trigger does on another server
(dblink, HTTP) stays done. Where triggers look like that, nothing is tried unless the user asks for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from secrets import randbits
from typing import Any, Literal

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.store import evidence, hazards, purge
from sweeper.store.canary import Canary, NotMadeError
from sweeper.store.contract import Contract
from sweeper.store.database import IDLE_MS, Database, is_gone, sqlstate, wordless_reason
from sweeper.store.evidence import Run, Tombstone
from sweeper.store.family import branches, everything_below
from sweeper.store.finding import CheckFinding, Level
from sweeper.store.purge import ChangedError, ChildrenLockedError, MismatchError, Patience
from sweeper.store.statement import quoted, statement
from sweeper.store.tree import Physical

SAMPLE = 5
"""So many records are tried from each end of the keys, and so many that have rows in each table below."""
CHILDREN_AT_MOST = 1_000
"""Conversations with more children are left out: a trial is quick."""
LOCK_MS = 50
STATEMENT_MS = 3_000
LOOK_SECONDS = 3.0
"""How long the tables that were written to are looked through, all in all: what triggers have updated is locked meanwhile."""
RULE = "trial"
OTHERS = frozenset({"40001", "40P01", "55P03", "57014"})
"""SQLSTATEs that come from what others do at the moment, or from a statement that took too long."""
REMEDIES: Mapping[str, str] = {
    "23503": "give that key ON DELETE CASCADE or SET NULL, or name its table in [[purge.children]]",
    "42501": "GRANT that to the role as which the job, or the trigger's function, runs",
    "55000": "ALTER TABLE that table REPLICA IDENTITY FULL, or give it a primary key",
}
AS_OWNER = (
    "run `sweeper check` once as a superuser, or as a role that may write the store's tables and do the job's work"
)


def findings(database: Database, contract: Contract, clock: Clock, *, wanted: bool | None) -> list[CheckFinding]:
    """What came of the trial.

    Args:
        database: the store's database.
        contract: the store as found.
        clock: for the tombstones that are rolled back.
        wanted: whether to try; None: unless a trigger looks as if it acted outside of the transaction.
    """
    if wanted is False:
        return [CheckFinding(Level.OK, "trial", "not taken, as asked", "sweeper check --trial")]
    found: list[CheckFinding] = []
    looked: set[int] = set()
    functions = database.within(lambda connection: hazards.outside(connection, contract)) if wanted is None else ()
    if functions:
        text = f"not taken: {', '.join(functions)} may act outside of the transaction, where nothing is rolled back"
        return [CheckFinding(Level.WARNING, "trial", text, "where that does no harm: sweeper check --trial")]
    for part in (_canary, _sample):
        try:
            with _rolled_back(database) as connection:
                found += part(_Trial(connection, contract, clock.now()), looked)
        except DBAPIError as error:
            text = f"not taken to its end: {wordless_reason(error)}"
            found.append(CheckFinding(Level.WARNING, "trial", text, "see the other findings and the server's log"))
    return found


class _UndoneError(Exception):
    """Raised to roll a transaction back."""


@contextmanager
def _rolled_back(database: Database) -> Iterator[Connection]:
    """A transaction that never commits."""
    limits = {"lock_timeout_ms": LOCK_MS, "statement_timeout_ms": STATEMENT_MS, "idle_timeout_ms": IDLE_MS}
    with suppress(_UndoneError), database.transaction(**limits) as connection:
        yield connection
        raise _UndoneError


@dataclass
class _Trial:
    """What one transaction tries, and what came of it: records tried, those left out, and the ids that failed for each reason."""

    connection: Connection
    contract: Contract
    now: datetime
    tried: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    failed: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        begun = self.connection.execute(statement("trial_begin")).one()
        self.began, self.counts_writes = begun.began, begun.counted
        self.before = {row.oid: row for row in self._written()}
        asked = {"store": self.contract.schema, "as_of": self.now, "policy_name": RULE, "policy_digest": RULE}
        told = {
            "token": -1 - randbits(62),
            "approval": None,
            "started_at": self.now,
            "kind": "run",
            "backfill_id": None,
        }
        run_id = self.connection.execute(statement("run_open"), {**asked, **told}).scalar_one()
        self.run = Run(run_id, self.contract.schema, self.now, RULE, approved=False)

    def written(self) -> Iterator[tuple[Row[Any], int, int]]:
        """The tables that the transaction has written to, with the rows it inserted and updated, those undone since included."""
        for row in self._written():
            was = self.before.get(row.oid)
            inserted, updated = (
                (row.inserted - was.inserted, row.updated - was.updated) if was else (row.inserted, row.updated)
            )
            if inserted or updated:
                yield row, inserted, updated

    def _written(self) -> list[Row[Any]]:
        purged = hazards.purged_tables(self.contract)
        return list(self.connection.execute(statement("trial_written"), {"oids": purged}))

    def conversation(self, id_: str) -> None:
        """Delete a conversation as a batch does: count, delete, tombstone, deferred triggers."""
        counted = purge.count_children(self.connection, self.contract.conversations, [id_])
        if sum(counted[id_].values()) > CHILDREN_AT_MOST:
            raise ChildrenLockedError("it has more children than a trial takes")
        patience = Patience(STATEMENT_MS / 1000)
        children = purge.delete(self.connection, self.contract, [id_], self.run.id, patience)
        self._bury("conversation", id_, children[id_])

    def feedback(self, id_: str) -> None:
        """Delete a feedback row as a batch does."""
        if self.contract.feedback is not None:
            purge.delete_feedback(self.connection, self.contract.feedback, [id_])
            self._bury("feedback", id_, {})

    def _bury(self, kind: Literal["conversation", "feedback"], id_: str, children: Mapping[str, int]) -> None:
        tombstone = Tombstone(id_, id_, None, RULE, self.now, children)
        evidence.bury(self.connection, self.run, kind, [tombstone], self.now)
        purge.run_deferred(self.connection)

    def attempt(self, kind: str, id_: str, table: Physical, work: Callable[[str], None]) -> None:
        """Lock a record, do the work on it and undo it; what fails is kept."""
        savepoint = self.connection.begin_nested()
        rows = 0
        try:
            rows = len(purge.lock(self.connection, table, [id_]))
            if rows:
                work(id_)
                self.tried[kind] += 1
            else:
                self.left_out += len(purge.still_there(self.connection, table, [id_]))
        except (ChildrenLockedError, ChangedError):
            self.left_out += 1
        except MismatchError as error:
            text, remedy = str(error), "see the other findings about that table"
            if rows > 1:
                text = f"{table.table} has several rows of one record, and a batch undoes itself unless it deletes one"
                remedy = "name the table that has one row a conversation in [purge], and this one in [[purge.children]]"
            self._fail(kind, id_, text, remedy)
        except DBAPIError as error:
            if is_gone(error):
                raise
            if sqlstate(error) in OTHERS:
                self.left_out += 1
            else:
                other = "let whatever refuses it pass for the job's role"
                self._fail(kind, id_, wordless_reason(error), REMEDIES.get(sqlstate(error) or "", other))
        finally:
            if savepoint.is_active:
                savepoint.rollback()

    def _fail(self, kind: str, id_: str, text: str, remedy: str) -> None:
        self.tried[kind] += 1
        self.failed[kind, text, remedy].append(id_)


def _sample(trial: _Trial, looked: set[int]) -> Iterator[CheckFinding]:
    """Try a few real records; `looked`: tables of which the canary has told already whether they keep anything."""
    contract = trial.contract
    for id_ in sorted(_some_conversations(trial)):
        trial.attempt("conversations", id_, contract.conversations, trial.conversation)
    if contract.feedback is not None:
        for id_ in sorted(_some(trial, contract.feedback)):
            trial.attempt("feedback rows", id_, contract.feedback, trial.feedback)
    for (kind, text, remedy), ids in trial.failed.items():
        told = f"{len(ids)} of {trial.tried[kind]} {kind} that were tried could not be purged, for instance {ids[0]}: {text}"
        yield CheckFinding(Level.FAULT, "trial", told, remedy)
    yield from _unlooked(trial, looked)
    named = " and ".join(f"{count} {kind}" for kind, count in sorted(trial.tried.items())) or "no record"
    left_out = f"; {trial.left_out} were locked by others or too large to try" if trial.left_out else ""
    yield CheckFinding(Level.OK, "trial", f"{named} deleted in a transaction that was rolled back{left_out}")


def _unlooked(trial: _Trial, looked: set[int]) -> Iterator[CheckFinding]:
    """Tables that something wrote to while real records were deleted, where no canary says whether content went there."""
    contract = trial.contract
    if not trial.counts_writes:
        text = "track_counts is off: nobody can tell which tables triggers write to, and none was looked at"
        yield CheckFinding(
            Level.WARNING, "trial", text, "SET track_counts = on for this role; autovacuum needs it, too"
        )
    known = {contract.conversations.oid, *(branch.key.oid for branch in everything_below(contract.conversations))}
    for row, inserted, updated in trial.written():
        rows = inserted + (0 if row.tied else updated)
        if rows and row.oid not in looked | known:
            text = f"{rows} rows were written there while records were deleted; whether they hold content was not looked at"
            yield CheckFinding(Level.WARNING, row.table, text, AS_OWNER)


def _some_conversations(trial: _Trial) -> set[str]:
    """A few conversations: from both ends of the keys, with several rows, with rows in each table below, with feedback."""
    root = trial.contract.conversations
    found = _some(trial, root)
    for branch in branches(root):
        if branch.is_direct:
            found |= _owners(trial, branch.table, branch.key.columns[0])
    if trial.contract.type("feedback", "conversation_id") == root.type:
        found |= _owners(trial, "feedback", "conversation_id")
    return found


def _some(trial: _Trial, table: Physical) -> set[str]:
    return _ids(trial, "trial_sample", table=table.table, key=quoted(table.key))


def _owners(trial: _Trial, table: str, column: str) -> set[str]:
    return _ids(trial, "trial_owners", table=table, column=quoted(column))


def _ids(trial: _Trial, name: str, **names: str) -> set[str]:
    """The ids of a statement; none where it takes too long."""
    try:
        with trial.connection.begin_nested():
            rows = trial.connection.execute(statement(name, **names), {"some": SAMPLE})
            return {row.id for row in rows}
    except DBAPIError as error:
        if is_gone(error) or sqlstate(error) not in OTHERS:
            raise
        return set()


def _canary(trial: _Trial, looked: set[int]) -> Iterator[CheckFinding]:
    """Purge a conversation made for that, and look for its text wherever something was written meanwhile."""
    canary = Canary(trial.contract, trial.now)
    try:
        canary.insert(trial.connection)
    except NotMadeError as error:
        yield CheckFinding(Level.OK, "canary", f"not tried: {error}", AS_OWNER)
        return
    for table, why in canary.missing.items():
        yield CheckFinding(Level.OK, "canary", f"nothing could be marked in {table}: {why}")
    if not canary.marked:
        yield CheckFinding(Level.OK, "canary", "not tried: nothing could be marked", AS_OWNER)
        return
    found: list[CheckFinding] = []

    def purge_and_look(id_: str) -> None:
        trial.conversation(id_)
        if canary.feedback_id:
            trial.feedback(canary.feedback_id)
        found.extend(_survivors(trial, canary, looked))

    trial.attempt("canary", canary.id, trial.contract.conversations, purge_and_look)
    for _, text, remedy in trial.failed:
        yield CheckFinding(
            Level.FAULT, "canary", f"a conversation made for the trial could not be purged: {text}", remedy
        )
    yield from found
    if not trial.failed and not found and trial.counts_writes:
        text = f"marked text in {', '.join(canary.marked)} was purged, and no table that was written to meanwhile keeps any"
        yield CheckFinding(Level.OK, "canary", text)


def _survivors(trial: _Trial, canary: Canary, looked: set[int]) -> Iterator[CheckFinding]:
    """Where text of the canary is left, and where it could not be looked for."""
    time = Patience(LOOK_SECONDS)
    for row, inserted, updated in trial.written():
        rows = inserted - canary.own[row.oid] + updated
        if not rows:
            continue
        marks, why = _marks(trial, row, canary, time)
        looked.add(row.oid)
        if marks:
            sources = ", ".join(sorted({canary.sources[mark] for mark in marks}))
            text = f"it keeps what stood in {sources}: text of a conversation made for the trial was there after that was purged"
            remedy = f"let whatever writes to {row.table} leave content out, or delete it with its conversation"
            yield CheckFinding(Level.FAULT, row.table, text, remedy)
        elif why:
            text = f"{rows} rows were written there while the canary was made and purged; with its text or not: {why}"
            yield CheckFinding(Level.WARNING, row.table, text, "look whether what is written there holds content")


def _marks(trial: _Trial, row: Row[Any], canary: Canary, time: Patience) -> tuple[list[str], str]:
    """Which marks a table holds in rows of the transaction, or why that is not known."""
    if not row.readable:
        return [], "the role may not read it"
    milliseconds = int(time.left * 1000)
    if milliseconds <= 0:
        return [], "the others took too long to look through"
    asked = {"marks": list(canary.sources), "began": trial.began}
    try:
        with trial.connection.begin_nested():
            purge.bound_statement(trial.connection, milliseconds)
            rows = trial.connection.execute(statement("trial_marks", table=row.table), asked)
            return [found.mark for found in rows], ""
    except DBAPIError as error:
        if is_gone(error):
            raise
        return [], wordless_reason(error)
