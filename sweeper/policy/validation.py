"""Faults between the keys of a policy: names used twice, plans in two classes, anchors that may be missing.

The raw tables are checked, so that a fault elsewhere in the file hides none of these.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from sweeper.toml import InputFault, Loc, duplicates

Raw: TypeAlias = Mapping[str, Any]


def table(raw: Raw, key: str) -> Raw:
    """Return the table under a key; an empty one if the value is not a table."""
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def entries(raw: Raw, key: str) -> Iterator[tuple[Loc, Raw]]:
    """Yield the tables of a list, each with its position in the file."""
    found = raw.get(key)
    for number, entry in enumerate(found if isinstance(found, list) else ()):
        if isinstance(entry, dict):
            yield (key, number), entry


def texts(value: object) -> list[str]:
    """Return the distinct texts of a list; a single text counts as a list of one."""
    values = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for text in values if isinstance(text, str)))


def classes(raw: Raw) -> Mapping[str, frozenset[str]]:
    """Return the plan classes with their plans."""
    return {name: frozenset(texts(members)) for name, members in table(raw, "plans").items()}


def _names_once(raw: Raw) -> Iterator[InputFault]:
    """A name must be unique over all kinds of rules, since evidence and reasons give the name alone."""
    named = (
        ((*loc, "name"), entry["name"])
        for key in ("rules", "floors", "feedback")
        for loc, entry in entries(raw, key)
        if isinstance(entry.get("name"), str)
    )
    yield from duplicates(named, raw, "is already {first}: give each rule, floor and feedback rule its own name")


def _plans_in_one_class(raw: Raw) -> Iterator[InputFault]:
    plans = [(("plans", name), plan) for name, members in table(raw, "plans").items() for plan in texts(members)]
    yield from duplicates(plans, raw, "is in two classes: already in {first}; leave it out of one")
    for loc, plan in plans:
        if plan in table(raw, "plans"):
            yield InputFault(loc, f"{plan!r} is a plan named like a class: give one of them another name")


def _plans_with_one_purpose(raw: Raw) -> Iterator[InputFault]:
    known = classes(raw)
    plans = (
        (("purposes", name, "plans"), plan)
        for name in table(raw, "purposes")
        for plan in sorted(
            {p for plan in texts(table(raw["purposes"], name).get("plans")) for p in known.get(plan, {plan})}
        )
    )
    yield from duplicates(plans, raw, "belongs to two purposes: already in {first}; leave it out of one")


def _unless_is_flat(raw: Raw) -> Iterator[InputFault]:
    """A rule named by `unless` must not have an `unless` itself, so that the order of evaluation does not matter."""
    nesting = (texts(rule.get("name")) for _, rule in entries(raw, "rules") if table(rule, "when").get("unless"))
    nested = frozenset().union(*nesting)
    for loc, rule in entries(raw, "rules"):
        for name in texts(table(rule, "when").get("unless")):
            if name in nested:
                yield InputFault((*loc, "when", "unless"), f"{name!r} has an unless itself: name a rule that has none")


def _unless_has_one_action(raw: Raw) -> Iterator[InputFault]:
    """A rule and those that its `unless` names must do the same: each action is decided by itself."""
    actions = {name: _action(rule) for _, rule in entries(raw, "rules") for name in texts(rule.get("name"))}
    for loc, rule in entries(raw, "rules"):
        for name in texts(table(rule, "when").get("unless")):
            if actions.get(name, _action(rule)) != _action(rule):
                words = f"{name!r} has action = {actions[name]!r}, and this rule {_action(rule)!r}: name rules of one action"
                yield InputFault((*loc, "when", "unless"), words)


def _action(rule: Raw) -> str:
    return str(rule.get("action", "purge"))


class ConditionPath(NamedTuple):
    """A condition that an anchor requires, and how it is written in a policy."""

    holds: Callable[[Raw], bool]
    condition: str


NEEDED: Mapping[str, ConditionPath] = {
    "deleted": ConditionPath(lambda when: when.get("deleted") is True, "deleted = true"),
    "closed": ConditionPath(lambda when: when.get("closed") is True, "closed = true"),
    "flagged": ConditionPath(lambda when: when.get("flagged") is True, "flagged = true"),
    "consent_ended": ConditionPath(
        lambda when: table(when, "consent").get("epoch") == "closed",
        'consent = { purpose = …, epoch = "closed" }',
    ),
}
"""The condition that each of these anchors requires."""


def _anchors_exist(raw: Raw) -> Iterator[InputFault]:
    """An anchor must be set wherever its rule applies."""
    for loc, rule in entries(raw, "rules"):
        for (_, number), term in entries(rule, "due"):
            anchor = str(term.get("anchor"))
            if anchor in NEEDED and not NEEDED[anchor].holds(table(rule, "when")):
                yield InputFault(
                    (*loc, "due", number, "anchor"), f"{anchor!r} needs the condition {NEEDED[anchor].condition}"
                )


def _doubt_keeps(raw: Raw) -> Iterator[InputFault]:
    """A rule that applies to unclassified conversations must not depend on plans, consent or other rules."""
    for loc, rule in entries(raw, "rules"):
        doubtful = [key for key in ("any_plan", "all_plans", "consent", "unless") if table(rule, "when").get(key)]
        if rule.get("stands_unclassified") is True and doubtful:
            yield InputFault(
                (*loc, "stands_unclassified"),
                "only for rules without conditions on plans, consent or other rules: leave out this, or "
                + " and ".join(doubtful),
            )


CHECKS = (
    _names_once,
    _plans_in_one_class,
    _plans_with_one_purpose,
    _unless_is_flat,
    _unless_has_one_action,
    _anchors_exist,
    _doubt_keeps,
)


def faults(raw: Raw) -> Iterator[InputFault]:
    """Yield every fault between the keys of a raw policy."""
    for check in CHECKS:
        yield from check(raw)
