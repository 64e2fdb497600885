"""What differs between two policies: every change has words, and what does not count as shortening shortens nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.policy.decide import decide, exists
from sweeper.policy.difference import differences
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.period import Period
from sweeper.policy.schema import Policy, PolicyError, checked, parse, restore
from tests.core.test_policy import SHIPPED
from tests.facts import World, facts_of, feedback_of, instant
from tests.store.test_propose import PERIODS, furnished
from tests.store.test_verdicts import several_rules

LENGTHS = st.builds(Period.of, st.integers(0, 800), st.sampled_from(["day", "week", "month", "year"]))
ANCHORS = st.datetimes(datetime(2015, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 — the bounds are naive
FEEDBACK = [
    {"name": "own", "because": "…", "kinds": ["thumbs", "survey"], "period": "5 years"},
    {
        "name": "early",
        "because": "…",
        "kinds": ["bug_report"],
        "submitted_before": "2025-10-17T00:00:00Z",
        "period": "30 days",
    },
]
TRAINING = {"platforms": ["first_party"], "max_age": "5 years"}


@given(one=LENGTHS, other=LENGTHS, anchor=ANCHORS, close=st.integers(-3, 3))
def test_longer_periods_end_no_earlier(one: Period, other: Period, anchor: datetime, close: int) -> None:
    """A period that is never shorter than another ends no earlier from any anchor, also months against about as many days."""
    near = Period(seconds=max(0, round(other.months * 30.4375 + close)) * 86_400) if other.months else other
    for new, old in ((one, other), (other, one), (near, other), (other, near)):
        if new.never_shorter_than(old):
            later, earlier = new.after(anchor), old.after(anchor)
            assert later is None or (earlier is not None and later >= earlier)


def test_periods_of_the_calendar() -> None:
    """A year is never shorter than 365 days, and 366 days never shorter than a year; the other way round it may be."""
    year, short, long = (Period.parse(text) for text in ("1 year", "365 days", "366 days"))
    assert (year.never_shorter_than(short), long.never_shorter_than(year)) == (True, True)
    assert (year.never_shorter_than(long), short.never_shorter_than(year)) == (False, False)
    assert Period.parse("3 months").never_shorter_than(Period.parse("84 days"))
    assert not Period.parse("1 month").never_shorter_than(Period.parse("29 days"))
    assert not Period.parse("9000 years").never_shorter_than(Period.parse("forever"))


def raw(policy: Policy) -> dict[str, Any]:
    """The policy as tables, with feedback and training."""
    found: dict[str, Any] = json.loads(policy.normal_form)
    return {**found, "feedback": json.loads(json.dumps(FEEDBACK)), "training": dict(TRAINING)}


def lengthen(draw: st.DrawFn, period: Any) -> Any:
    """Mostly a longer period, at times any."""
    if isinstance(period, dict):
        choices = [period, {**period, "otherwise": draw(PERIODS)}, {**period, "unit": "month"}, draw(PERIODS)]
        return draw(st.sampled_from(choices))
    return draw(st.sampled_from([period, "forever", "9000 years", "5 years", draw(PERIODS)]))


@st.composite
def changed(draw: st.DrawFn, old: Policy) -> Policy | None:
    """The policy after one to three changes of any kind; None if it is none any more."""
    new = raw(old)
    for _ in range(draw(st.integers(1, 3))):
        rule = draw(st.sampled_from(new["rules"]))
        spot = draw(st.integers(0, 11))
        if spot <= 2:
            term = draw(st.sampled_from(rule["due"]))
            term["period"] = lengthen(draw, term["period"])
        elif spot == 3:
            new["rules"].remove(rule)
        elif spot == 4:
            del rule["due"][1:]
        elif spot == 5:
            rule["when"][draw(st.sampled_from(["incognito", "closed"]))] = draw(st.sampled_from([True, False, None]))
        elif spot == 6:
            rule["stands_unclassified"] = not rule["stands_unclassified"]
        elif spot == 7:
            new["floors"] = draw(st.sampled_from([[], new["floors"][:1], [*new["floors"], floor(draw)]]))
        elif spot == 8:
            for each in new["floors"]:
                each["period"] = lengthen(draw, each["period"])
        elif spot == 9:
            own = draw(st.sampled_from(new["feedback"])) if new["feedback"] else {}
            own |= draw(st.sampled_from([{"period": lengthen(draw, "5 years")}, {"kinds": ["thumbs"]}]))
        elif spot == 10:
            new["feedback"] = new["feedback"][: draw(st.integers(0, 2))]
        else:
            new["plausible"] = {"from": "2014-01-01T00:00:00Z", "before": "9999-01-01T00:00:00Z"}
        if not new["rules"]:
            return None
    try:
        return checked(new)
    except PolicyError:
        return None


def floor(draw: st.DrawFn) -> dict[str, Any]:
    """One floor more."""
    return {"name": "further", "because": "…", "anchor": "flagged", "period": draw(PERIODS)}


@given(data=st.data(), old=several_rules(), world=furnished(), ahead=st.integers(0, 4_000))
@settings(max_examples=50)
def test_what_only_lengthens_shortens_nothing(data: st.DataObject, old: Policy, world: World, ahead: int) -> None:
    """If no difference counts as shortening, no record of any world is due earlier, now or later."""
    before = checked(raw(old))
    after = data.draw(changed(before))
    if after is None:
        return
    found = differences(before, after)
    assert (found == []) is (before.digest == after.digest)
    if any(each.shortens for each in found):
        return
    for as_of in (instant(world["as_of"]), instant(world["as_of"]) + timedelta(days=ahead)):
        pairs = [
            [decide(facts_of(world, chat["id"]), policy, as_of).due for policy in (before, after)]
            for chat in world["conversations"]
            if exists(facts_of(world, chat["id"]).conversation, before, as_of)
        ]
        pairs += [[decide_feedback(row, policy, as_of).due for policy in (before, after)] for row in feedback_of(world)]
        assert [pair for pair in pairs if pair[1] is not None and (pair[0] is None or pair[1] < pair[0])] == []


@given(policy=several_rules())
def test_normal_form(policy: Policy) -> None:
    """The normal form is read back as the same policy; one that is read otherwise is not."""
    again = restore(policy.normal_form)
    assert again is not None
    assert (again.digest, differences(policy, again)) == (policy.digest, [])
    assert restore(policy.normal_form.replace('"format":1', '"format": 1')) is None
    assert restore("{}") is restore("no JSON") is None


CHANGES: dict[str, tuple[str, str, str, bool]] = {
    "a shorter period": (
        'due = [{ anchor = "deleted", period = "30 days" }]',
        'due = [{ anchor = "deleted", period = "29 days" }]',
        "rule deleted: due deletion + 29 days instead of deletion + 30 days",
        True,
    ),
    "a longer period": (
        'period = "2 years" }]',
        'period = "3 years" }]',
        "rule partner: due last activity + 3 years instead of last activity + 2 years",
        False,
    ),
    "another anchor": (
        'when = { incognito = true }\ndue = [{ anchor = "last_activity"',
        'when = { incognito = true }\ndue = [{ anchor = "created"',
        "rule incognito: due creation + 30 days instead of last activity + 30 days",
        True,
    ),
    "a condition": (
        "{ closed = true }",
        "{ closed = true, incognito = false }",
        "rule account_closed: applies when it is not incognito; its account is closed (also if plan or consent is in doubt) "
        "instead of its account is closed (also if plan or consent is in doubt)",
        True,
    ),
    "a floor": (
        'period = "2 years"  ',
        'period = "1 year"  ',
        "floor flagged: at least flag + 1 year instead of",
        True,
    ),
    "a plan": ('"gov", "education"]', '"gov", "education", "nonprofit"]', "plans commercial: api, education,", True),
    "a purpose": (
        "not_before = 2025-08-28",
        "not_before = 2025-09-28",
        "purpose model_improvement: for the plans",
        True,
    ),
    "a deadline": (
        "2025-10-08T00:00:00Z   #",
        "2025-10-09T00:00:00Z   #",
        "purpose model_improvement: for the plans",
        False,
    ),
    "training": (
        'resumed = "from_opt_in"',
        'resumed = "entire"',
        "training: resumed conversations as a whole",
        True,
    ),
    "feedback": (
        '"bug_report"]\nperiod = "5 years"',
        '"bug_report"]\nperiod = "6 years"',
        "feedback rule feedback: due",
        False,
    ),
    "a kind of feedback": (
        '["thumbs", "survey", "bug',
        '["thumbs", "haiku", "survey", "bug',
        "applies to bug_report, haiku",
        True,
    ),
    "what is believed": ("from = 2015", "from = 2014", "plausible: 2014-01-01T00:00:00Z to 9999-01-01", True),
    "the name": ('name = "consumer terms', 'name = "new consumer terms', "name: 'new consumer terms", False),
    "an action": (
        'name = "account_closed"',
        'name = "account_closed"\naction = "redact"',
        "rule account_closed: redacts instead of purges",
        True,
    ),
    "a reason": (
        'because = "the account is closed"',
        'because = "closed"',
        "rule account_closed: because 'closed'",
        False,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_words(policy: Policy, change: str) -> None:
    """Each change of the shipped policy is one difference, in words, and says whether it may shorten."""
    old, new, said, shortens = CHANGES[change]
    assert old in SHIPPED
    (found,) = differences(policy, parse(SHIPPED.replace(old, new, 1)))
    assert said in str(found)
    assert found.shortens is shortens


def test_values_of_other_types(policy: Policy) -> None:
    """A condition on 1 is none on true, though Python calls them equal."""
    old, new = json.loads(policy.normal_form), json.loads(policy.normal_form)
    old["rules"][0]["when"]["account"] = {"tier": [1]}
    new["rules"][0]["when"]["account"] = {"tier": [True]}
    new["name"] = "another"
    assert [each.part for each in differences(checked(old), checked(new))] == ["rule zero_retention", "name"]


def test_column_in_doubt(policy: Policy) -> None:
    """A rule that reads its period from a column keeps what has an unusable value there: without it that may be due."""
    old, new = json.loads(policy.normal_form), json.loads(policy.normal_form)
    column = {"column": "account.retention_days", "unit": "day"}
    old["rules"].append({"name": "own", "because": "…", "due": [{"anchor": "last_activity", "period": column}]})
    (found,) = differences(checked(old), checked(new))
    assert (str(found), found.shortens) == ("rule own: is not there any more", True)
    old["rules"][-1]["due"].append({"anchor": "last_activity", "period": "5 years"})
    without = json.loads(json.dumps(old))
    del without["rules"][-1]["due"][0]
    assert [each.shortens for each in differences(checked(old), checked(without))] == [True]
    del old["rules"][-1], new["rules"][1]
    assert [each.shortens for each in differences(checked(old), checked(new))] == [False]
    new = {**old, "floors": []}
    assert [each.shortens for each in differences(checked(old), checked(new))] == [True]
    assert [each.shortens for each in differences(checked(new), checked(old))] == [False]
