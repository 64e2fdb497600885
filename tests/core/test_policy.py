"""The policy file: what the shipped one says, what is refused and with which key, and what its digest names."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sweeper.policy.decide import decide
from sweeper.policy.facts import Account, Conversation, Facts, Feedback, PlanChange
from sweeper.policy.feedback import FeedbackFacts, decide_feedback, feedback_anomalies
from sweeper.policy.instant import OutOfRange
from sweeper.policy.period import Period
from sweeper.policy.schema import Anchor, ColumnPeriod, Consent, ConsentEpoch, Policy, PolicyError, checked, parse

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = (CONFIG / "policy.toml").read_text()

HEAD = """
format = 1
name = "test"

[plausible]
from = 2015-01-01T00:00:00Z
before = 9999-01-01T00:00:00Z

[plans]
consumer = ["free", "pro"]
commercial = ["team"]

[purposes.improve]
plans = ["consumer"]
"""
RULE = """
[[rules]]
name = "standard"
because = "it is old"
due = [{ anchor = "last_activity", period = "30 days" }]
"""
FLOOR = """
[[floors]]
name = "flagged"
because = "flagged"
anchor = "flagged"
period = "2 years"
"""
FEEDBACK = """
[[feedback]]
name = "feedback"
because = "kept five years"
kinds = ["thumbs"]
period = "5 years"
"""
TRAINING = """
[training]
platforms = ["first_party"]
max_age = "5 years"
"""
WHOLE = HEAD + RULE + FLOOR + FEEDBACK + TRAINING


def refused(text: str) -> list[str]:
    """The faults of a policy that must not be accepted, one a line."""
    with pytest.raises(PolicyError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def keys(text: str) -> list[str]:
    """The key paths of its faults."""
    return [line.partition(": ")[0] for line in refused(text)]


def instead(old: str, new: str, text: str = WHOLE) -> str:
    """The text with its first `old` replaced."""
    assert old in text
    return text.replace(old, new, 1)


# The shipped policy


def when(policy: Policy, name: str) -> dict[str, object]:
    """The conditions that are written for a rule."""
    written = policy.by_name[name].when
    return {key: getattr(written, key) for key in written.model_fields_set}


def dues(policy: Policy, name: str) -> set[tuple[str, str]]:
    """The terms of a rule."""
    return {(term.anchor.value, str(term.period)) for term in policy.by_name[name].due}


CONSUMER = frozenset({"free", "pro", "max"})
COMMERCIAL = frozenset({"team", "enterprise", "api", "gov", "education"})
TABLE = {
    "zero_retention": ({"zero_retention": True}, {("last_activity", "0")}),
    "deleted": ({"deleted": True}, {("deleted", "30 days")}),
    "account_closed": ({"closed": True}, {("closed", "30 days")}),
    "incognito": ({"incognito": True}, {("last_activity", "30 days")}),
    "commercial": ({"any_plan": COMMERCIAL, "unless": ("partner",)}, {("last_activity", "30 days")}),
    "partner": (
        {
            "all_plans": frozenset({"api"}),
            "platform": frozenset({"first_party"}),
            "consent": Consent.model_construct(purpose="development_partner", epoch=ConsentEpoch.ANY),
        },
        {("last_activity", "2 years")},
    ),
    "consent_ended": (
        {
            "any_plan": CONSUMER,
            "consent": Consent.model_construct(purpose="model_improvement", epoch=ConsentEpoch.CLOSED),
        },
        {("last_activity", "5 years"), ("consent_ended", "30 days")},
    ),
    "training_allowed": (
        {
            "any_plan": CONSUMER,
            "consent": Consent.model_construct(purpose="model_improvement", epoch=ConsentEpoch.OPEN),
        },
        {("last_activity", "5 years")},
    ),
    "standard": (
        {
            "any_plan": CONSUMER,
            "consent": Consent.model_construct(purpose="model_improvement", epoch=ConsentEpoch.NONE),
        },
        {("last_activity", "30 days")},
    ),
}


def test_shipped_rules_are_the_table_in_its_order(policy: Policy) -> None:
    """The shipped policy has the nine rules of the table, in its order, and no other."""
    assert [rule.name for rule in policy.rules] == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_shipped_rule(name: str, policy: Policy) -> None:
    """Each shipped rule has the conditions and the due of its row."""
    conditions, terms = TABLE[name]
    assert when(policy, name) == conditions
    assert dues(policy, name) == terms


def test_shipped_rules_that_need_no_plan(policy: Policy) -> None:
    """Exactly the four rules that need no plan stand for an unclassified conversation."""
    standing = {rule.name for rule in policy.rules if rule.stands_unclassified}
    assert standing == {"zero_retention", "deleted", "account_closed", "incognito"}


def test_shipped_plans_and_purposes(policy: Policy) -> None:
    """Plan classes, purposes and their instants are those of the rules."""
    assert policy.plans == {"consumer": CONSUMER, "commercial": COMMERCIAL}
    improvement, partner = policy.purposes["model_improvement"], policy.purposes["development_partner"]
    assert (improvement.plans, partner.plans) == (CONSUMER, frozenset({"api"}))
    assert improvement.not_before == datetime(2025, 8, 28, tzinfo=UTC)
    assert improvement.undecided_after == datetime(2025, 10, 8, tzinfo=UTC)
    assert (partner.not_before, partner.undecided_after) == (None, None)
    assert policy.purpose_of_plan == dict.fromkeys(CONSUMER, "model_improvement") | {"api": "development_partner"}


def test_shipped_floor_range_and_training(policy: Policy) -> None:
    """The floor of flags, the plausible range and the training scope are those of the rules."""
    assert [(f.name, f.anchor, str(f.period)) for f in policy.floors] == [("flagged", Anchor.FLAGGED, "2 years")]
    assert policy.plausible.since == datetime(2015, 1, 1, tzinfo=UTC)
    assert policy.plausible.before == datetime(9999, 1, 1, tzinfo=UTC)
    assert policy.training is not None
    assert policy.training.platforms == {"first_party"}
    assert (str(policy.training.max_age), policy.training.resumed) == ("5 years", "from_opt_in")


def test_shipped_feedback(policy: Policy) -> None:
    """Feedback is kept five years, bug reports from before the terms thirty days; a survey carries no transcript."""
    every, early = policy.feedback
    assert every.kinds == frozenset({"thumbs", "survey", "bug_report"})
    assert (str(every.period), every.submitted_before) == ("5 years", None)
    assert (early.kinds, str(early.period)) == (frozenset({"bug_report"}), "30 days")
    assert early.submitted_before == datetime(2025, 10, 17, tzinfo=UTC)
    assert policy.feedback_without_transcript == frozenset({"survey"})


def test_entire_is_one_line_with_its_warning(policy: Policy) -> None:
    """The other training scope is one changed line, beside a comment that says what it trains on."""
    entire = parse(instead('resumed = "from_opt_in"', 'resumed = "entire"', SHIPPED))
    assert entire.training is not None
    assert entire.training.resumed == "entire"
    assert entire.digest != policy.digest
    assert re.search(r'# "entire".*\n?.*while opted out', SHIPPED)


def test_history_is_used(policy: Policy) -> None:
    """The shipped policy decides by plans and by consent; the examples by neither."""
    assert (policy.uses_plans, policy.uses_consent) == (True, True)
    for example in (CONFIG / "examples").glob("*.toml"):
        other = parse(example.read_text())
        assert (other.uses_plans, other.uses_consent) == (False, False), example.name


def test_examples() -> None:
    """Two other providers express their rules without a code change."""
    found = {path.stem: parse(path.read_text()) for path in (CONFIG / "examples").glob("*.toml")}
    assert len(found) == 2
    until_deleted = next(p for p in found.values() if "temporary" in p.by_name)
    assert dues(until_deleted, "deleted") == {("deleted", "30 days")}
    assert dues(until_deleted, "temporary") == {("created", "30 days")}
    months = next(p for p in found.values() if "eighteen_months" in p.by_name)
    assert dues(months, "eighteen_months") == {("last_activity", "18 months")}
    assert dues(months, "history_off") == {("last_activity", "3 days")}
    assert months.by_name["history_off"].when.account == {"history_enabled": frozenset({False})}
    setting = months.by_name["own_setting"].due[0].period
    assert isinstance(setting, ColumnPeriod)
    assert (setting.relation, setting.name, setting.unit) == ("account", "retention_days", "day")
    assert months.columns("account") == ("history_enabled", "retention_days")
    assert months.columns("conversation") == ()


# The digest


def sections(text: str) -> list[str]:
    """The text in parts that TOML lets stand in any order: what is above the first table, then each table."""
    return re.split(r"\n(?=\[[a-z])", text)


def test_digest_ignores_comments_and_order() -> None:
    """Comments, blank lines, the order of keys and tables and the order within a set do not change the digest."""
    digest = parse(WHOLE).digest
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert parse("# a comment\n\n" + WHOLE.replace("\n", "  # why\n")).digest == digest
    head, *tables = sections(HEAD + TRAINING)
    rule = sections(RULE)[-1]
    for order in permutations(tables):
        assert parse("\n".join([head, *order, rule])).digest == parse(HEAD + TRAINING + RULE).digest
    assert parse(instead('["free", "pro"]', '["pro", "free"]')).digest == digest
    assert parse(instead("2015-01-01T00:00:00Z", "2015-01-01T09:00:00+09:00")).digest == digest
    assert parse(instead('"30 days"', '"2592000 seconds"')).digest == digest


CHANGES = [
    ('name = "test"', 'name = "other"'),
    ("2015-01-01T00:00:00Z", "2015-01-01T00:00:00.000001Z"),
    ("9999-01-01T00:00:00Z", "9998-01-01T00:00:00Z"),
    ('["free", "pro"]', '["free", "pro", "max"]'),
    ('["free", "pro"]', '["free"]'),
    ('plans = ["consumer"]', 'plans = ["free"]'),
    ('plans = ["consumer"]', 'plans = ["consumer"]\nnot_before = 2025-08-28T00:00:00Z'),
    ('plans = ["consumer"]', 'plans = ["consumer"]\nundecided_after = 2025-08-28T00:00:00Z'),
    ('name = "standard"', 'name = "usual"'),
    ('because = "it is old"', 'because = "it is very old"'),
    ('"30 days"', '"31 days"'),
    ('"30 days"', '"1 month"'),
    ('"30 days"', '"forever"'),
    ('"30 days"', '{ column = "account.days", unit = "day" }'),
    ('"30 days"', '{ column = "account.days", unit = "week" }'),
    ('"30 days"', '{ column = "account.days", unit = "day", otherwise = "30 days" }'),
    ('"30 days"', '{ column = "account.days", unit = "day", otherwise = "31 days" }'),
    ('anchor = "last_activity"', 'anchor = "created"'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { incognito = false }'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { incognito = true }'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { account = { tier = [1] } }'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { account = { tier = [true] } }'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { account = { tier = ["1"] } }'),
    ('because = "it is old"', 'because = "it is old"\nwhen = { conversation = { tier = [1] } }'),
    ('because = "it is old"', 'because = "it is old"\nstands_unclassified = true'),
    ('"2 years"', '"3 years"'),
    ('kinds = ["thumbs"]', 'kinds = ["survey"]'),
    ('kinds = ["thumbs"]', 'kinds = ["thumbs"]\nsubmitted_before = 2025-10-17T00:00:00Z'),
    ('platforms = ["first_party"]', 'platforms = ["bedrock"]'),
    ('max_age = "5 years"', 'max_age = "4 years"'),
    (TRAINING, ""),
    (FEEDBACK, ""),
    (FLOOR, ""),
    (RULE, RULE + RULE.replace('"standard"', '"again"')),
]


def test_digest_names_every_change() -> None:
    """No two policies that say something different share a digest."""
    digests = [parse(WHOLE).digest, *(parse(instead(old, new)).digest for old, new in CHANGES)]
    assert len(set(digests)) == len(digests)
    two = RULE + RULE.replace('"standard"', '"again"')
    other_way = RULE.replace('"standard"', '"again"') + RULE
    assert parse(HEAD + two).digest != parse(HEAD + other_way).digest, "the rule listed first wins equal dues"


# Faults


def rule_with(condition: str) -> str:
    """The whole policy, its rule with a condition."""
    return instead('because = "it is old"', f'because = "it is old"\nwhen = {condition}')


FAULTS = {
    "unknown key at the top": ("retention = 30\n" + WHOLE, "retention", "unknown key"),
    "unknown key in a rule": (
        instead('because = "it is old"', 'because = "b"\nwhy = "c"'),
        "rules[0] (standard).why",
        "",
    ),
    "unknown condition": (rule_with('{ kinds = ["chat"] }'), "rules[0] (standard).when.kinds", "unknown key"),
    "unknown key in a term": (
        instead('period = "30 days" }', 'period = "30 days", slack = 1 }'),
        "rules[0] (standard).due[0].slack",
        "",
    ),
    "unknown key of a purpose": (
        instead('plans = ["consumer"]', 'plans = ["free"]\nfor = 1'),
        "purposes.improve.for",
        "",
    ),
    "no format": (instead("format = 1\n", ""), "format", "is missing"),
    "another format": (instead("format = 1", "format = 2"), "format", "1"),
    "no name": (instead('name = "test"', 'name = ""'), "name", "must not be empty"),
    "no rules": (HEAD, "rules", "is missing"),
    "rules of a wrong type": (HEAD + '[rules]\nname = "standard"\n', "rules", "must be a list"),
    "rules that are no tables": ("rules = [1]\n" + HEAD, "rules[0]", "must be a table"),
    "a rule without a reason": (instead('because = "it is old"', 'because = ""'), "rules[0] (standard).because", ""),
    "a rule without a due": (
        instead('due = [{ anchor = "last_activity", period = "30 days" }]', ""),
        "rules[0] (standard).due",
        "is missing",
    ),
    "an empty due": (
        instead('due = [{ anchor = "last_activity", period = "30 days" }]', "due = []"),
        "rules[0] (standard).due",
        "must not be empty",
    ),
    "a rule's name with blanks": (
        instead('name = "standard"', 'name = "Stan dard"'),
        "rules[0] (Stan dard).name",
        "small letters",
    ),
    "unknown plan of a condition": (
        rule_with('{ any_plan = ["gold"] }'),
        "rules[0] (standard).when.any_plan[0]",
        "gold",
    ),
    "unknown class of a condition": (
        rule_with('{ all_plans = ["business"] }'),
        "rules[0] (standard).when.all_plans[0]",
        "business",
    ),
    "unknown plan of a purpose": (
        instead('plans = ["consumer"]', 'plans = ["gold"]'),
        "purposes.improve.plans[0]",
        "gold",
    ),
    "no plan in a condition": (
        rule_with("{ any_plan = [] }"),
        "rules[0] (standard).when.any_plan",
        "must not be empty",
    ),
    "no kind in a condition": (rule_with("{ kind = [] }"), "rules[0] (standard).when.kind", "must not be empty"),
    "no value in a condition": (
        rule_with("{ account = { tier = [] } }"),
        "rules[0] (standard).when.account.tier",
        "must not be empty",
    ),
    "an empty class": (instead('commercial = ["team"]', "commercial = []"), "plans.commercial", "must not be empty"),
    "no platform": (
        instead('platforms = ["first_party"]', "platforms = []"),
        "training.platforms",
        "must not be empty",
    ),
    "no kind of feedback": (
        instead('kinds = ["thumbs"]', "kinds = []"),
        "feedback[0] (feedback).kinds",
        "must not be empty",
    ),
    "unknown purpose": (
        rule_with('{ consent = { purpose = "sale", epoch = "open" } }'),
        "rules[0] (standard).when.consent.purpose",
        "sale",
    ),
    "unknown epoch": (
        rule_with('{ consent = { purpose = "improve", epoch = "sometimes" } }'),
        "rules[0] (standard).when.consent.epoch",
        "open",
    ),
    "unless names no rule": (rule_with('{ unless = ["nobody"] }'), "rules[0] (standard).when.unless[0]", "nobody"),
    "unless names itself": (
        rule_with('{ unless = ["standard"] }'),
        "rules[0] (standard).when.unless",
        "'standard' has an unless itself",
    ),
    "truth written as a word": (
        rule_with('{ incognito = "yes" }'),
        "rules[0] (standard).when.incognito",
        "must be true or false",
    ),
    "truth written as a number": (
        rule_with("{ deleted = 1 }"),
        "rules[0] (standard).when.deleted",
        "must be true or false",
    ),
    "plans written as a number": (rule_with("{ any_plan = 5 }"), "rules[0] (standard).when.any_plan", "must be a text"),
    "name used twice": (WHOLE + RULE, "rules[1] (standard).name", "already rules[0] (standard).name"),
    "floor named twice": (WHOLE + FLOOR, "floors[1] (flagged).name", "already floors[0] (flagged).name"),
    "feedback named twice": (WHOLE + FEEDBACK, "feedback[1] (feedback).name", "already feedback[0]"),
    "plan in two classes": (
        instead('["team"]', '["team", "free"]'),
        "plans.commercial",
        "'free' is in two classes: already in plans.consumer",
    ),
    "plan named like a class": (
        instead('["team"]', '["consumer"]'),
        "plans.commercial",
        "'consumer' is a plan named like a class",
    ),
    "plan with two purposes": (
        HEAD + '[purposes.sale]\nplans = ["pro"]\n' + RULE,
        "purposes.sale.plans",
        "'pro' belongs to two purposes: already in purposes.improve.plans",
    ),
    "naive range": (instead("2015-01-01T00:00:00Z", "2015-01-01T00:00:00"), "plausible.from", "with its offset"),
    "a date for an instant": (instead("9999-01-01T00:00:00Z", "9999-01-01"), "plausible.before", "with its offset"),
    "naive regime": (
        instead('plans = ["consumer"]', 'plans = ["free"]\nnot_before = 2025-08-28T00:00:00'),
        "purposes.improve.not_before",
        "with its offset",
    ),
    "naive feedback": (
        instead('kinds = ["thumbs"]', 'kinds = ["thumbs"]\nsubmitted_before = 2025-10-17T00:00:00'),
        "feedback[0] (feedback).submitted_before",
        "with its offset",
    ),
    "no range": (re.sub(r"\[plausible\]\n.*\n.*\n", "", WHOLE), "plausible", "is missing"),
    "period without a unit": (instead('"30 days"', '"30"'), "rules[0] (standard).due[0].period", "no period"),
    "period below zero": (instead('"30 days"', '"-1 day"'), "rules[0] (standard).due[0].period", "no period"),
    "period with a fraction": (instead('"30 days"', '"1.5 days"'), "rules[0] (standard).due[0].period", "no period"),
    "period as a number": (instead('"30 days"', "30"), "rules[0] (standard).due[0].period", "30 days"),
    "floor's period as a number": (instead('"2 years"', "2"), "floors[0] (flagged).period", ""),
    "unknown unit": (instead('"30 days"', '"2 fortnights"'), "rules[0] (standard).due[0].period", "fortnights"),
    "age cap that is no period": (instead('max_age = "5 years"', 'max_age = "old"'), "training.max_age", "no period"),
    "unknown anchor": (instead('"last_activity"', '"birthday"'), "rules[0] (standard).due[0].anchor", "last_activity"),
    "floor on another anchor": (instead('anchor = "flagged"', 'anchor = "created"'), "floors[0] (flagged).anchor", ""),
    "deleted without its condition": (
        instead('"last_activity"', '"deleted"'),
        "rules[0] (standard).due[0].anchor",
        "deleted = true",
    ),
    "closed without its condition": (
        instead('"last_activity"', '"closed"'),
        "rules[0] (standard).due[0].anchor",
        "closed = true",
    ),
    "flagged without its condition": (
        instead('anchor = "last_activity"', 'anchor = "flagged"'),
        "rules[0] (standard).due[0].anchor",
        "flagged =",
    ),
    "consent end of an open epoch": (
        instead(
            '"last_activity"', '"consent_ended"', rule_with('{ consent = { purpose = "improve", epoch = "open" } }')
        ),
        "rules[0] (standard).due[0].anchor",
        'epoch = "closed"',
    ),
    "standing on plans": (
        rule_with('{ any_plan = ["free"] }\nstands_unclassified = true'),
        "rules[0] (standard).stands_unclassified",
        "leave out this, or",
    ),
    "standing on consent": (
        rule_with('{ consent = { purpose = "improve", epoch = "none" } }\nstands_unclassified = true'),
        "rules[0] (standard).stands_unclassified",
        "leave out this, or",
    ),
    "unknown scope": (instead("[training]", '[training]\nresumed = "all"'), "training.resumed", "from_opt_in"),
    "column of another relation": (
        instead('"30 days"', '{ column = "plan.days", unit = "day" }'),
        "rules[0] (standard).due[0].period.column",
        "account.COLUMN or conversation.COLUMN",
    ),
    "column with a quote": (
        instead('"30 days"', '{ column = \'account.days" --\', unit = "day" }'),
        "rules[0] (standard).due[0].period.column",
        "account.COLUMN or conversation.COLUMN",
    ),
    "column with an unknown unit": (
        instead('"30 days"', '{ column = "account.days", unit = "moon" }'),
        "rules[0] (standard).due[0].period.unit",
        "month",
    ),
    "column with a bad fallback": (
        instead('"30 days"', '{ column = "account.days", unit = "day", otherwise = "soon" }'),
        "rules[0] (standard).due[0].period.otherwise",
        "no period",
    ),
    "condition on a column with a quote": (
        rule_with("{ conversation = { 'x\" --' = [1] } }"),
        r'rules[0] (standard).when.conversation."x\" --"',
        "must be a column",
    ),
    "condition on a fraction": (
        rule_with("{ account = { tier = [1.5] } }"),
        "rules[0] (standard).when.account.tier[0]",
        "whole number",
    ),
}


FOREIGN = re.compile(r"Input|input|Field|should|valid|Enum|Anchor\.|Scalar|\[key\]|\^")
"""Words of the library that validates, which nobody who writes a policy knows."""


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    """What cannot be decided without a question left is refused, with the path of its key and what is wrong."""
    text, key, said = FAULTS[name]
    found = refused(text)
    assert any(line.startswith(f"{key}: ") and said in line for line in found), found
    assert not [line for line in found if FOREIGN.search(line)]


@pytest.mark.parametrize("name", ["unclassified", "erasure_order", "legal_hold"])
def test_reserved_names(name: str) -> None:
    """A rule, a floor or a feedback rule cannot take a name that the program answers with itself."""
    assert keys(instead('name = "standard"', f'name = "{name}"')) == [f"rules[0] ({name}).name"]
    assert keys(instead('name = "flagged"', f'name = "{name}"')) == [f"floors[0] ({name}).name"]
    assert keys(instead('name = "feedback"', f'name = "{name}"')) == [f"feedback[0] ({name}).name"]


def test_unless_is_flat() -> None:
    """An unless that names a rule with an unless is refused, so that no order of reading matters."""
    middle = RULE.replace('"standard"', '"middle"') + 'when = { unless = ["standard"] }\n'
    outer = RULE.replace('"standard"', '"outer"') + 'when = { unless = ["middle"] }\n'
    assert parse(HEAD + RULE + middle)
    assert refused(HEAD + RULE + middle + outer) == [
        "rules[2] (outer).when.unless: 'middle' has an unless itself: name a rule that has none"
    ]


def test_not_toml() -> None:
    """Text that is not TOML is refused with the place."""
    assert refused("format = ")[0].startswith("not TOML: ")
    assert "line 2" in refused("format = 1\nname = \n")[0]


def every_fault() -> Iterator[tuple[str, str, str]]:
    """Old text, new text and key path of faults that can be made all at once."""
    yield 'name = "test"', "name = 5", "name"
    yield "2015-01-01T00:00:00Z", "2015-01-01T00:00:00", "plausible.from"
    yield 'plans = ["consumer"]', 'plans = ["gold"]', "purposes.improve.plans[0]"
    yield (
        'because = "it is old"',
        'when = { kinds = ["chat"], any_plan = ["business"] }',
        "rules[0] (standard).when.kinds",
    )
    yield '"30 days"', '"soon"', "rules[0] (standard).due[0].period"
    yield '"2 years"', '"later"', "floors[0] (flagged).period"
    yield 'kinds = ["thumbs"]', "kinds = []", "feedback[0] (feedback).kinds"
    yield 'platforms = ["first_party"]', "platform = 1", "training.platform"


def test_every_fault_at_once() -> None:
    """All faults come in one error, each on a line of its own with its key."""
    text = WHOLE
    for old, new, _ in every_fault():
        text = instead(old, new, text)
    expected = {key for _, _, key in every_fault()}
    expected |= {"rules[0] (standard).because", "rules[0] (standard).when.any_plan[0]", "training.platforms"}
    assert set(keys(text)) == expected


HIDING = {
    "a typo in a period": ('"30 days"', '"30 dys"', "rules[0] (standard).due[0].period"),
    "an empty reason": ('because = "it is old"', 'because = ""', "rules[0] (standard).because"),
    "an unknown key": ('because = "it is old"', 'because = "it is old"\nwhy = 1', "rules[0] (standard).why"),
    "no range": ("2015-01-01T00:00:00Z", "0", "plausible.from"),
    "a class that is a number": ('commercial = ["team"]', 'commercial = ["team"]\nodd = 5', "plans.odd"),
    "a faulty purpose": ('plans = ["consumer"]', 'plans = ["gold"]', "purposes.improve.plans[0]"),
    "a faulty floor": ('"2 years"', '"2 yrs"', "floors[0] (flagged).period"),
    "faulty feedback": ('kinds = ["thumbs"]', "kinds = []", "feedback[0] (feedback).kinds"),
    "a faulty training scope": ('max_age = "5 years"', "max_age = 5", "training.max_age"),
}
INCOHERENT = """
[plans]
consumer = ["free", "pro"]
commercial = ["team", "pro"]
other = "commercial"

