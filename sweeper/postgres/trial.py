"""Try to purge and redact a few real records and a canary in transactions that are rolled back; report what fails or survives.

Invariant: nothing is committed, and no lock is waited for. Each record is deleted by itself with the functions of a batch, and
records that others have locked are skipped. A rollback does not undo everything: sequences advance, and what a trigger does
outside of the transaction (dblink, HTTP) stays. Where triggers look like that, nothing is tried unless the user asks for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from secrets import randbits
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.policy.counts import Kind
from sweeper.postgres import evidence, hazards, purge, redaction
from sweeper.postgres.branches import branches, everything_below
from sweeper.postgres.canary import Canary, NotMadeError
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import IDLE_MS, Database, is_disconnected, sqlstate, wordless_reason
from sweeper.postgres.evidence import RunRecord, Tombstone
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.postgres.purge import ChangedError, ChildrenLockedError, LockBudget, MismatchError
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.postgres.statement import statement

SAMPLE = 5
"""How many records are tried from either end of the keys, and how many that have rows in each table below."""
CHILDREN_AT_MOST = 1_000
"""Conversations with more children are skipped, to keep the trial short."""
LOCK_MS = 50
STATEMENT_MS = 3_000
SEARCH_SECONDS = 3.0
"""How long all tables together are searched for the canary's text: rows that triggers have updated are locked meanwhile."""
RULE = "trial"
TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014"})
"""SQLSTATEs of conflicts with other transactions and of time-outs."""
REMEDIES: Mapping[str, str] = {
    "23503": "give that key ON DELETE CASCADE or SET NULL, or name its table in [[purge.children]]",
    "42501": "GRANT the privilege to the role that runs the job, or the trigger's function",
    "55000": "ALTER TABLE ... REPLICA IDENTITY FULL for that table, or give it a primary key",
}
AS_OWNER = "run `sweeper check` once as a superuser, or as a role that has the job's privileges and may write the store's tables"


def findings(database: Database, contract: Contract, clock: Clock, *, requested: bool | None) -> list[CheckFinding]:
    """Take the trial and return what it found.

    Args:
        database: the store's database.
        contract: the store as found.
        clock: dates the tombstones that are rolled back.
        requested: whether to take it; None: unless a trigger looks as if it acted outside of the transaction.
    """
    if requested is False:
        return [CheckFinding(Level.OK, "trial", "not taken, as asked", "sweeper check --trial")]
    found: list[CheckFinding] = []
    searched: set[int] = set()
    try:
        functions = database.within(lambda connection: hazards.outside(connection, contract))
        if functions and requested is None:
            text = (
                f"not taken: {', '.join(functions)} may act outside of the transaction, which a rollback would not undo"
            )
            return [CheckFinding(Level.WARNING, "trial", text, "if that does no harm: sweeper check --trial")]
        with _rolled_back(database) as connection:
            found += _canary(_begin(connection, contract, clock.now()), searched)
        with _rolled_back(database) as connection:
            found += _sample(_begin(connection, contract, clock.now()), searched)
    except DBAPIError as error:
        text = f"stopped before its end: {wordless_reason(error)}"
        found.append(CheckFinding(Level.WARNING, "trial", text, "see the other findings and the server's log"))
    return found


class _RollBackError(Exception):
    """Ends a transaction without a commit."""


@contextmanager
def _rolled_back(database: Database) -> Iterator[Connection]:
    """A transaction that is always rolled back."""
    limits = {"lock_timeout_ms": LOCK_MS, "statement_timeout_ms": STATEMENT_MS, "idle_timeout_ms": IDLE_MS}
    with suppress(_RollBackError), database.transaction(**limits) as connection:
        yield connection
        raise _RollBackError


