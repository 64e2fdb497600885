"""The rules of a policy in plain words, for `policy show`, `policy diff` and explanations.

Invariant: this module decides nothing; every word comes from the policy.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sweeper.policy.decide import ERASURE_ORDER, UNCLASSIFIED
from sweeper.policy.instant import rfc3339
from sweeper.policy.period import Period
from sweeper.policy.remedies import DOUBTED
from sweeper.policy.schema import (
    Action,
    Anchor,
    ColumnPeriod,
    ConsentEpoch,
    FeedbackRule,
    Floor,
    Policy,
    Purpose,
    Rule,
    Scalar,
    Term,
    Training,
)

ANCHORS = {
    Anchor.LAST_ACTIVITY: "last activity",
    Anchor.CREATED: "creation",
    Anchor.DELETED: "deletion",
    Anchor.CLOSED: "closing of the account",
    Anchor.FLAGGED: "flag",
    Anchor.CONSENT_ENDED: "end of consent",
}
FLAGS = {
    "incognito": ("it is incognito", "it is not incognito"),
    "zero_retention": ("it is marked zero-retention", "it is not marked zero-retention"),
    "deleted": ("the user has deleted it and not restored it since", "it is not deleted"),
    "closed": ("its account is closed", "its account is not closed"),
    "flagged": ("safety review has flagged it", "safety review has not flagged it"),
}
"""Each condition that is true or false, in words: if it must be true, and if it must be false."""
EPOCHS = {
    ConsentEpoch.OPEN: "its last activity lies inside a consent to {} that lasts",
    ConsentEpoch.CLOSED: "its last activity lies inside a consent to {} that has ended",
    ConsentEpoch.ANY: "its last activity lies inside a consent to {}, whether it lasts or has ended",
    ConsentEpoch.NONE: "its last activity lies inside no consent to {}",
}
RESUMED = {
    "from_opt_in": "in resumed conversations only what was written since the opt-in",
    "entire": "resumed conversations as a whole, with what was written while opted out",
}
TEXT = {
    "filtered": "text leaves the store only after sensitive data in it was replaced",
    "as_written": "text leaves the store as it was written",
}


def conditions(rule: Rule, policy: Policy) -> list[str]:
    """Return the conditions of a rule, each as a clause; all must hold. An empty list: it applies to every conversation."""
    return list(_conditions(rule, policy))


def _conditions(rule: Rule, policy: Policy) -> Iterator[str]:
    when = rule.when
    for name, (is_so, is_not) in FLAGS.items():
        wanted = getattr(when, name)
        if wanted is not None:
            yield is_so if wanted else is_not
    for column, words in (("kind", when.kind), ("platform", when.platform)):
        if words is not None:
            yield f"its {column} is {listed(words)}"
    for relation in ("conversation", "account"):
        for column, values in getattr(when, relation).items():
            yield f"{relation}.{column} is {listed(sorted(map(_scalar, values)))}"
    if when.any_plan is not None:
        yield f"one of its plans is {plans(when.any_plan, policy)}"
    if when.all_plans is not None:
        yield f"all of its plans are {plans(when.all_plans, policy)}"
    if when.consent is not None:
        yield EPOCHS[when.consent.epoch].format(when.consent.purpose)
    if when.unless:
        yield f"{listed(when.unless)} {'does' if len(when.unless) == 1 else 'do'} not apply"


def applies(rule: Rule, policy: Policy) -> str:
    """Return when a rule applies, as one sentence without its full stop."""
    found = "; ".join(conditions(rule, policy)) or "always"
    return f"{found} (also if plan or consent is in doubt)" if rule.stands_unclassified else found


def due(rule: Rule) -> str:
    """Return the due date that a rule names."""
    terms = list(map(term, rule.due))
    found = terms[0] if len(terms) == 1 else f"the earliest of {listed(terms, 'and')}"
    return f"{found}, for its content alone" if rule.action is Action.REDACT else found


def term(found: Term) -> str:
    """Return one anchor with its period, such as `last activity + 30 days`."""
    return _after(ANCHORS[found.anchor], found.period)


def _after(anchor: str, length: Period | ColumnPeriod) -> str:
    if isinstance(length, ColumnPeriod):
        without = f"otherwise {length.otherwise}" if length.otherwise else "otherwise no due date"
        return f"{anchor} + {length} ({without})"
    if length.forever:
        return "never"
    return anchor if length == Period() else f"{anchor} + {length}"


def floor(found: Floor) -> str:
    """Return the least retention of a floor."""
    return f"at least {_after(ANCHORS[Anchor(found.anchor)], found.period)}"


def purpose(found: Purpose, policy: Policy) -> str:
    """Return for which plans a purpose can be granted, and its dates."""
    parts = [f"for the plans {plans(found.plans, policy, 'and')}"]
    if found.not_before is not None:
        parts.append(f"no grant takes effect before {rfc3339(found.not_before)}")
    if found.undecided_after is not None:
        parts.append(f"who writes from {rfc3339(found.undecided_after)} on without having chosen is reported")
    return "; ".join(parts)


def training(found: Training | None) -> list[str]:
    """Return what may be trained on, beyond what consent requires, one sentence each."""
    if found is None:
        return ["nothing may be trained on"]
    return [
        f"only conversations on {listed(found.platforms)}",
        "messages of any age" if found.max_age.forever else f"no message older than {found.max_age}",
        RESUMED[found.resumed],
        TEXT[found.text],
    ]


def feedback(found: FeedbackRule) -> str:
    """Return to which feedback a rule applies."""
    before = f", submitted before {rfc3339(found.submitted_before)}" if found.submitted_before else ""
    return f"{listed(found.kinds)}{before}"


def feedback_due(found: FeedbackRule) -> str:
    """Return the due date that a rule for feedback names."""
    return _after("submission", found.period)


def plans(names: Iterable[str], policy: Policy, last: str = "or") -> str:
    """Return plans in words: a class of which all plans are among them by its name, then the others."""
    left, words = set(names), []
    for name, members in sorted(policy.plans.items()):
        if members <= left:
            words.append(name)
            left -= members
    return listed([*words, *sorted(left)], last)


def because(policy: Policy, rule: str, doubt: str | None = None) -> str:
    """Return the reason of a verdict: that of its rule or floor, or the doubt of one that is unclassified."""
    if rule == ERASURE_ORDER:
        return "an erasure order covers it"
    if rule == UNCLASSIFIED:
        return DOUBTED[doubt].cause if doubt is not None and doubt in DOUBTED else "its data are in doubt"
    reasons = {floor.name: floor.because for floor in policy.floors}
    reasons |= {each.name: each.because for each in policy.feedback}
    return policy.by_name[rule].because if rule in policy.by_name else reasons.get(rule, "")


def listed(words: Iterable[str], last: str = "or") -> str:
    """Return words as a list: `a, b or c`."""
    found = sorted(words) if isinstance(words, frozenset | set) else list(words)
    return f" {last} ".join(filter(None, (", ".join(found[:-1]), *found[-1:])))


def _scalar(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def as_json(policy: Policy) -> dict[str, Any]:
    """Return a policy in words for --json."""
    return {
        "name": policy.name,
        "digest": policy.digest,
        "plausible": {"from": policy.plausible.since, "before": policy.plausible.before},
        "rules": [
            {
                "name": rule.name,
                "applies_when": conditions(rule, policy),
                "stands_unclassified": rule.stands_unclassified,
                "action": rule.action,
                "due": list(map(term, rule.due)),
                "because": rule.because,
            }
            for rule in policy.every_rule
        ],
        "floors": [{"name": each.name, "due": floor(each), "because": each.because} for each in policy.floors],
        "plans": {name: sorted(members) for name, members in policy.plans.items()},
        "purposes": {name: purpose(found, policy) for name, found in policy.purposes.items()},
        "training": training(policy.training),
        "feedback": [
            {
                "name": each.name,
                "applies_to": feedback(each),
                "due": feedback_due(each),
                "because": each.because,
            }
            for each in policy.feedback
        ],
        "feedback_without_transcript": sorted(policy.feedback_without_transcript or ()),
    }