[purposes.improve]
plans = ["consumer"]
[purposes.sale]
plans = "free"

[[rules]]
name = "standard"
because = "it is old"
due = [{ anchor = "last_activity", period = "30 days" }]

[[rules]]
name = "flagged"
because = ""
when = { unless = ["nested", "nobody"], consent = { purpose = "ad", epoch = "open" } }
due = [
    { anchor = "deleted", period = "1 dy" },
    { anchor = "closed", period = "1 day" },
    { anchor = "consent_ended", period = "1 day" },
]
stands_unclassified = true

[[rules]]
name = "nested"
because = "b"
when = { unless = "standard", any_plan = "gold", deleted = true }
due = [{ anchor = "deleted", period = "0" }]

[[rules]]
name = "standard"
because = "again"
due = []

[[rules]]
name = "legal_hold"
because = "b"
due = [{ anchor = "created", period = "0" }]

[[feedback]]
name = "flagged"
because = "b"
kinds = ["thumbs"]
period = "0"
"""
INCOHERENCES = {
    "plans.commercial",
    "plans.other",
    "purposes.sale.plans",
    "rules[1] (flagged).because",
    "rules[1] (flagged).due[0].period",
    "rules[1] (flagged).due[0].anchor",
    "rules[1] (flagged).due[1].anchor",
    "rules[1] (flagged).due[2].anchor",
    "rules[1] (flagged).stands_unclassified",
    "rules[1] (flagged).when.consent.purpose",
    "rules[1] (flagged).when.unless",
    "rules[1] (flagged).when.unless[1]",
    "rules[2] (nested).when.any_plan",
    "rules[3] (standard).name",
    "rules[3] (standard).due",
    "rules[4] (legal_hold).name",
    "floors[0] (flagged).name",
    "feedback[0] (flagged).name",
}


def test_every_incoherence_at_once() -> None:
    """What is wrong between keys is told beside what is wrong within them, each thing once."""
    head = HEAD[: HEAD.index("[plans]")]
    assert sorted(keys(head + INCOHERENT + FLOOR)) == sorted(INCOHERENCES)


@pytest.mark.parametrize("name", HIDING)
def test_no_fault_hides_another(name: str) -> None:
    """A fault within any table leaves names that are used twice in sight."""
    old, new, key = HIDING[name]
    doubled = {"rules[1] (standard).name", "floors[1] (flagged).name", "feedback[1] (feedback).name"}
    assert set(keys(instead(old, new, WHOLE + RULE + FLOOR + FEEDBACK))) == {key} | doubled


@pytest.mark.parametrize("name", ["standard", "feedback"])
def test_one_name_one_thing(name: str) -> None:
    """A floor cannot take a rule's name nor a feedback rule's: evidence names either by it alone."""
    found = refused(instead('name = "flagged"', f'name = "{name}"'))
    assert len(found) == 1
    assert f"{name!r} is already " in found[0]
    assert found[0].endswith("give each rule, floor and feedback rule its own name")


def test_one_plan_of_a_class() -> None:
    """A class of one plan may be written without a list, and is then known wherever plans are named."""
    for text in (
        instead('commercial = ["team"]', 'commercial = "team"'),
        instead('commercial = ["team"]', 'commercial = "team"', rule_with('{ any_plan = "team" }')),
        instead('commercial = ["team"]', 'commercial = "team"', rule_with('{ all_plans = ["commercial"] }')),
    ):
        assert parse(text).digest == parse(text.replace('commercial = "team"', 'commercial = ["team"]')).digest
    assert keys(instead('commercial = ["team"]', 'commercial = "free"')) == ["plans.commercial"]
    assert keys(instead('commercial = ["team"]', "commercial = 5", rule_with('{ any_plan = "commercial" }'))) == [
        "plans.commercial"
    ]


def places(raw: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in raw tables: what holds it, and its key or number."""
    inside = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, value in inside:
        yield raw, key
        yield from places(value)


