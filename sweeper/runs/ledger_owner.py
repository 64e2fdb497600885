"""Decides whether an exported ledger belongs to this store, by its runs and by the log of the restored database.

Invariant: the origin of a log proves nothing, since `[evidence] origin` may name many logs alike, and an id of one store is
another record elsewhere. Neither do identity and an old checkpoint in common: a copy of the database has both. A ledger of
another database is always refused; one in doubt needs a person to vouch for it.
"""

import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sweeper.errors import RefusedError
from sweeper.evidence import checkpoint
from sweeper.evidence import leaf as leaves
from sweeper.evidence import ledger as stored
from sweeper.evidence.export import Ledger, OpenedRun
from sweeper.evidence.merkle import Edge, leaf_hash
from sweeper.postgres import store_counts
from sweeper.runs.job import Job

PORTION = 256
"""The number of events in memory at a time."""
REMEDY = "Restore schema sweeper (sweeper.identity) with the store, or name the ledger of this one."


@dataclass(frozen=True)
class LedgerClaim:
    """Why a ledger was accepted as this store's own.

    `runs`: the runs of this store in it. `identity`: the database that its runs name, None if none does.
    `confirmed`: the digest by which a person vouched for it, if one had to.
    """

    runs: frozenset[int | str] = field(default=frozenset(), repr=False)
    identity: str | None = None
    confirmed: str | None = None


def claim(job: Job, ledger: Ledger, confirmed: str | None = None) -> LedgerClaim:
    """Check that a ledger belongs to this store.

    Args:
        job: on the restored store.
        ledger: verified against its checkpoint.
        confirmed: the digest from an earlier refusal, by which a person vouches for a ledger in doubt.

    Raises:
        RefusedError: the ledger belongs to another database or store, or is in doubt and nobody vouches for it.
    """
    with job.database.transaction() as connection:
        origin, identity = checkpoint.origin(connection, job.settings), store_counts.database_identity(connection)
    _refuse_other_log(ledger, origin)
    runs = list(ledger.opened())
    _refuse_other_database(ledger, runs, identity)
    _refuse_storeless(ledger, runs, job.contract.schema)
    if not runs:
        return LedgerClaim()
    ours = frozenset(run.run_id for run in runs if run.store in (job.contract.schema, None))
    named_identity = (
        identity if any(run.identity for run in runs) else None
    )  # a log belongs to one database, so that one run that names it is enough
    history = _history(job, ledger)
    if named_identity and history.is_continued:
        return LedgerClaim(ours, named_identity)
    return LedgerClaim(
        ours, named_identity, _refuse_unconfirmed(job, ledger, history, identity, named_identity, confirmed)
    )


def _refuse_other_log(ledger: Ledger, origin: str) -> None:
    if ledger.tree.origin != origin:
        raise RefusedError(
            "ledger",
            f"{ledger.path} is the ledger of {ledger.tree.origin}.",
            f"This database's is {origin}.",
            REMEDY,
        )


def _refuse_other_database(ledger: Ledger, runs: Sequence[OpenedRun], identity: str) -> None:
    for run in runs:
        if run.identity not in (None, identity):
            raise RefusedError(
                "ledger",
                f"{ledger.path} has run {run.run_id} of the database {run.identity}.",
                f"This is the database {identity}: an id there is another record here.",
                REMEDY,
            )


def _refuse_storeless(ledger: Ledger, runs: Sequence[OpenedRun], own: str) -> None:
    """Refuse a ledger with runs of other stores only: it would silently purge nothing."""
    known = {run.store or own for run in runs}
    if known and own not in known:
        raise RefusedError(
            "ledger",
            f"{ledger.path} has runs of: {', '.join(sorted(known))}.",
            f"It has no run of this store, {own}.",
            "Restore under the schema's old name, or name the schema in [store] schema.",
        )


