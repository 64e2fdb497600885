"""The last word before a purge, row by row: what protects counts whatever its instant, and what changed is kept."""

from dataclasses import replace
from typing import Any

import pytest

from sweeper.policy.anomaly import anomalies
from sweeper.policy.evaluate import Proposal, evaluate
from sweeper.policy.facts import Facts, Message
from sweeper.policy.schema import Policy
from sweeper.policy.training import exclusions
from tests.facts import facts_of, instant, stored

AS_OF = "2026-01-15T00:00:00Z"
PRO = [{"effective_at": "2024-01-01T00:00:00Z", "plan": "pro"}]
UNKNOWN = [{"effective_at": "2024-01-01T00:00:00Z", "plan": "platinum"}]
TEAM = [{"effective_at": "2024-01-01T00:00:00Z", "plan": "team"}]
GRANT = [{"recorded_at": "2025-09-01T00:00:00Z", "granted": True}]


def day(text: str | None) -> str | None:
    """A day as an instant; instants and odd ones stay as they are."""
    return f"{text}T00:00:00Z" if text and len(text) == 10 else text


def facts(latest: str | None = "2025-12-01", late: str | None = None, **said: Any) -> Facts:
    """A chat of December 2025, due on the last of it, with what is said of it; `latest` is its newest user message."""
    account = {"id": "a1", "plans": said.pop("plans", PRO), "consent": said.pop("consent", [])}
    holds = [{k: day(v) if k.endswith("_at") else v for k, v in h.items()} for h in said.pop("holds", [])]
    orders = [{k: day(v) if k.endswith("_at") else v for k, v in o.items()} for o in said.pop("orders", [])]
    chat = {
        "id": "c1",
        "account": "a1",
        "created_at": "2025-12-01",
        "last_activity_at": "2025-12-01",
        "messages": [],
        **said,
    }
    chat = {k: day(v) if k.endswith("_at") else v for k, v in chat.items()}
    world = {"as_of": AS_OF, "accounts": [account], "conversations": [chat], "holds": holds, "orders": orders}
    return replace(
        facts_of(world, "c1"), latest_user_message_at=stored(day(latest)), late_user_message_at=stored(day(late))
    )


def outcome(known: Facts, policy: Policy, as_of: str = AS_OF, **proposed: str) -> str:
    """Return the outcome, with the reason if it is skipped."""
    c = known.conversation
    last = stored(day(proposed["last"])) if "last" in proposed else c.last_activity_at
    deleted = stored(day(proposed["deleted"])) if "deleted" in proposed else c.deleted_at
    found = evaluate(known, Proposal(c.account_id, c.id, last, deleted), policy, instant(as_of))
    return f"{found.outcome}: {found.spared}" if found.spared else str(found.outcome)


