"""The history of an account: which plan was in force when, and when consent to each purpose was.

Invariant: an epoch is an open interval; an instant equal to either edge is outside (policy, Consent 4).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from sweeper.policy.facts import Account, ConsentEvent, PlanChange
from sweeper.policy.instant import OutOfRange, at_or_before
from sweeper.policy.schema import Policy, Purpose

BEGINNING = datetime.min.replace(tzinfo=UTC)


class View(StrEnum):
    """The effect of a withdrawal: from its effective time for training, from its recording for retention."""

    RETENTION = "retention"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class EpochState:
    """A period during which consent to a purpose was in force; `closed` is None while it lasts."""

    opened: datetime
    closed: datetime | None
    event_id: int
    ended_by: str | None = None

    def contains(self, instant: datetime) -> bool:
        """Return True if the instant lies strictly inside."""
        return self.opened < instant and (self.closed is None or instant < self.closed)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The plans in force, each from its start to the next one's start; known facts only."""

    starts: tuple[datetime, ...]
    plans: tuple[str | None, ...]

    def at(self, instant: datetime) -> str | None:
        """Return the plan in force at an instant; None if there is none or it has no name."""
        index = bisect_right(self.starts, instant) - 1
        return self.plans[index] if index >= 0 else None

    def covers(self, instant: datetime) -> bool:
        """Return True if any plan is in force at the instant, named or not."""
        return bool(self.starts) and self.starts[0] <= instant

    def between(self, first: datetime, last: datetime) -> frozenset[str | None]:
        """Return all plans in force at any time from `first` to `last`, both included."""
        low = max(bisect_right(self.starts, first) - 1, 0)
        return frozenset(self.plans[low : bisect_right(self.starts, last)])

    def leaves(self, plans: frozenset[str], after: datetime) -> datetime | None:
        """The first instant after `after` at which a plan outside `plans` comes into force."""
        for index in range(bisect_right(self.starts, after), len(self.starts)):
            if self.plans[index] not in plans:
                return self.starts[index]
        return None


@dataclass(slots=True)
class History:
    """The history of an account as known at `as_of`: plans over time, epochs by purpose and view, and untrusted entries."""

    account: Account
    policy: Policy
    as_of: datetime
    timeline: Timeline
    faults: frozenset[str]
    closed_at: datetime | None
    _epochs: dict[tuple[str, View], tuple[EpochState, ...]] = field(default_factory=dict)

    def epochs(self, purpose: str, view: View) -> tuple[EpochState, ...]:
        """Return the epochs of a purpose, disjoint and in order (policy, Consent 1 to 4)."""
        key = (purpose, view)
        if key not in self._epochs:
            self._epochs[key] = tuple(_epochs(self, self.policy.purposes[purpose], purpose, view))
        return self._epochs[key]

    def epoch_at(self, purpose: str, view: View, instant: datetime) -> EpochState | None:
        """Return the epoch that contains the instant."""
        return next((epoch for epoch in self.epochs(purpose, view) if epoch.contains(instant)), None)

    def has_chosen(self, purpose: str) -> bool:
        """Return True if any event of the purpose is known, a grant or a withdrawal."""
        return any(
            e.purpose == purpose and at_or_before(e.recorded_at, self.as_of) for e in self.account.consent_events
        )


@lru_cache(maxsize=1024)
def history(account: Account, policy: Policy, as_of: datetime) -> History:
    """Return the history of an account as known at `as_of` (UTC); cached for accounts that recur in a batch."""
    closed_at = account.closed_at
    known_closing = isinstance(closed_at, datetime) and policy.plausible.holds(closed_at) and closed_at <= as_of
    return History(
        account,
        policy,
        as_of,
        timeline=_timeline(account, policy, as_of),
        faults=frozenset(_faults(account, policy)),
        closed_at=closed_at if known_closing and isinstance(closed_at, datetime) else None,
    )


def _faults(account: Account, policy: Policy) -> Iterator[str]:
    """Entries that cannot be trusted, known at as-of or not; they make every conversation of the account unclassified."""
    if policy.uses_plans and any(_is_unreadable(change, policy) for change in account.plan_changes):
        yield "plan_change"
    if policy.purposes and any(_is_doubtful(event, policy) for event in account.consent_events):
        yield "consent_event"