ODD: tuple[object, ...] = (
    *(5, -0.5, True, "", "odd\n", [], [[]], [{}], {}, {"a": []}, [1, True]),
    datetime(2025, 1, 1),  # noqa: DTZ001 — what is to be refused
)


def test_anything_anywhere() -> None:
    """Whatever stands in any place of a policy, it is read or refused in plain words; nothing crashes."""
    raw = tomllib.loads(SHIPPED)
    said: list[str] = []
    for holder, key in list(places(raw)):
        kept = holder[key]
        for odd in ODD:
            holder[key] = odd
            try:
                checked(raw)
            except PolicyError as error:
                said += str(error).splitlines()
        holder[key] = kept
    assert len(said) > 1_000
    assert [line for line in said if FOREIGN.search(line)] == []
    assert checked(raw).digest == parse(SHIPPED).digest


NO_GUESSING = {
    "instant as a text of a number": (instead("2015-01-01T00:00:00Z", '"-5"'), "plausible.from"),
    "instant as a text of a date": (instead("2015-01-01T00:00:00Z", '"2015-01-01"'), "plausible.from"),
    "instant as a time": (instead("2015-01-01T00:00:00Z", "07:00:00"), "plausible.from"),
    "format as a fraction": (instead("format = 1", "format = 1.0"), "format"),
    "values of two types": (rule_with("{ account = { tier = [1, true] } }"), "rules[0] (standard).when.account.tier"),
    "instant as a number": (instead("2015-01-01T00:00:00Z", "0"), "plausible.from"),
    "instant as digits": (instead("2015-01-01T00:00:00Z", '"12345"'), "plausible.from"),
    "format as truth": (instead("format = 1", "format = true"), "format"),
    "floor's period as a table": (instead('"2 years"', "{ seconds = 5 }"), "floors[0] (flagged).period"),
    "feedback's period below zero": (
        instead('kinds = ["thumbs"]\nperiod = "5 years"', 'kinds = ["thumbs"]\nperiod = { seconds = -5 }'),
        "feedback[0] (feedback).period",
    ),
    "age cap as a table": (instead('max_age = "5 years"', "max_age = { months = 5, seconds = 5 }"), "training.max_age"),
    "fallback as a table": (
        instead('"30 days"', '{ column = "account.days", unit = "day", otherwise = { seconds = -5 } }'),
        "rules[0] (standard).due[0].period.otherwise",
    ),
}


