"""Decides whether a message may be trained on. Any doubt means no; the reason is the first check that fails.

Invariant: the table CHECKS is the order of the policy, and nothing else decides.
"""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sweeper.policy.conditions import is_deleted
from sweeper.policy.decide import Verdict, covering, decide, exists, is_known
from sweeper.policy.facts import Account, Facts, Message
from sweeper.policy.history import EpochState, History, View, history
from sweeper.policy.instant import StoredTimestamp, aware
from sweeper.policy.redaction import decide_redaction
from sweeper.policy.schema import Policy, Training


class Exclusion(StrEnum):
    """Why a message may not be trained on, in the order in which the reasons are tried."""

    UNCLASSIFIED = "unclassified"
    DELETED = "deleted"
    ACCOUNT_CLOSED = "account_closed"
    ERASURE_ORDER = "erasure_order"
    ZERO_RETENTION = "zero_retention"
    INCOGNITO = "incognito"
    FLAGGED = "flagged"
    EXPIRED = "expired"
    REDACTED = "redacted"
    PLATFORM = "platform"
    PLAN = "plan"
    NO_CONSENT = "no_consent"
    BEFORE_CONSENT = "before_consent"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class TrainingScope:
    """What the messages of one conversation share: verdict, history of the account, purpose and its open epoch.

    `content` is the verdict on its content, if a rule redacts.
    """

    facts: Facts
    policy: Policy
    training: Training
    as_of: datetime
    verdict: Verdict
    content: Verdict | None
    known: History | None
    purpose: str | None
    epoch: EpochState | None

    @property
    def resumed_whole(self) -> bool:
        """Whether the policy trains on resumed conversations entirely, and this one was resumed in the open epoch."""
        last = self.facts.conversation.last_activity_at
        if self.training.resumed != "entire" or self.epoch is None or not isinstance(last, datetime):
            return False
        return self.epoch.contains(last)


def exclusions(
    facts: Facts, messages: Iterable[Message], policy: Policy, as_of: datetime, *, ahead: bool = False
) -> Iterator[tuple[Message, Exclusion | None]]:
    """Yield each message that exists at `as_of` (UTC) with the reason why it may not be trained on, or None.

    With `ahead`, whatever excludes counts whatever its instant (policy, Training manifest: at the start of a training run).
    """
    if not exists(facts.conversation, policy, aware(as_of)):
        return
    scope = _scope(facts, policy, aware(as_of), ahead=ahead)
    for message in messages:
        created_at = message.created_at
        if policy.plausible.holds(created_at) and isinstance(created_at, datetime) and created_at > as_of:
            continue  # does not exist yet
        yield message, exclusion(scope, message) if scope else Exclusion.PLAN


def exclusion(scope: TrainingScope, message: Message) -> Exclusion | None:
    """Return the first reason against training; None if the message is eligible."""
    return next((reason for reason, fails in CHECKS if fails(scope, message)), None)


def brought_forward(facts: Facts, policy: Policy, as_of: datetime) -> Facts:
    """The same facts with every deletion, flag, closing, withdrawal and order after `as_of` taken as one at `as_of`.

    What is implausible stays as it is: it is a doubt already. An order excludes whatever its instant.
    """

    def by(stored: StoredTimestamp) -> StoredTimestamp:
        return min(stored, as_of) if isinstance(stored, datetime) and policy.plausible.holds(stored) else stored

    account, conversation = facts.account, facts.conversation
    if account is not None:
        events = tuple(
            e if e.granted else replace(e, recorded_at=by(e.recorded_at), effective_at=by(e.effective_at))
            for e in account.consent_events
        )
        account = replace(account, closed_at=by(account.closed_at), consent_events=events)
    conversation = replace(conversation, deleted_at=by(conversation.deleted_at), flagged_at=by(conversation.flagged_at))
    orders = tuple(o if is_known(o, as_of) else replace(o, recorded_at=as_of) for o in facts.orders)
    return replace(facts, account=account, conversation=conversation, orders=orders)


def _leaves_later(account: Account, plans: Set[str], as_of: datetime) -> bool:
    """Return True if a plan change after `as_of` takes the account out of these plans."""
    return any(
        isinstance(c.effective_at, datetime) and c.effective_at > as_of and c.plan not in plans
        for c in account.plan_changes
    )