@dataclass
class _Trial:
    """One transaction of the trial.

    `began`: its number, by which the rows that it writes are known. `counts_writes`: whether the server counts rows written.
    `before`: those counts at its beginning. `failed`: the ids that failed, by kind, reason and remedy.
    """

    connection: Connection
    contract: Contract
    run: RunRecord
    began: str
    counts_writes: bool
    before: Mapping[int, Row[Any]]
    tried: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    failed: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def written(self) -> Iterator[tuple[Row[Any], int, int]]:
        """Yield each table with the numbers of rows that the transaction inserted and updated there, undone or not."""
        for row in _written(self.connection, self.contract):
            before = self.before.get(row.oid)
            inserted = row.inserted - (before.inserted if before else 0)
            updated = row.updated - (before.updated if before else 0)
            if inserted or updated:
                yield row, inserted, updated

    def purge_conversation(self, id_: str) -> None:
        """Delete a conversation as a batch does: count, delete, tombstone, deferred triggers."""
        counted = purge.count_children(self.connection, self.contract.conversations, [id_])
        if sum(counted[id_].values()) > CHILDREN_AT_MOST:
            raise ChildrenLockedError("it has more children than a trial deletes")
        budget = LockBudget(STATEMENT_MS / 1000)
        children = purge.delete(self.connection, self.contract, [id_], self.run.id, budget)
        self._record("conversation", id_, children[id_])

    def redact_conversation(self, id_: str) -> None:
        """Redact a conversation as a batch does."""
        budget = LockBudget(STATEMENT_MS / 1000)
        children = redaction.redact(self.connection, self.contract, [id_], budget, lambda: None)
        self._record("redaction", id_, children[id_])

    def purge_feedback(self, id_: str) -> None:
        """Delete a feedback row as a batch does."""
        if self.contract.feedback is not None:
            purge.delete_exactly(self.connection, self.contract.feedback, [id_])
            self._record("feedback", id_, {})

    def _record(self, kind: Kind, id_: str, children: Mapping[str, int]) -> None:
        at = self.run.as_of
        evidence.insert_tombstones(self.connection, self.run, kind, [Tombstone(id_, id_, None, RULE, at, children)], at)
        purge.run_deferred(self.connection)

    def attempt(self, kind: str, id_: str, table: PhysicalTable, work: Callable[[str], None]) -> None:
        """Lock a record, do the work on it, and roll both back; a failure is kept in `failed`."""
        savepoint = self.connection.begin_nested()
        rows = 0
        try:
            rows = purge.lock(self.connection, table, [id_]).total()
            if rows:
                work(id_)
                self.tried[kind] += 1
            else:
                self.skipped += bool(purge.existing(self.connection, table, [id_]))
        except (ChildrenLockedError, ChangedError):
            self.skipped += 1
        except MismatchError as error:
            text, remedy = str(error), "see the other findings about that table"
            if rows > 1:
                text = f"{table.table} has several rows of one record, and a batch that deletes more than one is rolled back"
                remedy = (
                    "name the table with one row a conversation in [purge], and this one in [[purge.children]]; "
                    "or, if there is none, set [purge] many_rows = true"
                )
            self._fail(kind, id_, text, remedy)
        except DBAPIError as error:
            if is_disconnected(error):
                raise
            if sqlstate(error) in TRANSIENT:
                self.skipped += 1
            else:
                remedy = REMEDIES.get(
                    sqlstate(error) or "", "change what refuses it, so that the job's role may delete"
                )
                self._fail(kind, id_, wordless_reason(error), remedy)
        finally:
            if savepoint.is_active:
                savepoint.rollback()

    def _fail(self, kind: str, id_: str, text: str, remedy: str) -> None:
        self.tried[kind] += 1
        self.failed[kind, text, remedy].append(id_)


def _begin(connection: Connection, contract: Contract, now: datetime) -> _Trial:
    """Open a run that is never committed, for tombstones to refer to."""
    started = connection.execute(statement("trial_begin")).one()
    before = {row.oid: row for row in _written(connection, contract)}
    columns = {
        "store": contract.schema,
        "as_of": now,
        "policy_name": RULE,
        "policy_digest": RULE,
        "token": -1 - randbits(62),  # no other run has it, so that nobody is waited for
        "approval": None,
        "started_at": now,
        "kind": "run",
        "backfill_id": None,
    }
    run_id = connection.execute(statement("run_open"), columns).scalar_one()
    run = RunRecord(run_id, contract.schema, now, RULE, approved=False)
    return _Trial(connection, contract, run, started.began, started.counted, before)


def _written(connection: Connection, contract: Contract) -> list[Row[Any]]:
    return list(connection.execute(statement("trial_written"), {"oids": hazards.purged_tables(contract)}))


def _sample(trial: _Trial, searched: set[int]) -> Iterator[CheckFinding]:
    """Try a few real records. `searched`: tables of which the canary has shown whether they keep content."""
    contract = trial.contract
    some = sorted(_some_conversations(trial))
    for id_ in some:
        trial.attempt("conversations", id_, contract.conversations, trial.purge_conversation)
    for id_ in sorted(redaction.with_content(trial.connection, contract, some)):
        trial.attempt("redactions", id_, contract.conversations, trial.redact_conversation)
    if contract.feedback is not None:
        for id_ in sorted(_some(trial, contract.feedback)):
            trial.attempt("feedback rows", id_, contract.feedback, trial.purge_feedback)
    for (kind, reason, remedy), ids in trial.failed.items():
        text = f"{len(ids)} of {trial.tried[kind]} {kind} that were tried could not be purged, for instance {ids[0]}: {reason}"
        yield CheckFinding(Level.FAULT, "trial", text, remedy)
    yield from _unsearched(trial, searched)
    tried = " and ".join(f"{count} {kind}" for kind, count in sorted(trial.tried.items())) or "no record"
    skipped = f"; {trial.skipped} were skipped, locked by others or too large" if trial.skipped else ""
    yield CheckFinding(Level.OK, "trial", f"tried to delete {tried} and rolled it back{skipped}")


