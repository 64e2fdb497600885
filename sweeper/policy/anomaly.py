"""Anomalies: defects of the stored facts that are reported and never acted on."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

from sweeper.policy.evaluate import is_later
from sweeper.policy.facts import Facts
from sweeper.policy.history import history
from sweeper.policy.instant import aware
from sweeper.policy.schema import Policy


class Anomaly(StrEnum):
    """A defect of the store or of the application that writes it."""

    STALE_LAST_ACTIVITY = "stale_last_activity"
    ZERO_RETENTION_STORED = "zero_retention_stored"
    UNDECIDED = "undecided_after_deadline"
    LAST_ACTIVITY_AHEAD = "last_activity_after_as_of"
    CREATED_AHEAD = "created_after_as_of"
    STRAY_TRANSCRIPT = "survey_with_transcript"


def anomalies(facts: Facts, policy: Policy, as_of: datetime, *, present: bool = True) -> Iterator[Anomaly]:
    """Yield the anomalies of one conversation that exists at `as_of` (UTC).

    A timestamp after as-of points to a wrong clock only if as-of is the `present`.
    """
    conversation = facts.conversation
    if is_later(facts.latest_user_message_at, conversation.last_activity_at):
        yield Anomaly.STALE_LAST_ACTIVITY
    if conversation.zero_retention:
        yield Anomaly.ZERO_RETENTION_STORED
    last = conversation.last_activity_at
    if present and isinstance(last, datetime) and policy.plausible.holds(last) and last > as_of:
        yield Anomaly.LAST_ACTIVITY_AHEAD
    if _is_undecided(facts, policy, aware(as_of)):
        yield Anomaly.UNDECIDED


def _is_undecided(facts: Facts, policy: Policy, as_of: datetime) -> bool:
    """Return True if the user wrote after a purpose's deadline, on one of its plans, and never chose (policy, Consent 5).

    The first message after the deadline and the newest one are checked, since the plan may have changed between them.
    """
    if facts.account is None:
        return False
    known = history(facts.account, policy, as_of)
    wrote = [
        instant
        for instant in (facts.late_user_message_at, facts.latest_user_message_at)
        if isinstance(instant, datetime) and policy.plausible.holds(instant) and instant <= as_of
    ]
    return any(
        purpose.undecided_after is not None
        and not known.has_chosen(name)
        and any(at >= purpose.undecided_after and known.timeline.at(at) in purpose.plans for at in wrote)
        for name, purpose in policy.purposes.items()
    )
