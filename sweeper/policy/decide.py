"""Decides when a conversation must be purged, and why. Runs, previews and explanations all ask this module.

Invariant: doubt about an input keeps the row; a rule can only shorten; the earliest due wins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sweeper.policy.conditions import ANCHORS, FLAGGED, applies
from sweeper.policy.facts import Conversation, Facts, Hold, Order
from sweeper.policy.history import EpochState, History, View, history
from sweeper.policy.instant import StoredTimestamp, at_or_before, aware
from sweeper.policy.period import Period
from sweeper.policy.schema import Anchor, ColumnPeriod, Policy, Rule, Term

UNCLASSIFIED = "unclassified"
ERASURE_ORDER = "erasure_order"


class Doubt(StrEnum):
    """Why a record is unclassified: kept, never trained on, counted, reported. `FEEDBACK_...` are of feedback rows."""

    ACCOUNT = "unknown_account"
    NO_PLAN = "no_plan"
    UNKNOWN_PLAN = "unknown_plan"
    PLAN_CHANGE = "plan_change"
    CONSENT_EVENT = "consent_event"
    CREATED = "created_at"
    LAST_ACTIVITY = "last_activity_at"
    ORDER_OF_LIFE = "last_activity_before_creation"
    DELETED = "deleted_at"
    RESTORED = "restored_at"
    FLAGGED = "flagged_at"
    CLOSED = "closed_at"
    PLATFORM = "platform"
    INCOGNITO = "incognito"
    ZERO_RETENTION = "zero_retention"
    PERIOD = "period"
    REPEATED = "repeated_row"
    FEEDBACK_KIND = "feedback_kind"
    FEEDBACK_SUBMITTED = "feedback_submitted_at"
    FEEDBACK_REPEATED = "feedback_repeated_row"

    @classmethod
    def of_feedback(cls) -> list["Doubt"]:
        """Return the doubts that a feedback row may raise."""
        return [doubt for doubt in cls if doubt.value.startswith("feedback_")]

    @classmethod
    def of_conversations(cls) -> list["Doubt"]:
        """Return the doubts that a conversation may raise."""
        return [doubt for doubt in cls if not doubt.value.startswith("feedback_")]


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """A rule that applies, with its due date and the anchor and period behind it. A due date of None means never."""

    rule: str
    due: datetime | None
    anchor: Anchor | None = None
    since: datetime | None = None
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one record at one as-of, with what decided it."""

    as_of: datetime
    rule: str | None
    due: datetime | None
    held: bool
    doubts: tuple[Doubt, ...] = ()
    rulings: tuple[RuleMatch, ...] = ()
    moves: tuple[RuleMatch, ...] = ()
    holds: tuple[Hold, ...] = ()
    plans: frozenset[str | None] = frozenset()

    @property
    def expired(self) -> bool:
        """True if the due date is reached, holds left aside (policy, Time 4)."""
        return self.due is not None and self.due <= self.as_of

    @property
    def purge(self) -> bool:
        """True if the record must be purged now."""
        return self.expired and not self.held


@dataclass(slots=True)
class Case:
    """A conversation prepared for the rules: its facts, the history of its account, its governing plans and its doubts."""

    facts: Facts
    policy: Policy
    as_of: datetime
    known: History | None
    plans: frozenset[str | None] = frozenset()
    doubts: list[Doubt] = field(default_factory=list)
    epochs: dict[str, EpochState | None] = field(default_factory=dict)

    @property
    def conversation(self) -> Conversation:
        """The conversation of this case."""
        return self.facts.conversation

    def trusted(self, stored: StoredTimestamp) -> datetime | None:
        """Return the timestamp if it is plausible, else None."""
        return stored if isinstance(stored, datetime) and self.policy.plausible.holds(stored) else None

    def column(self, relation: str, name: str) -> object:
        """Return the value of a further column of the conversation or of its account; None without an account."""
        holder = self.facts.account if relation == "account" else self.conversation
        return holder.columns.get(name) if holder is not None else None

    def epoch(self, purpose: str) -> EpochState | None:
        """Return the retention epoch that contains the last activity, if any; cached, since several rules ask for it."""
        if purpose not in self.epochs:
            self.epochs[purpose] = self._epoch(purpose)
        return self.epochs[purpose]

    def _epoch(self, purpose: str) -> EpochState | None:
        last = self.trusted(self.conversation.last_activity_at)
        if self.known is None or last is None:
            return None
        return self.known.epoch_at(purpose, View.RETENTION, last)


