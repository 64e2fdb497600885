"""Faults that no key of a policy shows by itself: names used twice, plans in two places, anchors that may not exist.

The law of this file: it reads the raw tables, however malformed the rest is, so that no other fault hides one of these.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from sweeper.toml import InputFault, Loc, repeats

Raw: TypeAlias = Mapping[str, Any]


def table(raw: Raw, key: str) -> Raw:
    """The table under a key; none where something else is written."""
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def entries(raw: Raw, key: str) -> Iterator[tuple[Loc, Raw]]:
    """The tables of a list, each with its place."""
    found = raw.get(key)
    for number, entry in enumerate(found if isinstance(found, list) else ()):
        if isinstance(entry, dict):
            yield (key, number), entry


def texts(value: object) -> list[str]:
    """The texts of a list, or the one text where a list is meant; each once."""
    values = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for text in values if isinstance(text, str)))


def classes(raw: Raw) -> Mapping[str, frozenset[str]]:
    """The plan classes with their plans."""
    return {name: frozenset(texts(members)) for name, members in table(raw, "plans").items()}


def _names_once(raw: Raw) -> Iterator[InputFault]:
    """Evidence and reasons go by the name alone, whatever kind of rule it is."""
    named = (
        ((*loc, "name"), entry["name"])
        for key in ("rules", "floors", "feedback")
        for loc, entry in entries(raw, key)
        if isinstance(entry.get("name"), str)
    )
    yield from repeats(named, raw, "is already {first}: give each rule, floor and feedback rule its own name")


def _plans_in_one_class(raw: Raw) -> Iterator[InputFault]:
    plans = [(("plans", name), plan) for name, members in table(raw, "plans").items() for plan in texts(members)]
    yield from repeats(plans, raw, "is in two classes: already in {first}; leave it out of one")
    for loc, plan in plans:
        if plan in table(raw, "plans"):
            yield InputFault(loc, f"{plan!r} is a plan named like a class: give one of them another name")


def _plans_with_one_purpose(raw: Raw) -> Iterator[InputFault]:
    known = classes(raw)
    plans = (
        (("purposes", name, "plans"), plan)
        for name in table(raw, "purposes")
        for plan in sorted(
            {p for said in texts(table(raw["purposes"], name).get("plans")) for p in known.get(said, {said})}
        )
    )
    yield from repeats(plans, raw, "belongs to two purposes: already in {first}; leave it out of one")


def _unless_is_flat(raw: Raw) -> Iterator[InputFault]:
    """`unless` names rules that themselves have none, so that no order of reading matters."""
    nesting = (texts(rule.get("name")) for _, rule in entries(raw, "rules") if table(rule, "when").get("unless"))
    nested = frozenset().union(*nesting)
    for loc, rule in entries(raw, "rules"):
        for name in texts(table(rule, "when").get("unless")):
            if name in nested:
                yield InputFault((*loc, "when", "unless"), f"{name!r} has an unless itself: name a rule that has none")


class ConditionPath(NamedTuple):
    """What a rule's `when` must say, and how it is written."""

    holds: Callable[[Raw], bool]
    said: str


NEEDED: Mapping[str, ConditionPath] = {
    "deleted": ConditionPath(lambda when: when.get("deleted") is True, "deleted = true"),
    "closed": ConditionPath(lambda when: when.get("closed") is True, "closed = true"),
    "flagged": ConditionPath(lambda when: when.get("flagged") is True, "flagged = true"),
    "consent_ended": ConditionPath(
        lambda when: table(when, "consent").get("epoch") == "closed",
        'consent = { purpose = …, epoch = "closed" }',
    ),
}
"""The conditions without which an anchor may not be there."""


def _anchors_exist(raw: Raw) -> Iterator[InputFault]:
    """An anchor must exist wherever the rule applies."""
    for loc, rule in entries(raw, "rules"):
        for (_, number), term in entries(rule, "due"):
            anchor = str(term.get("anchor"))
            if anchor in NEEDED and not NEEDED[anchor].holds(table(rule, "when")):
                yield InputFault(
                    (*loc, "due", number, "anchor"), f"{anchor!r} needs the condition {NEEDED[anchor].said}"
                )


def _doubt_keeps(raw: Raw) -> Iterator[InputFault]:
    """Doubt about plans or consent must not purge."""
    for loc, rule in entries(raw, "rules"):
        doubtful = [key for key in ("any_plan", "all_plans", "consent", "unless") if table(rule, "when").get(key)]
        if rule.get("stands_unclassified") is True and doubtful:
            yield InputFault(
                (*loc, "stands_unclassified"),
                "only for rules without conditions on plans, consent or other rules: leave out this, or "
                + " and ".join(doubtful),
            )


CHECKS = (_names_once, _plans_in_one_class, _plans_with_one_purpose, _unless_is_flat, _anchors_exist, _doubt_keeps)


def faults(raw: Raw) -> Iterator[InputFault]:
    """Every fault between the keys of a raw policy."""
    for check in CHECKS:
        yield from check(raw)
