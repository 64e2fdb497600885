"""The report: every record is counted once, what it sees is recorded, and nothing purged while overdue is an alarm."""

import json
from datetime import timedelta

import pytest

from sweeper.encoding import to_json
from sweeper.policy.counts import RecordCounts
from sweeper.policy.decide import Verdict
from sweeper.policy.evaluate import Evaluation, Outcome
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.report import overdue
from sweeper.report.overdue import PATIENCE
from sweeper.report.report import Report, report
from tests.facts import instant
from tests.store.operated import NOW, TICK, bury, chat, exported, mixed, ran, read, world
from tests.store.stores import Store, frozen


def test_report(store: Store, policy: Policy) -> None:
    """Every record is in one line and one state; kept ones are counted by how soon they are due."""
    store.load(mixed())
    told = to_json(report(store.job(policy, NOW)))
    chats, feedback = told["conversations"], told["feedback"]
    assert (chats["total"], feedback["total"]) == (12, 6)
    standard = chats["by_rule"]["standard"]
    assert {state: standard[state] for state in ("kept", "overdue", "held", "spared", "held_past_due")} == {
        "kept": 3, "overdue": 3, "held": 2, "spared": 1, "held_past_due": 1,
    }  # fmt: skip
    assert standard["due_in_days"] == {"1": 1, "7": 2, "30": 3}
    assert chats["overdue"]["standard"]["oldest_due_at"] == "2026-05-30T08:00:00Z"
    assert chats["unclassified"] == {"unknown_plan": 1}
    assert (chats["spared"], chats["held_past_due"]) == ({"stale_last_activity": 1}, 1)
    assert told["anomalies"] == {
        "created_after_as_of": 1, "stale_last_activity": 1, "survey_with_transcript": 1, "zero_retention_stored": 1,
    }  # fmt: skip
    assert feedback["by_rule"]["feedback"]["due_in_days"] == {"1": 1, "7": 1, "30": 1}
    assert feedback["spared"] == {"protected_after_as_of": 1}
    assert feedback["unclassified"] == {"feedback_kind": 1}
    assert feedback["held_past_due"] == 1


def test_report_leaves_one_event(store: Store, policy: Policy) -> None:
    """It is the only thing written, holds counts, and is what the metrics say of doubt until the next report."""
    store.load(mixed())
    assert ("sweeper_unclassified_conversations", "unknown_plan") not in exported(read(store))
    assert exported(read(store))["sweeper_last_report_timestamp_seconds",] == 0
    before = store.left()
    report(store.job(policy, NOW))
    assert store.left() == before
    assert store.execute("SELECT kind FROM sweeper.events WHERE kind NOT LIKE 'hold%%'") == [("reported",)]
    found = exported(read(store))
    assert found["sweeper_unclassified_conversations", "unknown_plan"] == 1
    assert found["sweeper_unclassified_feedback", "feedback_kind"] == 1
    assert found["sweeper_zero_retention_stored_conversations",] == 1
    at = store.execute("SELECT extract(epoch FROM at) FROM sweeper.events WHERE kind = 'reported'")[0][0]
    assert found["sweeper_last_report_timestamp_seconds",] == pytest.approx(float(at), abs=0.001)


def test_metrics_follow_reports_on_the_present(store: Store, policy: Policy) -> None:
    """A report on another as-of, or on another store, says nothing of now, however new it is; it alarms nobody either."""
    store.load(world(chat("c1", timedelta(days=9), account="a2"), chat("c2", timedelta(days=9))))
    assert len(report(store.job(policy, NOW)).alarms) == 1
    ahead = report(store.job(policy, "2026-07-01T00:00:00Z", frozen(NOW)))
    assert (ahead.counts.due, ahead.alarms) == (1, [])
    before = report(store.job(policy, "2019-01-01T00:00:00Z", frozen(NOW)))
    assert (before.counts.conversations.total, before.alarms) == (0, [])
    assert exported(read(store))["sweeper_unclassified_conversations", "unknown_plan"] == 1
    details = {"store": "other", "present": True, "conversations": {"unclassified": {"unknown_plan": 7}}}
    store.execute("INSERT INTO sweeper.events (kind, details) VALUES ('reported', %s)", json.dumps(details))
    assert exported(read(store))["sweeper_unclassified_conversations", "unknown_plan"] == 1


def test_past(store: Store, policy: Policy) -> None:
    """What was purged is counted by days from as-of, its own store's only, the edge outside."""
    run_id, other = ran(store, None), ran(store, None, schema="other")
    for hours in (0, 23, 24, 25, 7 * 24 - 1, 7 * 24, 30 * 24 - 1, 30 * 24):
        bury(store, run_id, rfc3339(instant(NOW) - timedelta(hours=hours)))
    bury(store, run_id, rfc3339(instant(NOW) + TICK))
    bury(store, other, NOW)
    told = to_json(report(store.job(policy, NOW)))["purged_in_days"]
    assert {days: found["conversation"]["standard"] for days, found in told.items()} == {"1": 2, "7": 5, "30": 7}


def reported(store: Store, policy: Policy, **ages: timedelta) -> Report:
    """A report on conversations that were due so long ago, by their ids."""
    store.wipe()
    store.load(world(*(chat(id_, age) for id_, age in ages.items())))
    return report(store.job(policy, NOW))


def test_alarm(store: Store, policy: Policy) -> None:
    """Overdue for more than 26 hours while nothing was purged in 26 hours is an alarm; at 26 hours it is not."""
    assert reported(store, policy, c1=PATIENCE).alarms == []
    (alarm,) = reported(store, policy, c1=PATIENCE + TICK, c2=timedelta(hours=1)).alarms
    assert "NOTHING WAS PURGED WHILE 2 CONVERSATIONS ARE OVERDUE" in alarm
    assert "`sweeper run`" in alarm
    run_id = ran(store, None)
    bury(store, run_id, rfc3339(instant(NOW) - PATIENCE))
    bury(store, run_id, NOW, record="feedback")
    assert len(report(store.job(policy, NOW)).alarms) == 1
    bury(store, run_id, rfc3339(instant(NOW) - PATIENCE + TICK))
    assert report(store.job(policy, NOW)).alarms == []


def test_alarm_of_feedback(store: Store, policy: Policy) -> None:
    """Feedback that nobody purges is an alarm of its own, though conversations are purged."""
    row = {"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2021-05-30T00:00:00Z"}
    store.load(world(feedback=[row]))
    bury(store, ran(store, None), NOW)
    (alarm,) = report(store.job(policy, NOW)).alarms
    assert "1 FEEDBACK ROWS ARE OVERDUE" in alarm


def test_alarms_are_per_kind() -> None:
    """A kind of which nothing is overdue alarms nobody, whatever was purged."""
    due = RecordCounts()
    verdict = Verdict(instant(NOW), "standard", instant(NOW) - timedelta(days=9), held=False)
    due.count(Evaluation(Outcome.PURGE, verdict))
    assert overdue.alarms({"conversation": RecordCounts(), "feedback": RecordCounts()}, {}, instant(NOW)) == []
    assert len(overdue.alarms({"conversation": due, "feedback": due}, {"feedback": 1}, instant(NOW))) == 1