def _refuse_unconfirmed(
    job: Job, ledger: Ledger, history: "_History", identity: str, named_identity: str | None, confirmed: str | None
) -> str:
    """Return the digest by which a person vouches for a ledger; it is valid for this ledger, database and store only."""
    if named_identity is None and history.contradicts:
        raise RefusedError(
            "ledger",
            f"{ledger.path} does not name its database, and {history}: it belongs to another database.",
            "",
            REMEDY,
        )
    bound = f"{identity}\n{job.contract.schema}\n{ledger.tree.text()}"
    digest = hashlib.sha256(bound.encode()).hexdigest()[:16]
    if confirmed == digest:
        return digest
    wrong = "" if confirmed is None else f"{confirmed!r} is not the digest of this ledger for this store. "
    whose = (
        "is of an earlier version, and its runs do not name their database; several logs may have its name"
        if named_identity is None
        else "names this database's identity, which a copy of the database has as well"
    )
    raise RefusedError(
        "ledger",
        f"{ledger.path} {whose}; {history}.",
        "",
        f"{wrong}Make sure that it was exported from the very database of whose backup this one ({identity}) was restored; then "
        f"give --accept-ledger {digest}, first with --dry-run.",
    )


@dataclass(frozen=True)
class _History:
    """How a ledger relates to the log of this database; a restored backup holds an earlier state of the same log."""

    checkpoints: int
    newest: int
    """Size of the newest checkpoint of this database; 0 if there is none."""
    common: int | None
    """Size of the newest checkpoint of this database that the ledger continues; None if there is none."""
    reach: int
    """Size of the ledger."""
    unknown: Sequence[Any]
    """The runs of this database whose events are not in the ledger."""
    reapplied: Set[str | None]
    """How earlier reapplications of this ledger were accepted here: the digest that a person gave, or None if none was needed."""

    @property
    def is_continued(self) -> bool:
        """True if the ledger contains this database's log, apart from what followed a `reapply` of that ledger."""
        return None in self.reapplied or (self.common == self.newest and not self.unknown)

    @property
    def contradicts(self) -> bool:
        """True if this database has checkpoints, the ledger continues none of them, and it was never reapplied here."""
        return self.checkpoints > 0 and self.common is None and not self.reapplied

    def __str__(self) -> str:
        if not self.checkpoints:
            return "this database has no checkpoint to compare with"
        if self.common is None:
            return f"it continues none of the {self.checkpoints} checkpoints of this database"
        if self.common < self.newest:
            return (
                f"it continues this database's checkpoint of {self.common} leaves, but not its newest one of {self.newest} (the "
                f"ledger has {self.reach}): the logs went different ways since, or the ledger is the older one"
            )
        if self.unknown:
            named = ", ".join(map(str, self.unknown[:5])) + (", …" if len(self.unknown) > 5 else "")
            return (
                f"it continues this database's newest checkpoint of {self.common} leaves, but does not have what was opened here "
                f"as run {named}: the logs went different ways since, or the ledger is the older one"
            )
        return f"it continues this database's newest checkpoint of {self.common} leaves, which supports it"


def _history(job: Job, ledger: Ledger) -> _History:
    known, newest = {}, 0
    for found in stored.checkpoints(job.database):
        known[found.size], newest = found.root, found.size
    opened, common = _run_ids_by_leaf_hash(job) if known else {}, None
    for size, hash_, root in _growing_tree(ledger, known.keys()):
        opened.pop(hash_, None)
        if root is not None and root == known[size]:
            common = size
    reapplied = job.database.within(
        lambda c: stored.reapplied(c, ledger.tree.origin, ledger.tree.size, ledger.tree.root)
    )
    return _History(len(known), newest, common, ledger.tree.size, list(opened.values()), reapplied)


def _run_ids_by_leaf_hash(job: Job) -> dict[bytes, Any]:
    """Return the ids of this database's runs by the hash of the leaf of their `run_opened` event, numbered or not."""
    found = {}
    with job.database.transaction() as connection:
        ids = stored.openings(connection)
        for begin in range(0, len(ids), PORTION):
            for _, columns in stored.rows(connection, "events", stored.ranges(ids[begin : begin + PORTION])):
                leaf = leaves.of("events", columns)
                found[leaf_hash(leaves.canonical(leaf))] = leaf["run_id"]
    return found


def _growing_tree(ledger: Ledger, sizes: Set[int]) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yield for each leaf of the ledger the size of the tree with it, its hash, and the root if the size is one of `sizes`."""
    edge = Edge(collects=False)
    for hash_ in ledger.hashes() if sizes else ():
        edge.append(hash_)
        yield edge.size, hash_, edge.root() if edge.size in sizes else None
