"""Finds the holds in force, the orders and their withdrawals, the plans and the consent that a restored database lacks.

An exported ledger tells of them.

Invariant: in doubt a hold is in force. Nothing is restored here.
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
from sweeper.postgres import choices
from sweeper.postgres.choices import Choice
from sweeper.postgres.database import Database
from sweeper.postgres.protections import known_protections
from sweeper.runs.job import Job


@dataclass(frozen=True)
class LostProtections:
    """Descriptions of the holds in force and the orders that are in the ledger but not in this database.

    `withdrawals`: the orders that are withdrawn in the ledger and not in this database. `choices`: the commands that record the
    missing plan changes and consent events again, in that order.
    """

    holds: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    withdrawals: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[str, ...]:
        """The guards that refuse to purge."""
        found = (("holds", self.holds), ("withdrawals", self.withdrawals), ("choices", self.choices))
        return tuple(guard for guard, lost in found if lost)


FEW = 10
"""Number of commands that a refusal quotes."""


def refuse_lost(lost: LostProtections) -> None:
    """Refuse to purge while holds, withdrawals, plans or consent of the ledger are missing here.

    They may protect restored records, and people who withdrew their consent must not be trained on.

    Raises:
        RefusedError: with the matters of the missing holds, the references of the orders to withdraw, or the commands to repeat.
    """
    if lost.holds:
        raise RefusedError(
            "holds",
            f"the ledger has {len(lost.holds)} legal holds in force that this database has lost: {'; '.join(lost.holds)}.",
            "",
            "Place them again (`sweeper hold place`, --unknown where the id is not there), then reapply.",
        )
    if lost.withdrawals:
        raise RefusedError(
            "withdrawals",
            f"{len(lost.withdrawals)} erasure orders withdrawn in the ledger are in force here: {'; '.join(lost.withdrawals)}.",
            "",
            "Withdraw them again (`sweeper order withdraw`), then reapply.",
        )
    if lost.choices:
        more = len(lost.choices) - FEW
        raise RefusedError(
            "choices",
            f"the ledger has {len(lost.choices)} plan changes and consent events that this database has lost: "
            f"{'; '.join(lost.choices[:FEW])}{f'; and {more} more' if more > 0 else ''}.",
            "",
            "Record them again by these commands (`reapply --dry-run --json` prints all, as `lost_choices`), then reapply.",
        )


def missing(job: Job, ledger: Ledger) -> LostProtections:
    """Return the holds in force, the erasure orders and the choices of the ledger that are not in this database."""
    holds, orders, lost = _Latest("hold"), _Latest("order"), _LostChoices(job.database)
    for leaf in ledger.leaves():
        for reader in (holds, orders, lost):
            reader.see(leaf)
    stands = partial(_stands, job.policy, job.clock.now())
    here = known_protections(job.database, stands)
    standing = [row for row in holds.rows() if stands(_parse_instant(row.get("released_at")))]
    told = _counted(orders.rows(), "reference")
    withdrawn = _counted((row for row in orders.rows() if row.get("withdrawn_at") is not None), "reference")
    binding = told - withdrawn
    return LostProtections(
        _describe(_counted(standing, "matter") - here["hold"]),
        _describe(told - here["order"] - here["withdrawn"]),
        _describe((withdrawn - here["withdrawn"]) & (here["order"] - binding)),
        tuple(choice.command for choice in lost.all()),
    )


def _stands(policy: Policy, now: datetime, released_at: StoredTimestamp) -> bool:
    """True if a hold with this release is in force at `now`, by the same rule as in a batch."""
    return in_force(Hold("", None, None, None, released_at), policy, now)


def _parse_instant(text: object) -> StoredTimestamp:
    """Parse an instant from an event; return NEVER for one that cannot be parsed, so that it releases no hold."""
    try:
        return None if text is None else parse(str(text))
    except ValueError:
        return OutOfRange.NEVER


@dataclass
class _Latest:
    """The latest state of each hold or order, from the events; None for one that was deleted."""

    kind: str
    found: dict[Any, dict[str, Any] | None] = field(default_factory=dict)

    def see(self, leaf: Leaf) -> None:
        """Apply a leaf; an event without the details that the trigger writes is ignored."""
        if leaf["source"] != "events" or not str(leaf["kind"]).startswith(f"{self.kind}_"):
            return
        details = leaf["details"] if isinstance(leaf["details"], dict) else {}
        was, now = details.get("was"), details.get("now")
        if leaf["kind"] == f"{self.kind}_dropped" and isinstance(was, dict):
            self.found[was.get("id")] = None
        elif isinstance(now, dict):
            self.found[now.get("id")] = now

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that were not deleted."""
        return [row for row in self.found.values() if row is not None]


PORTION = 500
"""Number of choices that are looked up at a time."""


@dataclass
class _LostChoices:
    """The plan changes and consent events of the ledger that this database has lost."""

    database: Database
    waiting: list[Choice] = field(default_factory=list)
    lost: list[Choice] = field(default_factory=list)

    def see(self, leaf: Leaf) -> None:
        """Look for what the leaf records; an event without the details that the trigger writes is ignored."""
        if leaf["source"] == "events" and leaf["kind"] in ("plan_added", "consent_added"):
            choice = _parse_choice(leaf["kind"], leaf["details"])
            self.waiting += [choice] if choice else []
            if len(self.waiting) >= PORTION:
                self._look()

    def all(self) -> list[Choice]:
        """Return those that were not recorded again, of each account in the order of the ledger."""
        self._look()
        return choices.not_repeated(self.database, self.lost)

    def _look(self) -> None:
        self.lost += choices.lost(self.database, self.waiting)
        self.waiting = []


def _parse_choice(kind: str, details: Any) -> Choice | None:
    try:
        now = details["now"]
        granted = now["granted"] if kind == "consent_added" else None
        since = OutOfRange.ALWAYS if now["effective_at"] == OutOfRange.ALWAYS.value else parse(now["effective_at"])
        name = now["plan"] if granted is None else now["purpose"]
        recorded_at = parse(now["recorded_at"])
    except (LookupError, TypeError, ValueError):
        return None
    is_usable = isinstance(granted, bool | None) and isinstance(name, str) and isinstance(now.get("account_id"), str)
    return Choice(now["account_id"], name, granted, since, recorded_at) if is_usable else None


def _counted(rows: Iterable[Mapping[str, Any]], name: str) -> Counter[tuple[Any, ...]]:
    """Count the rows by name, account and conversation."""
    return Counter((str(row.get(name)), row.get("account_id"), row.get("conversation_id")) for row in rows)


def _describe(found: Counter[tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(sorted(map(_text, found.elements())))


def _text(key: tuple[Any, ...]) -> str:
    name, account, conversation = key
    parts = [f"account {account}" if account else "", f"conversation {conversation}" if conversation else ""]
    return f"{name} on {' and '.join(part for part in parts if part) or 'everything'}"