PROTECTED, STALE, CHANGED = "spared: protected_after_as_of", "spared: stale_last_activity", "spared: changed"
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing special": ({}, "purge"),
    "hold before as-of": ({"holds": [{"placed_at": "2026-01-10"}]}, "held"),
    "hold after as-of": ({"holds": [{"placed_at": "2026-01-16", "account": "a1"}]}, PROTECTED),
    "hold after as-of, released later": (
        {"holds": [{"placed_at": "2026-01-16", "released_at": "2026-01-17"}]},
        PROTECTED,
    ),
    "hold on another account": ({"holds": [{"placed_at": "2026-01-16", "account": "a2"}]}, "purge"),
    "flag after as-of": ({"flagged_at": "2026-01-16"}, PROTECTED),
    "flag after as-of, but an order": (
        {"flagged_at": "2026-01-16", "orders": [{"account": "a1", "due_at": "2026-01-01"}]},
        "purge",
    ),
    "flag after as-of, zero retention": ({"flagged_at": "2026-01-16", "zero_retention": True}, PROTECTED),
    "flag that is no instant, but an order": (
        {"flagged_at": "9999-06-01", "orders": [{"account": "a1", "due_at": "2026-01-01"}]},
        "purge",
    ),
    "later message": ({"latest": "2026-01-10"}, STALE),
    "later message, due all the same": ({"latest": "2025-12-10"}, "purge"),
    "later message, after as-of": ({"latest": "2026-02-10"}, STALE),
    "later message, but deleted": ({"latest": "2026-02-10", "deleted_at": "2025-12-02"}, "purge"),
    "message at infinity": ({"latest": "infinity"}, STALE),
    "earlier message": ({"latest": "2025-11-01"}, "purge"),
    "no message": ({"latest": None}, "purge"),
    "flag and message": ({"latest": "2026-01-10", "flagged_at": "2026-01-16"}, PROTECTED),
    "unknown plan": ({"plans": UNKNOWN}, "unclassified"),
    "unknown plan, deleted": ({"plans": UNKNOWN, "deleted_at": "2025-12-02"}, "purge"),
    "unknown plan, deleted lately": ({"plans": UNKNOWN, "deleted_at": "2026-01-02"}, "unclassified"),
    "unknown plan, deleted, held": (
        {"plans": UNKNOWN, "deleted_at": "2025-12-02", "holds": [{"placed_at": "2025-12-03"}]},
        "held",
    ),
    "not there yet": (
        {"created_at": "2026-02-01", "last_activity_at": "2026-02-01", "zero_retention": True},
        "not_due",
    ),
    "not there yet, but an undated order": (
        {
            "created_at": "2026-02-01",
            "last_activity_at": "2026-02-01",
            "orders": [{"account": "a1", "recorded_at": None, "due_at": "2026-01-01"}],
        },
        "not_due",
    ),
    "restored after as-of": (
        {"consent": GRANT, "deleted_at": "2025-12-02", "restored_at": "2026-01-16"},
        "not_due",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_dispose(policy: Policy, row: str) -> None:
    """A proposed row is purged, held, skipped, unclassified or not due, by the facts read after it was locked."""
    said, wanted = ROWS[row]
    assert outcome(facts(**said), policy) == wanted


def test_a_microsecond_of_activity(policy: Policy) -> None:
    """A user message a microsecond newer than the column postpones the due date by as much; the row is skipped until then."""
    known = facts("2025-12-01T00:00:00.000001Z")
    assert outcome(known, policy, "2025-12-31T00:00:00Z") == STALE
    assert outcome(known, policy, "2025-12-31T00:00:00.000001Z") == "purge"


@pytest.mark.parametrize(
    ("last", "wanted"), [("2026-01-10", CHANGED), ("2026-01-20", CHANGED), ("2025-12-10", "purge")]
)
def test_changed_since_it_was_proposed(policy: Policy, last: str, wanted: str) -> None:
    """A row whose last activity changed since the proposal is skipped, unless it is due all the same."""
    assert outcome(facts(last, last_activity_at=last), policy, last="2025-12-01") == wanted


def test_changed_since_it_was_proposed_but_never_due(policy: Policy) -> None:
    """A row that was not due as it was proposed either is simply not due."""
    known = facts("2026-01-10", last_activity_at="2026-01-10")
    assert outcome(known, policy, last="2026-01-09") == "not_due"


def test_deletion_undone_since_it_was_proposed(policy: Policy) -> None:
    """A row whose deletion was undone since the proposal is skipped."""
    assert outcome(facts(consent=GRANT), policy, deleted="2025-12-02") == CHANGED


def test_nothing_is_trained_on_before_it_exists(policy: Policy) -> None:
    """No message of a conversation that begins after as-of is reported."""
    known = facts(consent=GRANT, created_at="2026-02-01", last_activity_at="2026-02-01")
    written = [Message("m", "user", stored("2025-12-01T00:00:00Z"))]
    assert list(exclusions(known, written, policy, instant(AS_OF))) == []
    assert list(exclusions(known, written, policy, instant("2026-02-02T00:00:00Z"))) != []


UNDECIDED = "undecided_after_deadline"
MOVED = [*PRO, {"effective_at": "2025-12-10T00:00:00Z", "plan": "team"}]
OPENED = {"created_at": "2025-10-01", "last_activity_at": "2025-10-08"}
ODD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wrote at the deadline": ({**OPENED, "latest": "2025-10-08"}, [UNDECIDED]),
    "wrote just before it": ({**OPENED, "latest": "2025-10-07T23:59:59.999999Z"}, []),
    "wrote on a team's plan": ({"plans": TEAM}, []),
    "wrote on pro, later on a team's plan": (
        {"plans": MOVED, "late": "2025-12-01", "latest": "2025-12-20", "last_activity_at": "2025-12-20"},
        [UNDECIDED],
    ),
    "wrote after as-of only": ({**OPENED, "latest": "2026-06-01"}, ["stale_last_activity"]),
    "has withdrawn": ({"consent": [{"recorded_at": "2025-12-01T00:00:00Z", "granted": False}]}, []),
    "chose after as-of": ({"consent": [{"recorded_at": "2026-12-01T00:00:00Z", "granted": True}]}, [UNDECIDED]),
    "chose for another purpose": (
        {"consent": [{"recorded_at": "2025-12-01T00:00:00Z", "granted": True, "purpose": "development_partner"}]},
        [UNDECIDED],
    ),
    "zero retention": ({"consent": GRANT, "zero_retention": True}, ["zero_retention_stored"]),
    "last activity after as-of": ({"consent": GRANT, "last_activity_at": "2026-01-16"}, ["last_activity_after_as_of"]),
    "last activity at as-of": ({"consent": GRANT, "last_activity_at": "2026-01-15"}, []),
    "last activity that is no instant": ({"consent": GRANT, "last_activity_at": "9999-01-15"}, []),
    "no last activity": ({"consent": GRANT, "last_activity_at": None}, ["stale_last_activity"]),
    "last activity always": ({"consent": GRANT, "last_activity_at": "-infinity"}, ["stale_last_activity"]),
}


@pytest.mark.parametrize("odd", ODD)
def test_anomalies(policy: Policy, odd: str) -> None:
    """Anomalies are reported, and nothing else."""
    said, wanted = ODD[odd]
    assert [str(a) for a in anomalies(facts(**said), policy, instant(AS_OF))] == wanted


def test_of_the_past_no_clock_is_suspected(policy: Policy) -> None:
    """At an as-of in the past, a later last activity is no anomaly."""
    known = facts(consent=GRANT, last_activity_at="2026-01-16")
    assert list(anomalies(known, policy, instant(AS_OF), present=False)) == []
