"""What differs between two policies, in words, and whether it can shorten the retention of any record.

Invariant: unless it can be seen from the two policies alone that no due date becomes earlier, a difference counts as shortening.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sweeper.policy import words
from sweeper.policy.instant import rfc3339
from sweeper.policy.period import Period
from sweeper.policy.schema import ColumnPeriod, FeedbackRule, Floor, Policy, Rule, Strict, Term

Named = TypeVar("Named", Rule, Floor, FeedbackRule)


@dataclass(frozen=True)
class Difference:
    """One difference. `part` is the rule or table that differs; `shortens`: some record's retention may become shorter."""

    part: str
    text: str
    shortens: bool

    def __str__(self) -> str:
        return f"{self.part}: {self.text}"


def differences(old: Policy, new: Policy) -> list[Difference]:
    """Return what differs between two policies; an empty list if their digests are equal."""
    found = [each for look in LOOKS for each in look(old, new)]
    if not found and old.digest != new.digest:
        found = [Difference("policy", "differs in what has no words here", shortens=True)]
    return found


def _rules(old: Policy, new: Policy) -> Iterator[Difference]:
    yield from _listed(
        "rule",
        old.every_rule,
        new.every_rule,
        lambda rule: f"applies when {words.applies(rule, new)}; due {words.due(rule)}",
        removal_shortens=lambda rule: bool(_columns(rule)),  # what is in doubt because of a column is kept
        addition_shortens=True,
    )
    before, after = (
        [rule.name for rule in each.every_rule if rule.name in old.by_name.keys() & new.by_name] for each in (old, new)
    )
    if before != after:
        yield Difference(
            "rules", "are listed in another order, which names the rule of equal due dates", shortens=False
        )
    for rule in new.every_rule:
        if rule.name in old.by_name:
            yield from _rule(old.by_name[rule.name], rule, old, new)


def _rule(old: Rule, new: Rule, was: Policy, is_: Policy) -> Iterator[Difference]:
    part = f"rule {new.name}"
    now, before = words.applies(new, is_), words.applies(old, was)
    has_changed = old.when.model_dump_json() != new.when.model_dump_json()  # JSON: 1 is not true
    if now != before or (has_changed and was.plans == is_.plans):  # else `_plans` tells what changed
        yield _instead(part, "applies when ", now, before, shortens=True)
    if old.due != new.due:
        shortens = _columns(old) != _columns(new) or not all(_is_later(term, old.due) for term in new.due)
        yield _instead(part, "due ", words.due(new), words.due(old), shortens=shortens)
    if old.action is not new.action:
        yield _instead(part, "", f"{new.action}s", f"{old.action}s", shortens=True)
    yield from _otherwise(part, old, new, "name", "because", "when", "stands_unclassified", "due", "action")


def _columns(rule: Rule) -> set[tuple[str, str]]:
    """Return the columns that a rule reads periods from; an unusable value there is a doubt, which keeps a conversation."""
    return {(term.period.column, term.period.unit) for term in rule.due if isinstance(term.period, ColumnPeriod)}


def _is_later(new: Term, terms: Iterable[Term]) -> bool:
    """Return whether the date of a term is never earlier than that of one of `terms`."""
    return any(term.anchor is new.anchor and _never_shorter(new.period, term.period) for term in terms)


def _never_shorter(new: Period | ColumnPeriod, old: Period | ColumnPeriod) -> bool:
    if isinstance(new, Period) and isinstance(old, Period):
        return new.never_shorter_than(old)
    if not (isinstance(new, ColumnPeriod) and isinstance(old, ColumnPeriod)):
        return False
    if (new.column, new.unit) != (old.column, old.unit):
        return False
    return new.otherwise is None or (old.otherwise is not None and new.otherwise.never_shorter_than(old.otherwise))


def _floors(old: Policy, new: Policy) -> Iterator[Difference]:
    yield from _listed("floor", old.floors, new.floors, words.floor, lambda _: True, addition_shortens=False)
    before = {floor.name: floor for floor in old.floors}
    for floor in new.floors:
        was = before.get(floor.name, floor)
        if (was.anchor, was.period) != (floor.anchor, floor.period):
            shortens = was.anchor != floor.anchor or not floor.period.never_shorter_than(was.period)
            yield _instead(f"floor {floor.name}", "", words.floor(floor), words.floor(was), shortens=shortens)
        yield from _otherwise(f"floor {floor.name}", was, floor, "name", "because", "anchor", "period")


def _feedback(old: Policy, new: Policy) -> Iterator[Difference]:
    yield from _listed(
        "feedback rule",
        old.feedback,
        new.feedback,
        lambda rule: f"applies to {words.feedback(rule)}; due {words.feedback_due(rule)}",
        removal_shortens=lambda _: False,
        addition_shortens=True,
    )
    before = {rule.name: rule for rule in old.feedback}
    for rule in new.feedback:
        was, part = before.get(rule.name, rule), f"feedback rule {rule.name}"
        if (was.kinds, was.submitted_before) != (rule.kinds, rule.submitted_before):
            yield _instead(
                part, "applies to ", words.feedback(rule), words.feedback(was), shortens=not _is_narrower(rule, was)
            )
        if was.period != rule.period:
            shortens = not rule.period.never_shorter_than(was.period)
            yield _instead(part, "due ", words.feedback_due(rule), words.feedback_due(was), shortens=shortens)
        yield from _otherwise(part, was, rule, "name", "because", "kinds", "submitted_before", "period")