@pytest.mark.parametrize("name", NO_GUESSING)
def test_no_guessing_between_types(name: str) -> None:
    """A value of another type than the documented one is refused, not turned into something."""
    text, key = NO_GUESSING[name]
    assert any(found.startswith(key) for found in keys(text))


def test_range_in_order() -> None:
    """A plausible range that ends before it begins would make everything unclassified: it is refused."""
    assert any(key.startswith("plausible") for key in keys(instead("2015-01-01T00:00:00Z", "9999-06-01T00:00:00Z")))


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("2015-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "plausible.from"),
        ("9999-01-01T00:00:00Z", "9999-12-31T23:00:00-10:00", "plausible.before"),
    ],
)
def test_instants_past_the_calendar(old: str, new: str, key: str) -> None:
    """An instant that UTC cannot hold is a fault with its key, not a crash."""
    assert any(found.startswith(key) for found in keys(instead(old, new)))


@pytest.mark.parametrize("written", ['["consumer"]', '"consumer"', '["free", "pro"]'])
def test_classes_stand_for_their_plans(written: str) -> None:
    """A class, alone or in a list, means its plans."""
    policy = parse(rule_with(f"{{ any_plan = {written} }}"))
    assert policy.rules[0].when.any_plan == frozenset({"free", "pro"})