def _is_unreadable(change: PlanChange, policy: Policy) -> bool:
    return change.id is None or (
        change.effective_at is not OutOfRange.ALWAYS and not policy.plausible.holds(change.effective_at)
    )


def _is_doubtful(event: ConsentEvent, policy: Policy) -> bool:
    if event.purpose is not None and event.purpose not in policy.purposes:
        return False  # somebody else's purpose
    if (
        event.id is None
        or event.purpose is None
        or event.granted is None
        or not policy.plausible.holds(event.recorded_at)
    ):
        return True
    return event.effective_at is not None and not policy.plausible.holds(event.effective_at)


def _timeline(account: Account, policy: Policy, as_of: datetime) -> Timeline:
    """Return the plans in force up to `as_of`; of changes at the same time only the one with the highest id counts."""
    in_force: dict[datetime, PlanChange] = {}
    for change in sorted(account.plan_changes, key=lambda change: change.id or 0):
        start = BEGINNING if change.effective_at is OutOfRange.ALWAYS else change.effective_at
        if isinstance(start, datetime) and start <= as_of:
            in_force[start] = change
    starts = sorted(in_force)
    plans = tuple(in_force[start].plan for start in starts)
    created_at = account.created_at
    if starts and isinstance(created_at, datetime) and policy.plausible.holds(created_at):
        starts[0] = min(starts[0], created_at)  # the first plan counts from the account's creation on
    return Timeline(tuple(starts), plans)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A known, trustworthy consent event, as seen from one view."""

    order: tuple[datetime, int]
    effect: datetime
    granted: bool


def _entries(known: History, purpose: Purpose, name: str, view: View) -> Iterator[_Entry]:
    for event in known.account.consent_events:
        recorded = event.recorded_at
        if event.purpose != name or not isinstance(recorded, datetime) or recorded > known.as_of:
            continue
        effective = event.effective_at if isinstance(event.effective_at, datetime) else recorded
        if event.granted:
            effect = max(effective, recorded, purpose.not_before or recorded)
        else:
            effect = min(effective, recorded) if view is View.TRAINING else recorded
        yield _Entry((recorded, event.id or 0), effect, bool(event.granted))


def _epochs(known: History, purpose: Purpose, name: str, view: View) -> Iterator[EpochState]:
    entries = list(_entries(known, purpose, name, view))
    withdrawals = sorted((e for e in entries if not e.granted), key=lambda e: e.order)
    earliest = _earliest_from_each(withdrawals)
    orders = [w.order for w in withdrawals]
    last: EpochState | None = None
    for grant in sorted((e for e in entries if e.granted), key=lambda e: (e.effect, e.order)):
        if grant.effect > known.as_of or known.timeline.at(grant.effect) not in purpose.plans:
            continue
        if last is not None and (last.closed is None or grant.effect < last.closed):
            continue  # a grant while the epoch is open opens no other
        later = bisect_right(orders, grant.order)
        closed, ended_by = _end(known, purpose, grant.effect, earliest[later] if later < len(earliest) else None)
        if closed is None or closed > grant.effect:
            last = EpochState(grant.effect, closed, grant.order[1], ended_by)
            yield last


def _earliest_from_each(withdrawals: list[_Entry]) -> list[datetime]:
    """For each withdrawal in the order of recording, the earliest effect of it and all later ones."""
    result: list[datetime] = []
    for withdrawal in reversed(withdrawals):
        result.append(min(withdrawal.effect, result[-1]) if result else withdrawal.effect)
    return result[::-1]


def _end(
    known: History, purpose: Purpose, opened: datetime, withdrawn: datetime | None
) -> tuple[datetime, str] | tuple[None, None]:
    """Return when an epoch opened at `opened` closes, and by what (policy, Consent 3)."""
    ends = [
        (instant, cause)
        for instant, cause in (
            (withdrawn, "withdrawal"),
            (known.closed_at, "account closed"),
            (known.timeline.leaves(purpose.plans, opened), "plan left"),
        )
        if instant is not None
    ]
    return min(ends) if ends else (None, None)