def _is_narrower(new: FeedbackRule, old: FeedbackRule) -> bool:
    """Return whether a rule applies to nothing but what the other one applied to."""
    earlier = old.submitted_before is None or (
        new.submitted_before is not None and new.submitted_before <= old.submitted_before
    )
    return new.kinds <= old.kinds and earlier


def _plans(old: Policy, new: Policy) -> Iterator[Difference]:
    """A plan in no class is unknown, and its conversations are kept; so any change may classify some."""
    for name in sorted(old.plans.keys() | new.plans):
        was, is_ = (words.listed(each.plans.get(name, frozenset()), "and") for each in (old, new))
        if was != is_:
            yield _instead(f"plans {name}", "", is_, was, shortens=True)


def _purposes(old: Policy, new: Policy) -> Iterator[Difference]:
    for name in sorted(old.purposes.keys() | new.purposes):
        was, is_ = old.purposes.get(name), new.purposes.get(name)
        if was == is_:
            continue
        shortens = was is None or is_ is None or (was.plans, was.not_before) != (is_.plans, is_.not_before)
        said, former = (words.purpose(each, of) if each else "" for each, of in ((is_, new), (was, old)))
        if said != former or old.plans == new.plans:  # else `_plans` tells what changed
            yield _instead(f"purpose {name}", "", said, former, shortens=shortens)
        if was and is_:
            yield from _otherwise(f"purpose {name}", was, is_, "plans", "not_before", "undecided_after")


def _plausible(old: Policy, new: Policy) -> Iterator[Difference]:
    was, is_ = (f"{rfc3339(p.plausible.since)} to {rfc3339(p.plausible.before)}" for p in (old, new))
    if was != is_:
        yield _instead("plausible", "", is_, was, shortens=True)


def _training(old: Policy, new: Policy) -> Iterator[Difference]:
    """What may be trained on moves no due date; a policy that admits more is accepted by a person all the same."""
    if old.training == new.training:
        return
    was, is_ = words.training(old.training), words.training(new.training)
    new_words, old_words = (
        "; ".join(line for line in one if line not in other) for one, other in ((is_, was), (was, is_))
    )
    yield _instead("training", "", new_words, old_words, shortens=new.training is not None)


def _texts(old: Policy, new: Policy) -> Iterator[Difference]:
    """What changes no decision, and what this module does not know."""
    if old.name != new.name:
        yield _instead("name", "", repr(new.name), repr(old.name), shortens=False)
    if old.feedback_without_transcript != new.feedback_without_transcript:
        is_, was = (words.listed(each.feedback_without_transcript or ()) for each in (new, old))
        yield _instead("feedback without transcript", "", is_, was, shortens=False)
    yield from _reasons("rule", old.every_rule, new.every_rule)
    yield from _reasons("floor", old.floors, new.floors)
    yield from _reasons("feedback rule", old.feedback, new.feedback)
    known = ("name", "every_rule", "floors", "feedback", "plans", "purposes", "plausible", "training")
    yield from _otherwise("policy", old, new, *known, "feedback_without_transcript")


def _reasons(kind: str, old: Iterable[Named], new: Iterable[Named]) -> Iterator[Difference]:
    before = {each.name: each.because for each in old}
    for each in new:
        was = before.get(each.name, each.because)
        if was != each.because:
            yield _instead(f"{kind} {each.name}", "because ", repr(each.because), repr(was), shortens=False)


def _listed(
    kind: str,
    old: Iterable[Named],
    new: Iterable[Named],
    said: Callable[[Named], str],
    removal_shortens: Callable[[Named], bool],
    *,
    addition_shortens: bool,
) -> Iterator[Difference]:
    """Yield what is only in one of two lists of named rules."""
    before, after = ({each.name: each for each in rules} for rules in (old, new))
    for name, each in before.items():
        if name not in after:
            yield Difference(f"{kind} {name}", "is not there any more", shortens=removal_shortens(each))
    for name, each in after.items():
        if name not in before:
            yield Difference(f"{kind} {name}", f"is new: {said(each)}", shortens=addition_shortens)


def _instead(part: str, what: str, new: str, old: str, *, shortens: bool) -> Difference:
    return Difference(part, f"{what}{new or 'nothing'} instead of {old or 'nothing'}", shortens)


def _otherwise(part: str, old: Strict, new: Strict, *told: str) -> Iterator[Difference]:
    """Yield a difference in any other field than those that have words; it counts as shortening."""
    fields: Mapping[str, Any] = type(new).model_fields
    for name in fields:
        if name not in told and getattr(old, name) != getattr(new, name):
            yield _instead(part, f"{name} ", str(getattr(new, name)), str(getattr(old, name)), shortens=True)


LOOKS = (_rules, _floors, _plans, _purposes, _plausible, _training, _feedback, _texts)
"""What is compared, in the order in which it is told."""
