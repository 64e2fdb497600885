"""The oracle agrees with the worked cases, and with sentences of the policy that no case shows."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests import model
from tests.worlds import Json, worlds

CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "cases.jsonl").read_text(encoding="utf-8").splitlines()
]

SEPTEMBER = "2025-09-01T00:00:00Z"
OCTOBER = "2025-10-01T00:00:00Z"
NOVEMBER = "2025-11-01T00:00:00Z"
DECEMBER = "2025-12-01T00:00:00Z"


def on(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def grant(recorded: str | None, **columns: Any) -> Json:
    return {"recorded_at": recorded, "granted": True, **columns}


def withdrawal(recorded: str | None, **columns: Any) -> Json:
    return {"recorded_at": recorded, "granted": False, **columns}


def plan(name: str | None, since: str | None = "2024-01-01T00:00:00Z", **columns: Any) -> Json:
    return {"effective_at": since, "plan": name, **columns}


def chat(begun: str | None = NOVEMBER, active: str | None = None, **columns: Any) -> Json:
    """A conversation of account a1 with one message, written at its last activity."""
    last = begun if active is None else active
    message = {"id": "m1", "created_at": last, "author": "user"}
    return {
        "id": "c1", "account": "a1", "created_at": begun, "last_activity_at": last, "messages": [message], **columns
    }  # fmt: skip


def world(
    *chats: Json,
    as_of: str = DECEMBER,
    plans: list[Json] | None = None,
    consent: list[Json] | None = None,
    account: Json | None = None,
    **tables: Any,
) -> Json:
    """One account a1, a `pro` since 2024 if nothing else is said."""
    owner = {"id": "a1", "plans": plans or [plan("pro")], "consent": consent or [], **(account or {})}
    return {"as_of": as_of, "accounts": [owner], "conversations": list(chats), "holds": [], "orders": [], **tables}


def explained(the_world: Json) -> tuple[str | None, datetime | None]:
    verdict = model.verdicts(the_world)["c1"]
    return verdict.rule, verdict.due


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_verdicts_of_the_cases(case: Json) -> None:
    """Every conversation of a case has the expected rule, due and purge."""
    found = {
        name: {"rule": verdict.rule, "due_at": verdict.due, "purge": verdict.purge}
        for name, verdict in model.verdicts(case).items()
    }
    expected = {
        name: {**answer, "due_at": answer["due_at"] and datetime.fromisoformat(answer["due_at"])}
        for name, answer in case["expect"]["conversations"].items()
    }
    assert found == expected


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_messages_of_the_cases(case: Json) -> None:
    """Every message of a case is eligible or has the expected reason."""
    assert model.messages(case) == case["expect"]["messages"]


def test_the_higher_id_of_one_instant_was_the_plan() -> None:
    """Of two plan changes at one instant the lower id was never in force, not even as an unknown plan."""
    rows = [plan("pro", id=9), plan("platinum", id=3)]
    assert explained(world(chat(), plans=rows)) == ("standard", on(2025, 12, 1))


def test_an_unknown_plan_leaves_later_conversations_alone() -> None:
    """An unknown plan poisons what existed while it was in force, not a conversation created after it."""
    rows = [plan("pro"), plan("platinum", SEPTEMBER), plan("pro", OCTOBER)]
    assert explained(world(chat("2025-08-30T00:00:00Z"), plans=rows)) == ("unclassified", None)
    assert explained(world(chat(OCTOBER), plans=rows)) == ("standard", on(2025, 10, 31))


def test_the_first_plan_counts_from_creation() -> None:
    """The first plan counts from a plausible creation of the account on, else from its own instant."""
    rows = [plan("pro", NOVEMBER)]
    assert explained(world(chat(OCTOBER), plans=rows)) == ("standard", on(2025, 10, 31))
    assert explained(world(chat(OCTOBER), plans=rows, account={"created_at": None})) == ("unclassified", None)
    assert explained(world(chat("2018-05-01T00:00:00Z"), plans=rows)) == ("unclassified", None)
    always = [plan("pro", "-infinity")]
    assert explained(world(chat(OCTOBER), plans=always, account={"created_at": None})) == ("standard", on(2025, 10, 31))


def test_a_withdrawal_cancels_a_grant_that_waits() -> None:
    """A grant dated in the future and withdrawn before it takes effect opens nothing."""
    events = [grant(SEPTEMBER, effective_at=OCTOBER), withdrawal("2025-09-15T00:00:00Z")]
    assert explained(world(chat(), consent=events)) == ("standard", on(2025, 12, 1))
    assert explained(world(chat(), consent=events[:1])) == ("training_allowed", on(2030, 11, 1))


def test_a_withdrawal_dated_in_the_future_bites_at_once() -> None:
    """For training and for retention a future-dated withdrawal takes effect when it is recorded."""
    events = [grant(SEPTEMBER), withdrawal("2025-11-20T00:00:00Z", effective_at="2026-05-01T00:00:00Z")]
    the_world = world(chat(), consent=events)
    assert explained(the_world) == ("consent_ended", on(2025, 12, 20))
    assert model.messages(the_world) == {"m1": "no_consent"}


def test_leaving_and_coming_back_needs_a_fresh_grant() -> None:
    """Leaving the consumer plans closes the epoch, and coming back opens none."""
    rows = [plan("pro"), plan("team", "2025-11-10T00:00:00Z"), plan("max", "2025-11-20T00:00:00Z")]
    the_world = world(chat(), plans=rows, consent=[grant(SEPTEMBER)])
    assert explained(the_world) == ("consent_ended", on(2025, 12, 10))
    assert model.messages(the_world) == {"m1": "no_consent"}


def test_changing_between_consumer_plans_closes_nothing() -> None:
    """Only leaving the plans of the purpose ends an epoch."""
    the_world = world(chat(), plans=[plan("pro"), plan("max", NOVEMBER)], consent=[grant(SEPTEMBER)])
    assert model.messages(the_world) == {"m1": "eligible"}


def test_a_grant_counts_by_the_plan_at_its_effect() -> None:
    """A grant that takes effect on a commercial plan opens nothing, not even after coming back."""
    rows = [plan("pro"), plan("team", "2025-09-10T00:00:00Z"), plan("pro", "2025-09-20T00:00:00Z")]
    events = [grant(SEPTEMBER, effective_at="2025-09-15T00:00:00Z")]
    assert explained(world(chat(), plans=rows, consent=events)) == ("standard", on(2025, 12, 1))


def test_as_of_at_the_opening_is_outside() -> None:
    """An instant equal to the opening edge is outside, as-of included: no epoch is open yet."""
    written = chat("2025-08-30T00:00:00Z")
    assert model.messages(world(written, as_of=SEPTEMBER, consent=[grant(SEPTEMBER)])) == {"m1": "no_consent"}
    later = world(written, as_of="2025-09-01T00:00:00.000001Z", consent=[grant(SEPTEMBER)])
    assert model.messages(later) == {"m1": "before_consent"}


def test_leaving_does_not_shorten_partner_data() -> None:
    """A chat inside a development-partner epoch keeps its two years after the epoch has closed."""
    events = [
        grant(SEPTEMBER, purpose="development_partner"), withdrawal(DECEMBER, purpose="development_partner")
    ]  # fmt: skip
    the_world = world(chat(), plans=[plan("api")], consent=events)
    assert explained(the_world) == ("partner", on(2027, 11, 1))
    assert model.messages(the_world) == {"m1": "no_consent"}


def test_equal_dues_name_the_rule_listed_first() -> None:
    """Deleted at its last activity, a standard chat is due by both rules at once, and `deleted` is listed first."""
    assert explained(world(chat(deleted_at=NOVEMBER))) == ("deleted", on(2025, 12, 1))


def test_restored_at_the_same_instant_is_restored() -> None:
    """Only a restoration before `deleted_at` leaves a chat deleted, but any restoration excludes from training."""
    same = world(chat(deleted_at=NOVEMBER, restored_at=NOVEMBER), consent=[grant(OCTOBER)])
    assert explained(same) == ("training_allowed", on(2030, 11, 1))
    assert model.messages(same) == {"m1": "deleted"}
    before = world(chat(deleted_at=NOVEMBER, restored_at=OCTOBER), consent=[grant(OCTOBER)])
    assert explained(before) == ("deleted", on(2025, 12, 1))


def test_a_restoration_after_as_of_counts() -> None:
    """`restored_at` counts whenever set, `deleted_at` after as-of is ignored."""
    restored = chat(deleted_at=NOVEMBER, restored_at="2026-05-01T00:00:00Z")
    assert explained(world(restored, consent=[grant(OCTOBER)]))[0] == "training_allowed"
    assert explained(world(chat(deleted_at="2026-05-01T00:00:00Z")))[0] == "standard"


def test_a_flag_lengthens_even_zero_retention() -> None:
    """Due is at least two years after the flag, zero-retention included, and an erasure order still comes after."""
    flagged = chat(zero_retention=True, flagged_at=NOVEMBER)
    assert explained(world(flagged)) == ("flagged", on(2027, 11, 1))
    ordered = world(flagged, orders=[{"account": "a1", "due_at": DECEMBER}])
    assert explained(ordered) == ("erasure_order", on(2025, 12, 1))


def test_dues_that_stand_when_unclassified() -> None:
    """A deletion stands on an unknown plan, not beside an implausible flag, where only an order's due does."""
    unknown = [plan("platinum")]
    deleted = chat(deleted_at=NOVEMBER)
    verdict = model.verdicts(world(deleted, plans=unknown))["c1"]
    assert verdict == model.Verdict("deleted", on(2025, 12, 1), held=False, purge=True, unclassified=True)
    flagged = {**deleted, "flagged_at": "infinity"}
    assert explained(world(flagged, plans=unknown)) == ("unclassified", None)
    order = {"conversation": "c1", "due_at": NOVEMBER}
    assert explained(world(flagged, plans=unknown, orders=[order])) == ("erasure_order", on(2025, 11, 1))