def _unsearched(trial: _Trial, searched: set[int]) -> Iterator[CheckFinding]:
    """Tables that something wrote to while real records were deleted, and that no canary has shown to be free of content."""
    if not trial.counts_writes:
        text = "track_counts is off: the tables that triggers write to are not known, and none was searched"
        yield CheckFinding(
            Level.WARNING, "trial", text, "SET track_counts = on for this role; autovacuum needs it, too"
        )
    root = trial.contract.conversations
    known = {root.oid, *(branch.key.oid for branch in everything_below(root))}
    for row, inserted, updated in trial.written():
        rows = inserted + (0 if row.tied else updated)
        if rows and row.oid not in searched | known:
            text = f"{rows} rows were written there while records were deleted; they were not searched for content"
            yield CheckFinding(Level.WARNING, row.table, text, AS_OWNER)


def _some_conversations(trial: _Trial) -> set[str]:
    """A few ids: from either end of the keys, with several rows, with rows in each table below, and with feedback."""
    root = trial.contract.conversations
    found = _some(trial, root)
    for branch in branches(root):
        if branch.is_direct:
            found |= _owners(trial, branch.table, branch.key.reference("t"))
    if trial.contract.type("feedback", "conversation_id") == root.type:
        found |= _owners(trial, "feedback", "t.conversation_id")
    return found


def _some(trial: _Trial, table: PhysicalTable) -> set[str]:
    return _ids(trial, "trial_sample", table=table.table, key=table.reference("t"))


def _owners(trial: _Trial, table: str, key: str) -> set[str]:
    return _ids(trial, "trial_owners", table=table, key=key)


def _ids(trial: _Trial, name: str, **names: str) -> set[str]:
    """The ids that a statement selects; none if it takes too long."""
    try:
        with trial.connection.begin_nested():
            return {row.id for row in trial.connection.execute(statement(name, **names), {"some": SAMPLE})}
    except DBAPIError as error:
        if is_disconnected(error) or sqlstate(error) not in TRANSIENT:
            raise
        return set()


def _canary(trial: _Trial, searched: set[int]) -> Iterator[CheckFinding]:
    """Insert a marked conversation, purge it, and search what was written to for its text; adds those tables to `searched`."""
    canary = Canary(trial.contract, trial.run.as_of)
    try:
        canary.insert(trial.connection)
    except NotMadeError as error:
        yield CheckFinding(Level.OK, "canary", f"not tried: {error}", AS_OWNER)
        return
    for table, reason in canary.missing.items():
        yield CheckFinding(Level.OK, "canary", f"nothing could be marked in {table}: {reason}")
    if not canary.marked:
        yield CheckFinding(Level.OK, "canary", "not tried: nothing could be marked", AS_OWNER)
        return
    found: list[CheckFinding] = []

    def purge_and_search(id_: str) -> None:
        trial.purge_conversation(id_)
        if canary.feedback_id:
            trial.purge_feedback(canary.feedback_id)
        found.extend(_survivors(trial, canary, searched))

    trial.attempt("canary", canary.id, trial.contract.conversations, purge_and_search)
    for _, reason, remedy in trial.failed:
        text = f"a conversation made for the trial could not be purged: {reason}"
        yield CheckFinding(Level.FAULT, "canary", text, remedy)
    yield from found
    if trial.skipped:
        yield CheckFinding(Level.WARNING, "canary", "not purged: locks or a time-out were in the way", "check again")
    elif not trial.failed and not found and trial.counts_writes:
        text = f"marked text in {', '.join(canary.marked)} was purged, and no table that was written to meanwhile keeps any"
        yield CheckFinding(Level.OK, "canary", text)


def _survivors(trial: _Trial, canary: Canary, searched: set[int]) -> Iterator[CheckFinding]:
    """Tables that keep text of the canary, and those that could not be searched."""
    budget = LockBudget(SEARCH_SECONDS)
    for row, inserted, updated in trial.written():
        rows = inserted - canary.own[row.oid] + updated
        if not rows:
            continue
        marks, obstacle = _search(trial, row, canary, budget)
        if marks:
            sources = ", ".join(sorted({canary.sources[mark] for mark in marks}))
            text = f"it keeps text of {sources}: that of a conversation made for the trial was there after the purge"
            remedy = f"change what writes to {row.table}: without content, or deleted with its conversation"
            yield CheckFinding(Level.FAULT, row.table, text, remedy)
        elif obstacle:
            text = f"{rows} rows were written there with the canary and could not be searched for its text: {obstacle}"
            yield CheckFinding(Level.WARNING, row.table, text, "look whether what is written there holds content")
        if marks or obstacle or not canary.missing:
            searched.add(row.oid)


def _search(trial: _Trial, row: Row[Any], canary: Canary, budget: LockBudget) -> tuple[list[str], str]:
    """The marks in rows of a table that the transaction wrote; or why it could not be searched."""
    milliseconds = int(budget.left * 1000)
    if not row.readable:
        return [], "the role may not read it"
    if milliseconds <= 0:
        return [], "other tables took too long"
    parameters = {"marks": list(canary.sources), "began": trial.began}
    try:
        with trial.connection.begin_nested():
            purge.bound_statement(trial.connection, milliseconds)
            rows = trial.connection.execute(statement("trial_marks", table=row.table), parameters)
            return [found.mark for found in rows], ""
    except DBAPIError as error:
        if is_disconnected(error):
            raise
        return [], wordless_reason(error)
