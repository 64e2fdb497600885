"""Finds legal holds in force and erasure orders that an exported ledger records and a restored database lacks.

Invariant: in doubt a hold is in force; what is lost is named, and nothing of it is restored here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sweeper.errors import RefusedError
from sweeper.evidence.export import Ledger
from sweeper.evidence.leaf import Leaf
from sweeper.policy.decide import in_force
from sweeper.policy.facts import Hold
from sweeper.policy.instant import OutOfRange, StoredTimestamp, parse
from sweeper.policy.schema import Policy
from sweeper.postgres.protections import known_protections
from sweeper.runs.job import Job


@dataclass(frozen=True)
class LostProtections:
    """Holds and orders of the ledger that are missing in this database; none is restored automatically."""

    holds: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()


def refuse_lost_holds(lost: LostProtections) -> None:
    """Refuse to purge while holds of the ledger are missing, since they may protect restored records.

    Raises:
        RefusedError: naming their matters.
    """
    if lost.holds:
        raise RefusedError(
            "holds",
            f"the ledger knows {len(lost.holds)} legal holds in force that this database has lost: {'; '.join(lost.holds)}.",
            "",
            "Place them again (`sweeper hold place`, --unknown where the id is not there), then reapply.",
        )


def missing(job: Job, ledger: Ledger) -> LostProtections:
    """Return the holds in force and the erasure orders of the ledger that are missing in this database."""
    holds, orders = _Latest("hold"), _Latest("order")
    for leaf in ledger.leaves():
        holds.see(leaf)
        orders.see(leaf)
    stands = partial(_stands, job.policy, job.clock.now())
    here = known_protections(job.database, stands)
    standing = [row for row in holds.rows() if stands(_instant(row.get("released_at")))]
    return LostProtections(
        _absent(standing, here["hold"], "matter"), _absent(orders.rows(), here["order"], "reference")
    )


def _stands(policy: Policy, now: datetime, released_at: StoredTimestamp) -> bool:
    """Return True if a hold with this release time is in force, as a batch decides it."""
    return in_force(Hold("", None, None, None, released_at), policy, now)


def _instant(told: object) -> StoredTimestamp:
    """Parse a timestamp of an event; text that is not a timestamp counts as not released."""
    try:
        return None if told is None else parse(str(told))
    except ValueError:
        return OutOfRange.NEVER


@dataclass
class _Latest:
    """The last state of each hold or order according to the events."""

    kind: str
    found: dict[Any, dict[str, Any] | None] = field(default_factory=dict)

    def see(self, leaf: Leaf) -> None:
        """Take in one leaf; events without the fields that the trigger writes are ignored."""
        if leaf["source"] != "events" or not str(leaf["kind"]).startswith(f"{self.kind}_"):
            return
        details = leaf["details"] if isinstance(leaf["details"], dict) else {}
        was, now = details.get("was"), details.get("now")
        if leaf["kind"] == f"{self.kind}_dropped" and isinstance(was, dict):
            self.found[was.get("id")] = None
        elif isinstance(now, dict):
            self.found[now.get("id")] = now

    def rows(self) -> list[dict[str, Any]]:
        """Return those that were not deleted."""
        return [row for row in self.found.values() if row is not None]


def _absent(rows: Iterable[Mapping[str, Any]], here: Counter[tuple[Any, ...]], name: str) -> tuple[str, ...]:
    """Return the names of those that are missing here."""
    wanted = Counter((str(row.get(name)), row.get("account_id"), row.get("conversation_id")) for row in rows)
    return tuple(sorted(_called(key) for key in (wanted - here).elements()))


def _called(key: tuple[Any, ...]) -> str:
    name, account, conversation = key
    parts = [f"account {account}" if account else "", f"conversation {conversation}" if conversation else ""]
    return f"{name} on {' and '.join(part for part in parts if part) or 'everything'}"
