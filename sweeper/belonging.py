"""Whether an exported ledger is this store's own, by what its runs tell and by the log that the restored database has.

The law of this file: the name of a log proves nothing, for `[evidence] origin` may give one name to many, and ids of one store
mean something else in another. A ledger of another database has no way in; one that is in doubt needs a person who vouches.
"""

import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sweeper.audit import checkpoint
from sweeper.audit import leaf as leaves
from sweeper.audit.export import Ledger, Opened
from sweeper.core.merkle import Edge, leaf_hash
from sweeper.errors import RefusedError
from sweeper.job import Job
from sweeper.store import ledger as stored


@dataclass(frozen=True)
class Claim:
    """How a ledger was found to be this store's own.

    `runs`: those of this store that it tells of. `identity`: the database that runs of it tell, None where none does.
    `confirmed`: the digest by which a person vouched for it, where that was asked for.
    """

    runs: frozenset[int | str] = frozenset()
    identity: str | None = None
    confirmed: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For machines, and for the event that is left."""
        return {"identity": self.identity, "confirmed": self.confirmed}


def claim(job: Job, ledger: Ledger, confirmed: str | None = None) -> Claim:
    """What shows that a ledger is this store's own.

    Args:
        job: on the store that was restored.
        ledger: held against its checkpoint.
        confirmed: the digest that a refusal printed, where a person vouches for a ledger that is not shown to be this store's.

    Raises:
        RefusedError: nothing shows it, or something shows that it is another's.
    """
    with job.database.transaction() as connection:
        origin, identity = checkpoint.origin(connection, job.settings), stored.identity(connection)
    _refuse_other_log(ledger, origin)
    runs = list(ledger.opened())
    _refuse_other_database(ledger, runs, identity)
    _refuse_storeless(ledger, runs, job.contract.schema)
    if not runs:
        return Claim()
    ours = frozenset(run.run_id for run in runs if run.store in (job.contract.schema, None))
    told = identity if any(run.identity for run in runs) else None  # one log: who tells it in one run tells it of all
    history = _history(job, ledger)
    if told and not history.contradicts:
        return Claim(ours, told)
    return Claim(ours, told, _vouched(job, ledger, history, identity, told, confirmed))


def _refuse_other_log(ledger: Ledger, origin: str) -> None:
    if ledger.tree.origin != origin:
        raise RefusedError(
            "ledger",
            f"{ledger.path} is the ledger of {ledger.tree.origin}, this database's is {origin}. Nothing was purged. Restore "
            "schema sweeper (sweeper.identity) with the store, or name the ledger of this one.",
        )


def _refuse_other_database(ledger: Ledger, runs: Sequence[Opened], identity: str) -> None:
    for run in runs:
        if run.identity not in (None, identity):
            raise RefusedError(
                "ledger",
                f"{ledger.path} tells of run {run.run_id} in the database {run.identity}, this is the database {identity}: what "
                "has one id there is another record here. Nothing was purged. Restore schema sweeper (sweeper.identity) with the "
                "store, or name the ledger of this one.",
            )


def _refuse_storeless(ledger: Ledger, runs: Sequence[Opened], own: str) -> None:
    """A ledger in which this store has no run but others have: what was purged would be missed in silence."""
    known = {run.store or own for run in runs}
    if known and own not in known:
        raise RefusedError(
            "ledger",
            f"{ledger.path} knows no run of the store {own}, but of: {', '.join(sorted(known))}. Nothing was "
            "purged. Restore under the schema's old name, or name the schema in [store] schema.",
        )


def _vouched(
    job: Job, ledger: Ledger, history: "_History", identity: str, told: str | None, confirmed: str | None
) -> str:
    """The digest by which a person vouches for a ledger.

    It is of this ledger, this database and this store: given for one, it opens no other, tonight or ever.
    """
    if told is None and history.contradicts:
        raise RefusedError(
            "ledger",
            f"{ledger.path} does not tell of which database it is, and {history}: it is another's. Nothing was purged. Restore "
            "schema sweeper with the store, or name the ledger of this one.",
        )
    bound = f"{identity}\n{job.contract.schema}\n{ledger.tree.text()}"
    digest = hashlib.sha256(bound.encode()).hexdigest()[:16]
    if confirmed == digest:
        return digest
    wrong = "" if confirmed is None else f"{confirmed!r} is not the digest of this ledger for this store. "
    whose = (
        "is of an earlier version, and its runs do not tell in which database they were; several logs may have its name"
        if told is None
        else "tells this database's identity, which a copy of the database has as well"
    )
    raise RefusedError(
        "ledger",
        f"{ledger.path} {whose}; {history}. Nothing was purged. {wrong}Make sure that it was exported from the very database of "
        f"whose backup this one ({identity}) was restored; then give --accept-ledger {digest}, first with --dry-run.",
    )


@dataclass(frozen=True)
class _History:
    """What a ledger has in common with the log of this database: a restored backup has an earlier state of the same log."""

    checkpoints: int
    common: int | None
    """The size of the newest checkpoint of this database that the ledger continues."""

    @property
    def contradicts(self) -> bool:
        """Whether this database has a log, and it is not that one."""
        return self.checkpoints > 0 and self.common is None

    def __str__(self) -> str:
        if self.common is not None:
            return f"it continues this database's checkpoint of {self.common} leaves, which speaks for it"
        if self.checkpoints:
            return f"it continues none of the {self.checkpoints} checkpoints of this database"
        return "this database has no checkpoint that could tell more"


def _history(job: Job, ledger: Ledger) -> _History:
    known = {found.size: found.root for found in stored.checkpoints(job.database)}
    common = max((size for size, root in _roots(ledger, known.keys()) if known[size] == root), default=None)
    return _History(len(known), common)


def _roots(ledger: Ledger, sizes: Set[int]) -> Iterator[tuple[int, bytes]]:
    """The root that the ledger had at some of its sizes."""
    edge = Edge(tells=False)
    for leaf in ledger.leaves() if sizes else ():
        edge.append(leaf_hash(leaves.canonical(leaf)))
        if edge.size in sizes:
            yield edge.size, edge.root()