def decide(facts: Facts, policy: Policy, as_of: datetime) -> Verdict:
    """Return the verdict on one conversation.

    Args:
        facts: the conversation with its account's history, holds and orders, as stored.
        policy: the rules.
        as_of: the instant (UTC) at which the world is looked at.

    Raises:
        ValueError: `as_of` is naive.
    """
    case = open_case(facts, policy, aware(as_of))
    rulings = tuple(_rulings(case))
    ruling = min(rulings, key=_by_due, default=RuleMatch(UNCLASSIFIED, None) if case.doubts else None)
    moves = () if Doubt.REPEATED in case.doubts else tuple(_moves(case, ruling))
    last = moves[-1] if moves else ruling
    holds = tuple(hold for hold in facts.holds if is_active(hold, facts, policy, case.as_of))
    return Verdict(
        case.as_of,
        rule=last.rule if last else None,
        due=last.due if last else None,
        held=bool(holds),
        doubts=tuple(case.doubts),
        rulings=rulings,
        moves=moves,
        holds=holds,
        plans=case.plans,
    )


def exists(conversation: Conversation, policy: Policy, as_of: datetime) -> bool:
    """Return True if the conversation exists at as-of; one created plausibly later does not (policy, Time 5)."""
    created_at = conversation.created_at
    return not (isinstance(created_at, datetime) and policy.plausible.holds(created_at) and created_at > as_of)


def is_active(hold: Hold, facts: Facts, policy: Policy, as_of: datetime) -> bool:
    """Return True if a hold stops the purge at as-of; a hold with untrusted timestamps does."""
    if not hold.names(facts.conversation.account_id, facts.conversation.id):
        return False
    return in_force(hold, policy, as_of)


def in_force(hold: Hold, policy: Policy, as_of: datetime) -> bool:
    """Return True if a hold is placed and not released at as-of, whatever it covers."""
    placed = not policy.plausible.holds(hold.placed_at) or at_or_before(hold.placed_at, as_of)
    released = policy.plausible.holds(hold.released_at) and at_or_before(hold.released_at, as_of)
    return placed and not released


def is_known(order: Order, as_of: datetime) -> bool:
    """Return True if an erasure order is known at as-of."""
    return order.recorded_at is None or at_or_before(order.recorded_at, as_of)


def covers(order: Order, created_at: StoredTimestamp, policy: Policy) -> bool:
    """Return True if an order covers what was created then: up to its recording; without that time, everything it names."""
    if order.recorded_at is None:
        return True
    if not isinstance(created_at, datetime) or not policy.plausible.holds(created_at):
        return False  # a creation that cannot be trusted cannot be shown to lie before the order
    return not (at_or_before(order.recorded_at, created_at) and order.recorded_at != created_at)


def open_case(facts: Facts, policy: Policy, as_of: datetime) -> Case:
    """Return the case of some facts, with governing plans and doubts."""
    known = history(facts.account, policy, as_of) if facts.account is not None else None
    case = Case(facts, policy, as_of, known)
    case.doubts.extend(_doubts(case))
    return case


def _by_due(ruling: RuleMatch) -> tuple[bool, datetime | None]:
    return (ruling.due is None, ruling.due)


def _doubts(case: Case) -> Iterator[Doubt]:
    c = case.conversation
    if case.facts.repeated:
        yield Doubt.REPEATED
    if case.known is None:
        yield Doubt.ACCOUNT
    else:
        yield from (Doubt(fault) for fault in sorted(case.known.faults))
        if case.facts.account and not _unset_or_trusted(case, case.facts.account.closed_at):
            yield Doubt.CLOSED
    yield from (doubt for doubt, column in _FLAGS.items() if getattr(c, column) is None)
    yield from (doubt for doubt, column in _INSTANTS.items() if not _unset_or_trusted(case, getattr(c, column)))
    yield from _life(case)


_FLAGS = {Doubt.PLATFORM: "platform", Doubt.INCOGNITO: "incognito", Doubt.ZERO_RETENTION: "zero_retention"}
_INSTANTS = {Doubt.DELETED: "deleted_at", Doubt.RESTORED: "restored_at", Doubt.FLAGGED: "flagged_at"}


def _unset_or_trusted(case: Case, stored: StoredTimestamp) -> bool:
    return stored is None or case.policy.plausible.holds(stored)