def _scope(facts: Facts, policy: Policy, as_of: datetime, *, ahead: bool) -> TrainingScope | None:
    """Return None if the policy allows no training at all."""
    if policy.training is None:
        return None
    if ahead:
        facts = brought_forward(facts, policy, as_of)
    known = history(facts.account, policy, as_of) if facts.account is not None else None
    plan = known.timeline.at(as_of) if known else None
    purpose = policy.purpose_of_plan.get(plan) if plan is not None else None
    if ahead and purpose and facts.account and _leaves_later(facts.account, policy.purposes[purpose].plans, as_of):
        purpose = None
    epoch = known.epoch_at(purpose, View.TRAINING, as_of) if known and purpose else None
    verdict, content = decide(facts, policy, as_of), decide_redaction(facts, policy, as_of)
    return TrainingScope(facts, policy, policy.training, as_of, verdict, content, known, purpose, epoch)


def _is_unclassified(scope: TrainingScope, message: Message) -> bool:
    doubts = scope.verdict.doubts or (scope.content is not None and scope.content.doubts)
    return bool(doubts) or not scope.policy.plausible.holds(message.created_at)


def _was_deleted(scope: TrainingScope, _: Message) -> bool:
    """Return True if the conversation is deleted or was ever restored; this exclusion is permanent."""
    conversation = scope.facts.conversation
    return conversation.restored_at is not None or is_deleted(conversation, scope.as_of)


def _is_flagged(scope: TrainingScope, _: Message) -> bool:
    flagged_at = scope.facts.conversation.flagged_at
    return isinstance(flagged_at, datetime) and flagged_at <= scope.as_of


def _is_redacted(scope: TrainingScope, _: Message) -> bool:
    """Return True if its content was redacted, whenever that was, or is due for that."""
    return scope.facts.redacted_at is not None or (scope.content is not None and scope.content.expired)


def _is_outside_platforms(scope: TrainingScope, _: Message) -> bool:
    return scope.facts.conversation.platform not in scope.training.platforms


def _is_outside_purpose(scope: TrainingScope, message: Message) -> bool:
    """The plan at as-of belongs to no purpose, or the plan at the time of the message to another one or to none."""
    if scope.purpose is None or scope.known is None:
        return True
    plans = scope.policy.purposes[scope.purpose].plans
    if scope.resumed_whole and scope.verdict.plans <= plans:
        return False
    return not isinstance(message.created_at, datetime) or scope.known.timeline.at(message.created_at) not in plans


def _precedes_consent(scope: TrainingScope, message: Message) -> bool:
    if scope.resumed_whole:
        return False
    created_at = message.created_at
    return scope.epoch is None or not isinstance(created_at, datetime) or not scope.epoch.contains(created_at)


def _is_too_old(scope: TrainingScope, message: Message) -> bool:
    if not isinstance(message.created_at, datetime):
        return True
    cap = scope.training.max_age.after(message.created_at)
    return cap is not None and scope.as_of >= cap


Check = Callable[[TrainingScope, Message], bool]

CHECKS: tuple[tuple[Exclusion, Check], ...] = (
    (Exclusion.UNCLASSIFIED, _is_unclassified),
    (Exclusion.DELETED, _was_deleted),
    (Exclusion.ACCOUNT_CLOSED, lambda scope, _: scope.known is None or scope.known.closed_at is not None),
    (Exclusion.ERASURE_ORDER, lambda scope, _: any(covering(scope.facts, scope.policy, scope.as_of))),
    (Exclusion.ZERO_RETENTION, lambda scope, _: scope.facts.conversation.zero_retention is not False),
    (Exclusion.INCOGNITO, lambda scope, _: scope.facts.conversation.incognito is not False),
    (Exclusion.FLAGGED, _is_flagged),
    (Exclusion.EXPIRED, lambda scope, _: scope.verdict.expired),
    (Exclusion.REDACTED, _is_redacted),
    (Exclusion.PLATFORM, _is_outside_platforms),
    (Exclusion.PLAN, _is_outside_purpose),
    (Exclusion.NO_CONSENT, lambda scope, _: scope.epoch is None),
    (Exclusion.BEFORE_CONSENT, _precedes_consent),
    (Exclusion.TOO_OLD, _is_too_old),
)