def test_periods_are_read() -> None:
    """Seconds, days, calendar months and years, "0" and "forever" are periods."""
    for written, period in (
        ("0", Period()),
        ("forever", Period(forever=True)),
        ("1 second", Period(seconds=1)),
        ("72 hours", Period(seconds=72 * 3600)),
        ("18 months", Period(months=18)),
        ("5 years", Period(months=60)),
    ):
        assert parse(instead('"30 days"', f'"{written}"')).rules[0].due[0].period == period


# What a policy leaves open


def test_feedback_that_no_rule_covers_is_kept() -> None:
    """Feedback of a known kind to which no rule applies has no due, and stops nothing."""
    excluded_window = parse(SHIPPED[: SHIPPED.index("[[feedback]]")] + SHIPPED[SHIPPED.rindex("[[feedback]]") :])
    late = Feedback("f", "a", None, "bug_report", datetime(2025, 12, 1, tzinfo=UTC))
    verdict = decide_feedback(FeedbackFacts(late), excluded_window, datetime(2035, 1, 1, tzinfo=UTC))
    assert (verdict.rule, verdict.due, verdict.purge) == (None, None, False)


BEGUN = datetime(2025, 12, 1, tzinfo=UTC)
CHAT = Conversation(
    "c",
    "a",
    "chat",
    "first_party",
    incognito=False,
    zero_retention=False,
    created_at=BEGUN,
    last_activity_at=BEGUN,
    deleted_at=None,
    restored_at=None,
    flagged_at=None,
)


