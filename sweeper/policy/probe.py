"""What to look for: each rule of the policy as probes, an anchor and a horizon with the conditions that can be searched.

The law of this file: a probe may find too much; what `decide` calls due is never missed. A condition that cannot be searched
exactly is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sweeper.policy.period import Period
from sweeper.policy.schema import SLACK_DAYS, Anchor, ColumnPeriod, Consent, ConsentEpoch, Policy, Rule, Term, When

SLACK = timedelta(days=SLACK_DAYS)


@dataclass(frozen=True)
class Probe:
    """One search. `horizon` is the latest anchor that may be due; `column` replaces it where a column holds the period.

    `floor` is the earliest anchor that is looked for, unless a later step moved the due; None: there is no bound.

    `spared_by` names a rule that this one yields to: only conversations outside its reach are searched for.
    """

    rule: str
    anchor: Anchor
    horizon: datetime
    when: When
    column: ColumnPeriod | None = None
    consent: Consent | None = None
    spared_by: Rule | None = None
    floor: datetime | None = None

    @property
    def needs_history(self) -> bool:
        """Whether the search asks for plans or consent."""
        return self.when.any_plan is not None or self.when.all_plans is not None or self.consent is not None


def probes(policy: Policy, as_of: datetime, since: datetime | None = None) -> Iterator[Probe]:
    """The probes of a policy for dues up to `as_of` (UTC) and not before `since`, in the order of its rules."""
    for rule in policy.rules:
        for term in rule.due:
            horizon = _horizon(term, as_of)
            if horizon is not None:
                column = term.period if isinstance(term.period, ColumnPeriod) else None
                floor = earliest(term.period, since) if since and isinstance(term.period, Period) else None
                probe = Probe(rule.name, term.anchor, horizon, rule.when, column, rule.when.consent, floor=floor)
                yield from _variants(probe, policy)


def floor_since(policy: Policy, as_of: datetime) -> datetime | None:
    """Flagged after this and at or before as-of: certainly not due by a rule. None where no floor says so."""
    reaches = [floor.period.before(as_of) for floor in policy.floors]
    since = [policy.plausible.since if reach is None else reach + SLACK for reach in reaches]
    return max(min(since), policy.plausible.since) if since else None


def _horizon(term: Term, as_of: datetime) -> datetime | None:
    """The latest anchor that may be due, with a slack for calendars; None where nothing ever is."""
    if isinstance(term.period, ColumnPeriod):
        return as_of
    return latest(term.period, as_of)


def latest(period: Period, as_of: datetime) -> datetime | None:
    """The latest anchor from which a period may have ended at `as_of`: exact in seconds, with a slack in calendar months."""
    before = period.before(as_of)
    if before is None:
        return None
    return before + SLACK if period.months else before


def earliest(period: Period, since: datetime) -> datetime | None:
    """The earliest anchor from which a period ends at `since` or later, with a slack in calendar months; None: no bound."""
    before = period.before(since)
    slack = SLACK if period.months else timedelta()
    if before is None or before - datetime.min.replace(tzinfo=UTC) < slack:  # before year 1
        return None
    return before - slack


def _variants(probe: Probe, policy: Policy) -> Iterator[Probe]:
    """A rule that yields to one with a consent of its own is searched outside that one's epochs and beside its conditions."""
    yielding = [policy.by_name[name] for name in probe.when.unless]
    sparing = next((rule for rule in yielding if rule.when.consent is not None), None)
    if sparing is None or sparing.when.consent is None or probe.consent is not None:
        yield probe
        return
    purpose = sparing.when.consent.purpose
    for state in (ConsentEpoch.OPEN, ConsentEpoch.CLOSED, ConsentEpoch.NONE):
        reached = sparing.when.consent.epoch.admits(state)
        yield replace(
            probe,
            consent=Consent.model_construct(purpose=purpose, epoch=state),
            spared_by=sparing if reached else None,
        )