def _life(case: Case) -> Iterator[Doubt]:
    """Yield doubts about the conversation's timestamps and plans; if there are none, set the governing plans."""
    created = case.trusted(case.conversation.created_at)
    last = case.trusted(case.conversation.last_activity_at)
    if created is None:
        yield Doubt.CREATED
    if last is None:
        yield Doubt.LAST_ACTIVITY
    if created is None or last is None:
        return
    if last < created:
        yield Doubt.ORDER_OF_LIFE
        return
    if case.known is not None and case.policy.uses_plans:
        yield from _plan_doubts(case, case.known, created)
        case.plans = case.known.timeline.between(created, last)


def _plan_doubts(case: Case, known: History, created: datetime) -> Iterator[Doubt]:
    if not known.timeline.covers(created):
        yield Doubt.NO_PLAN
    if known.timeline.between(created, max(created, case.as_of)) - case.policy.known_plans:
        yield Doubt.UNKNOWN_PLAN


def _rulings(case: Case) -> Iterator[RuleMatch]:
    """Yield every rule that applies, with its due date; for an unclassified conversation only those that need no plan."""
    if case.doubts:
        if Doubt.FLAGGED in case.doubts or Doubt.REPEATED in case.doubts:
            return
        rules: tuple[Rule, ...] = tuple(rule for rule in case.policy.rules if rule.stands_unclassified)
    else:
        rules = case.policy.rules
    found = [ruling for rule in rules if applies(rule, case) and (ruling := _ruling(rule, case)) is not None]
    if Doubt.PERIOD in case.doubts:
        found = [ruling for ruling in found if case.policy.by_name[ruling.rule].stands_unclassified]
    yield from found


def _ruling(rule: Rule, case: Case) -> RuleMatch | None:
    """Return the earliest due date of a rule's terms; None if an anchor is missing or a column is not set."""
    dues = [ruling for term in rule.due if (ruling := _term(rule, term, case)) is not None]
    return min(dues, key=_by_due, default=None)


def _term(rule: Rule, term: Term, case: Case) -> RuleMatch | None:
    since = ANCHORS[term.anchor].since(case, rule)
    period = term.period if isinstance(term.period, Period) else _read_period(term.period, case)
    if since is None or period is None:
        return None
    return RuleMatch(rule.name, never_after(case.policy, period.after(since)), term.anchor, since, period)


def _read_period(source: ColumnPeriod, case: Case) -> Period | None:
    """Return the period that a column holds, `otherwise` if it is not set; an unusable value is a doubt, which keeps the row."""
    value = case.column(source.relation, source.name)
    if not source.is_usable(value):
        if Doubt.PERIOD not in case.doubts:
            case.doubts.append(Doubt.PERIOD)
        return None
    return source.period(value)


def never_after(policy: Policy, due: datetime | None) -> datetime | None:
    """Return the due date, or None (never) if it lies beyond the plausible range (policy, Time 2)."""
    return due if due is not None and due < policy.plausible.before else None


def _moves(case: Case, ruling: RuleMatch | None) -> Iterator[RuleMatch]:
    """Yield the adjustments after the rules: floors postpone the due date, then erasure orders bring it forward."""
    due = ruling.due if ruling else None
    for floor in case.policy.floors:
        since = case.trusted(FLAGGED.stored(case.facts))
        if due is None or since is None or since > case.as_of:
            continue
        least = never_after(case.policy, floor.period.after(since))
        if least is None or least > due:
            due = least
            yield RuleMatch(floor.name, due, Anchor(floor.anchor), since, floor.period)
    ordered = min(due_orders(case.facts, case.policy, case.as_of), default=None)
    if ordered is not None and (due is None or ordered < due):
        yield RuleMatch(ERASURE_ORDER, ordered)


def due_orders(facts: Facts, policy: Policy, as_of: datetime) -> Iterator[datetime]:
    """Yield the due dates of the known erasure orders that cover it; orders without a usable date are ignored."""
    for order in covering(facts, policy, as_of):
        if isinstance(order.due_at, datetime) and policy.plausible.holds(order.due_at):
            yield order.due_at


def covering(facts: Facts, policy: Policy, as_of: datetime) -> Iterator[Order]:
    """Yield the erasure orders known at as-of that cover the conversation, dated or not."""
    c = facts.conversation
    for order in facts.orders:
        if order.names(c.account_id, c.id) and is_known(order, as_of) and covers(order, c.created_at, policy):
            yield order