@pytest.mark.parametrize("value", [[1], {"a": 1}, 1.0, True, "1", None])
def test_column_value_that_no_list_can_hold(value: object) -> None:
    """A further column that holds a list, an object or another kind of 1 is not the 1 of the policy, and stops nothing."""
    tiered = parse(
        SHIPPED.replace("when = { incognito = true }", "when = { incognito = true, account = { tier = [1] } }")
    )
    account = Account("a", None, None, (PlanChange(1, OutOfRange.ALWAYS, "pro"),), (), {"tier": value})
    verdict = decide(Facts(replace(CHAT, incognito=True), account), tiered, datetime(2026, 1, 15, tzinfo=UTC))
    assert verdict.rule == "standard"


@pytest.mark.parametrize(
    ("deleted_at", "rule"), [(None, "unclassified"), (datetime(2025, 12, 2, tzinfo=UTC), "deleted")]
)
def test_period_that_a_column_does_not_say(deleted_at: datetime | None, rule: str) -> None:
    """A column that holds no usable period is a doubt: only what needs no such period still names a due."""
    unsaid = parse(
        SHIPPED.replace(
            'epoch = "none" } }\ndue = [{ anchor = "last_activity", period = "30 days" }]',
            'epoch = "none" } }\ndue = [{ anchor = "last_activity", period = { column = "account.days", unit = "day" } },'
            ' { anchor = "created", period = "0" }]',
        )
    )
    account = Account("a", None, None, (PlanChange(1, OutOfRange.ALWAYS, "pro"),), (), {"days": -1})
    verdict = decide(Facts(replace(CHAT, deleted_at=deleted_at), account), unsaid, datetime(2026, 1, 15, tzinfo=UTC))
    assert (verdict.rule, [doubt.value for doubt in verdict.doubts]) == (rule, ["period"])