def test_an_order_covers_what_was_created_by_its_recording() -> None:
    """An order covers a chat created at its recording, none created a microsecond later or at an unknown instant."""
    order = {"account": "a1", "recorded_at": NOVEMBER, "due_at": NOVEMBER}
    young = "2025-11-01T00:00:00.000001Z"
    assert explained(world(chat(), orders=[order]))[0] == "erasure_order"
    assert explained(world(chat(young), orders=[order]))[0] == "standard"
    assert explained(world(chat(None, NOVEMBER), orders=[order]))[0] == "unclassified"
    always = {"account": "a1", "due_at": NOVEMBER}
    assert explained(world(chat(young), orders=[always]))[0] == "erasure_order"
    assert explained(world(chat(None, NOVEMBER), orders=[always]))[0] == "erasure_order"


@pytest.mark.parametrize("due", [None, "infinity", "9999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_an_undated_order_only_stops_training(due: str | None) -> None:
    """An order whose date is NULL or implausible leaves due as it is and takes the chat out of training."""
    the_world = world(chat(), consent=[grant(OCTOBER)], orders=[{"account": "a1", "due_at": due}])
    assert explained(the_world) == ("training_allowed", on(2030, 11, 1))
    assert model.messages(the_world) == {"m1": "erasure_order"}


def test_both_columns_mean_both_for_orders_and_either_for_holds() -> None:
    """With both columns set an order names exactly both, a hold either; with neither an order nothing, a hold all."""
    mismatch = {"account": "a1", "conversation": "c7", "due_at": NOVEMBER}
    assert explained(world(chat(), orders=[mismatch, {"due_at": NOVEMBER}]))[0] == "standard"
    for hold in (mismatch, {}):
        verdict = model.verdicts(world(chat(), holds=[hold]))["c1"]
        assert (verdict.held, verdict.purge) == (True, False)


def test_doubt_about_a_hold_keeps() -> None:
    """A hold with an implausible release is not released, one with an implausible placing is active."""
    doubtful: list[Json] = [{"released_at": "1970-01-01T00:00:00Z"}, {"placed_at": "infinity"}]
    for hold in doubtful:
        assert model.verdicts(world(chat(), holds=[hold]))["c1"].held
    assert not model.verdicts(world(chat(), holds=[{"placed_at": "2025-12-01T00:00:00.000001Z"}]))["c1"].held


def test_what_does_not_exist_yet_has_no_verdict() -> None:
    """A chat or message with a plausible creation after as-of does not exist yet; an impossible one is unclassified."""
    the_world = world(chat("2025-12-01T00:00:00.000001Z"))
    assert (model.verdicts(the_world), model.messages(the_world)) == ({}, {})
    impossible = world(chat("10000-01-01T00:00:00Z"))
    assert explained(impossible) == ("unclassified", None)
    assert model.messages(impossible) == {"m1": "unclassified"}
    active_later = world(chat(NOVEMBER, "2025-12-02T00:00:00Z"))
    assert (explained(active_later), model.messages(active_later)) == (("standard", on(2026, 1, 1)), {})


def test_somebody_elses_purpose_is_ignored() -> None:
    """An event of a purpose that the policy does not know poisons nothing, one of no purpose poisons its account."""
    stranger = grant("infinity", purpose="newsletter", granted=None)
    assert explained(world(chat(), consent=[stranger]))[0] == "standard"
    assert explained(world(chat(), consent=[grant(OCTOBER, purpose=None)]))[0] == "unclassified"


@pytest.mark.parametrize(
    "columns",
    [{"plans": [plan("pro"), plan("max", "infinity")]}, {"plans": [plan("pro"), plan("max", None)]},
     {"consent": [grant(None)]}, {"consent": [grant("-infinity")]}, {"consent": [withdrawal(DECEMBER, granted=None)]},
     {"account": {"closed_at": "1970-01-01T00:00:00Z"}}],
)  # fmt: skip
def test_a_poisoned_account_disturbs_no_other(columns: Json) -> None:
    """One poisoned row leaves its account unclassified and every other account as it was."""
    the_world = world(chat(), {**chat(), "id": "c2", "account": "a2", "messages": []}, **columns)
    the_world["accounts"].append({"id": "a2", "plans": [plan("pro")], "consent": []})
    found = model.verdicts(the_world)
    assert (found["c1"].rule, found["c2"].rule) == ("unclassified", "standard")


def test_entire_takes_the_old_part_of_a_resumed_chat() -> None:
    """With "entire", a chat last active inside the open epoch is eligible as a whole, but not across foreign plans."""
    resumed = chat("2025-09-20T00:00:00Z", NOVEMBER)
    resumed["messages"].append({"id": "m2", "created_at": "2025-09-20T00:00:00Z", "author": "assistant"})
    the_world = world(resumed, consent=[grant(OCTOBER)])
    assert model.messages(the_world) == {"m1": "eligible", "m2": "before_consent"}
    assert model.messages(the_world, resumed="entire") == {"m1": "eligible", "m2": "eligible"}
    foreign = world(resumed, as_of=NOVEMBER, consent=[grant(OCTOBER)], plans=[plan("team"), plan("pro", OCTOBER)])
    assert model.messages(foreign, resumed="entire")["m2"] == "plan"


def test_a_due_in_year_9999_is_never() -> None:
    """A due at or after 9999-01-01 is never, and the rule keeps its name."""
    assert explained(world(chat(NOVEMBER, "9998-12-02T00:00:00Z"))) == ("standard", None)
    assert explained(world(chat(NOVEMBER, "9998-12-01T00:00:00Z")))[1] == on(9998, 12, 31)


def test_feedback_has_its_own_clock() -> None:
    """A bug report before 2025-10-17 lives 30 days, one from then on five years, and a deleted chat changes neither."""
    rows = [
        {"id": "f1", "account": "a1", "conversation": "c1", "kind": "bug_report", "submitted_at": at}
        for at in ("2025-10-16T00:00:00Z", "2025-10-17T00:00:00Z")
    ]
    dues = [model.feedback(world(chat(deleted_at=NOVEMBER), feedback=[row]))["f1"].due for row in rows]
    assert dues == [on(2025, 11, 15), on(2030, 10, 17)]


def test_doubtful_feedback_is_kept_whatever_orders_say() -> None:
    """Feedback of an unknown kind or without a plausible submission has no due."""
    row = {"id": "f1", "account": "a1", "conversation": None, "kind": "haiku", "submitted_at": NOVEMBER}
    order = {"account": "a1", "due_at": NOVEMBER}
    for doubtful in (row, {**row, "kind": "thumbs", "submitted_at": "infinity"}, {**row, "submitted_at": None}):
        found = model.feedback(world(orders=[order], feedback=[doubtful]))["f1"]
        assert (found.rule, found.due, found.purge) == ("unclassified", None, False)
    ordered = model.feedback(world(orders=[order], feedback=[{**row, "kind": "thumbs"}]))["f1"]
    assert (ordered.rule, ordered.purge) == ("erasure_order", True)


@settings(max_examples=200)
@given(the_world=worlds(poison=True))
def test_laws_of_any_world(the_world: Json) -> None:
    """Nothing held is purged, nothing without a due is purged, nothing expired or unclassified is eligible."""
    found = model.verdicts(the_world)
    for verdict in [*found.values(), *model.feedback(the_world).values()]:
        assert not (verdict.purge and (verdict.held or verdict.due is None))
    for resumed in ("from_opt_in", "entire"):
        reasons = model.messages(the_world, resumed)
        for conversation in the_world["conversations"]:
            for message in conversation["messages"]:
                if reasons.get(message["id"]) == "eligible":
                    verdict = found[conversation["id"]]
                    assert not verdict.unclassified
                    assert verdict.due is None or verdict.due > datetime.fromisoformat(the_world["as_of"])