@pytest.mark.parametrize(
    ("values", "days"), [({"keep": "short", "days": 5}, 5), ({"keep": "short"}, 10), ({"keep": "long", "days": 5}, 30)]
)
def test_columns_of_the_conversation_itself(values: dict[str, object], days: int) -> None:
    """A condition and a period on a conversation's own column read that column; where it is not set `otherwise` holds."""
    own = parse(
        SHIPPED.replace(
            "[[rules]]",
            '[[rules]]\nname = "own"\nbecause = "it says so itself"\nwhen = { conversation = { keep = ["short"] } }\n'
            'due = [{ anchor = "last_activity", period = '
            '{ column = "conversation.days", unit = "day", otherwise = "10 days" } }]\n\n[[rules]]',
            1,
        )
    )
    account = Account("a", None, None, (PlanChange(1, OutOfRange.ALWAYS, "pro"),), (), {"keep": "long", "days": 1})
    verdict = decide(Facts(replace(CHAT, columns=values), account), own, datetime(2026, 1, 15, tzinfo=UTC))
    assert verdict.due == BEGUN + timedelta(days=days)


@pytest.mark.parametrize(
    ("kind", "has_transcript", "stray"), [("survey", True, True), ("survey", False, False), ("thumbs", True, False)]
)
def test_survey_that_carries_a_transcript(kind: str, has_transcript: bool, stray: bool) -> None:  # noqa: FBT001 — a table
    """A survey row that carries a transcript is a defect; other feedback may carry one."""
    row = Feedback("f", "a", None, kind, datetime(2025, 12, 1, tzinfo=UTC), has_transcript)
    assert bool(feedback_anomalies(FeedbackFacts(row), parse(SHIPPED))) is stray
