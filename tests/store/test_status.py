"""The status: what is at work, what was, and what to do where something is wrong."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sweeper.encoding import to_json
from sweeper.evidence import checkpoint
from sweeper.policy.instant import rfc3339
from sweeper.policy.times import length, relative, when
from sweeper.postgres import backfills
from sweeper.report import status
from sweeper.report.overdue import PATIENCE
from sweeper.report.status import Status
from tests.facts import instant
from tests.store.operated import NOW, TICK, chat, ran, world
from tests.store.stores import Store, frozen


def look(store: Store, **sections: Any) -> Status:
    """The status at a frozen now."""
    return status.read(store.database(store.settings(**sections)), frozen(NOW))


def advice(store: Store) -> str:
    """What the status advises, in one text."""
    return "\n".join(look(store).advice)


def test_nothing_is_wrong(store: Store) -> None:
    """After a success nothing is advised, until it is more than 26 hours ago."""
    assert advice(store).startswith("No run has completed yet")
    ran(store, {}, finished_at=rfc3339(instant(NOW) - PATIENCE))
    assert advice(store) == ""
    store.execute("UPDATE sweeper.runs SET finished_at = finished_at - interval '1 second'")
    assert "The last success was 1 day 2 h ago" in advice(store)


def test_advice(store: Store) -> None:
    """Each thing that is wrong is named with what to do: a pause, a refusal, a failure, a stop, a death, a stall."""
    ran(store, {})
    store.execute("INSERT INTO sweeper.pauses (reason, paused_at) VALUES ('audit', '2026-05-31T00:00:00Z')")
    assert "Paused since 2026-05-31T00:00:00Z (audit)" in advice(store)
    assert "`sweeper resume`" in advice(store)
    store.execute("UPDATE sweeper.pauses SET resumed_at = %s", NOW)
    assert advice(store) == ""
    refused = ran(store, {"guard": "volume", "text": "9 are due. Run --approve."}, "refused")
    assert advice(store) == f"Run {refused} was refused by volume: 9 are due. Run --approve."
    failed = ran(store, {"failed": 3}, "failed")
    assert f"Run {failed} failed: 3 records could not be purged" in advice(store)
    stopped = ran(store, {"stop_reason": "signal"}, "stopped")
    assert f"Run {stopped} was stopped (signal)" in advice(store)
    ran(store, {"stop_reason": "max_runtime"}, "stopped")
    assert advice(store) == ""
    stalled = ran(store, {"stalled": True})
    assert f"Run {stalled} purged nothing although records were due" in advice(store)
    ran(store, {})
    assert advice(store) == ""
    running = ran(store, None, "")
    assert f"Run {running} has not ended and holds no lease: it died." in advice(store)
    store.execute("INSERT INTO sweeper.lease (store, run_id, expires_at) VALUES ('store', %s, 'infinity')", running)
    assert advice(store) == ""


@pytest.mark.parametrize(("silent", "said"), [(backfills.SILENT, False), (backfills.SILENT + TICK, True)])
def test_backfills(store: Store, silent: timedelta, said: bool) -> None:  # noqa: FBT001 — a parameter of the table
    """An unfinished backfill is shown with its progress, and one that has been silent for too long is advised on."""
    ran(store, {})
    (plan_id,) = store.execute(
        "INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, "
        "seen_at) "
        "VALUES ('store', '2026-01-01Z', '2026-01-05Z', 'day', 'd', 'a', 60, '2026-01-04Z', %s, %s) RETURNING id",
        NOW, rfc3339(instant(NOW) - silent),
    )[0]  # fmt: skip
    run_id = ran(store, {"purged": 30}, kind="backfill")
    store.execute("UPDATE sweeper.runs SET backfill_id = %s WHERE id = %s", plan_id, run_id)
    (progress,) = look(store).backfills
    assert (progress.share, progress.purged, progress.plan.expected) == (0.5, 30, 60)
    assert (f"Nobody works on backfill {plan_id} (its process died, last heartbeat 15 s ago)" in advice(store)) is said
    store.execute("INSERT INTO sweeper.lease (store, run_id, expires_at) VALUES ('store', %s, 'infinity')", run_id)
    assert advice(store) == ""
    store.execute("UPDATE sweeper.backfills SET finished_at = seen_at")
    assert (look(store).backfills, advice(store)) == ([], "")


def test_backlog(store: Store) -> None:
    """A backlog is told with its age, and a count that was ended says at least."""
    ran(store, {})
    store.load(world(chat("c1", PATIENCE), chat("c2", PATIENCE)))
    assert advice(store) == ""
    store.execute(
        "UPDATE conversations SET last_activity_at = last_activity_at - interval '1 day', created_at = '2020-01-01Z'"
    )
    assert advice(store).startswith("2 conversations are overdue, the oldest for 2 days 2 h: ")
    ended = status.read(store.database(), frozen(NOW), lambda: True)
    assert to_json(ended)["overdue"]["complete"] is False


def test_feedback_backlog(store: Store) -> None:
    """Feedback that is overdue is told as conversations are."""
    ran(store, {})
    told = {
        "id": "f1",
        "account": "a1",
        "kind": "thumbs",
        "submitted_at": rfc3339(instant(NOW) - timedelta(days=3_000)),
    }
    store.load(world(feedback=[told]))
    assert advice(store).startswith("1 feedback rows are overdue, the oldest for 1,174 days")


def test_backlog_of_a_backfill(store: Store) -> None:
    """What runs leave to a backfill is not said to be purged by a run."""
    ran(store, {})
    store.load(world(chat("c1", timedelta(days=3))))
    store.execute(
        "INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, "
        "seen_at) VALUES ('store', '2026-01-01Z', '2026-05-30Z', 'day', 'd', 'a', 40, '2026-01-04Z', %s, %s)",
        NOW, NOW,
    )  # fmt: skip
    assert "runs leave what is due before 2026-05-30T00:00:00Z to backfill 1: `sweeper backfill" in advice(store)
    assert "sweeper run" not in advice(store)


def test_slices_hide_no_run(store: Store) -> None:
    """Slices that give way, or wait for their hours, ask for nothing, and a refused run before them is told all the same."""
    ran(store, {})
    for reason in ("yielded", "hours", "paused"):
        ran(store, {"stop_reason": reason, "stalled": True}, "stopped", kind="backfill")
        assert advice(store) == ""
    refused = ran(store, {"guard": "volume", "text": "9 are due."}, "refused")
    for _ in range(status.RUNS_SHOWN + 1):
        ran(store, {}, kind="backfill")
    assert advice(store) == f"Run {refused} was refused by volume: 9 are due."
    failed = ran(store, {"failed": 3}, "failed", kind="backfill")
    assert f"Run {failed} failed" in advice(store)
    ran(store, {})
    assert advice(store) == ""


def test_skipped_by_the_last_run(store: Store) -> None:
    """What only a run can tell is told as it counted it; what can be counted now is, unless the count was ended."""
    counts = {"spared_by_reason": {"stale_last_activity": 4, "locked": 2}, "unclassified_by_reason": {"no_plan": 3}}
    ran(store, {"purged": 9, "feedback_purged": 1, **counts, "unclassified_by_reason": {"no_plan": 1}})
    run_id = ran(store, {"purged": 9, "feedback_purged": 1, **counts})
    assert [line.partition(":")[0] for line in look(store).advice] == [
        f"2 records are skipped (locked, by run {run_id} of 2026-06-01T00"
    ]
    store.load(world(chat("c1", timedelta(hours=1))))
    ended = "\n".join(status.read(store.database(), frozen(NOW), lambda: True).advice)
    assert f"4 records are skipped (stale_last_activity, by run {run_id} of" in ended
    assert (
        f"3 records are in doubt and kept (no_plan, by run {run_id} of {NOW}; 2 more than by run {run_id - 1})" in ended
    )


@pytest.mark.parametrize(("ago", "said"), [(PATIENCE, False), (PATIENCE + TICK, True)])
def test_uncovered_evidence(store: Store, ago: timedelta, said: bool) -> None:  # noqa: FBT001 — a parameter of the table
    """Evidence is said to be uncovered if the newest checkpoint is old, and if a run has ended since and took none."""
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    checkpoint.take(store.database(), frozen(rfc3339(instant(NOW) - ago)), None)
    ran(store, {}, finished_at=rfc3339(instant(NOW) - ago))
    assert "checkpoint" not in advice(store)
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    assert (f"No checkpoint covers the evidence since {rfc3339(instant(NOW) - ago)} (1 rows)" in advice(store)) is said
    ran(store, {}, finished_at=rfc3339(instant(NOW) - timedelta(seconds=601)))
    assert "`sweeper audit checkpoint`" in advice(store)


def test_objects_behind(store: Store) -> None:
    """An object is behind if no prefix allows to remove it, if a run has failed to, or if it is old; until then it waits."""
    run_id = ran(store, {})
    store.execute(
        "INSERT INTO sweeper.object_purges (uri, conversation_id, run_id) VALUES ('s3://b/o', 'x', %s)", run_id
    )
    allowed = {"objects": {"prefixes": ["s3://b/"], "grace_seconds": 60}}
    assert [line.partition(":")[0] for line in look(store).advice] == [
        "1 objects of purged attachments are still there"
    ]
    assert look(store, **allowed).advice == []
    store.execute("UPDATE sweeper.object_purges SET attempts = 1, last_error = 'forbidden'")
    assert "last_error in sweeper.object_purges" in look(store, **allowed).advice[0]
    store.execute("UPDATE sweeper.object_purges SET attempts = 0")
    late = rfc3339(instant(NOW) - PATIENCE - timedelta(seconds=60))
    store.execute("UPDATE sweeper.runs SET finished_at = %s::timestamptz + interval '1 second'", late)
    assert "objects" not in "".join(look(store, **allowed).advice)
    store.execute("UPDATE sweeper.runs SET finished_at = %s", late)
    assert "1 objects of purged attachments are still there" in "".join(look(store, **allowed).advice)


def test_not_looked_at(store: Store, tmp_path: Path) -> None:
    """What status did not look at is said: an ended count, a policy or a store that cannot be read, a report of long ago."""
    ran(store, {})
    assert look(store).not_looked_at == [
        "Records in doubt that no run meets: no `sweeper report` has counted them yet."
    ]
    details = {part: {"unclassified": {}} for part in ("conversations", "feedback")} | {
        "store": "store",
        "present": True,
    }
    reported = "INSERT INTO sweeper.events (kind, at, details) VALUES ('reported', %s, %s)"
    store.execute(reported, rfc3339(instant(NOW) - status.REPORT_AGE - TICK), json.dumps(details))
    assert "since the report of 2026-05-29T21:59:59.999999Z" in look(store).not_looked_at[0]
    store.execute(reported, rfc3339(instant(NOW) - status.REPORT_AGE), json.dumps(details))
    assert look(store).not_looked_at == []
    store.load(world(chat("c1", timedelta(hours=1))))
    ended = status.read(store.database(), frozen(NOW), lambda: True)
    assert ended.not_looked_at == ["Overdue records beyond those counted: `sweeper report` counts all."]
    unread = look(store, policy={"file": str(tmp_path / "none.toml")})
    assert unread.not_looked_at == ["What is overdue, skipped or in doubt now, for the reason above."]
    store.execute("ALTER TABLE store.messages DROP author")
    assert any(line.startswith("Indexes, because the store cannot be read") for line in look(store).not_looked_at)


def test_holder(store: Store) -> None:
    """The lease is told as the database sees it: held until it ends, with when it was renewed."""
    run_id = ran(store, None, "")
    store.execute("INSERT INTO sweeper.lease (store, run_id, expires_at) VALUES ('store', %s, '2100-01-01Z')", run_id)
    holder = look(store).holder
    assert holder is not None
    assert (holder.held, holder.run_id, holder.kind, holder.wanted_at) == (True, run_id, "run", None)
    assert holder.renewed_at == instant("2099-12-31T23:59:40Z")
    assert look(store).as_json()["running"] == [run_id]
    store.execute("UPDATE sweeper.lease SET expires_at = '2020-01-01Z'")
    assert look(store).as_json()["running"] == []
    store.execute("UPDATE sweeper.lease SET expires_at = '-infinity', wanted_at = '2020-01-01Z'")
    given_back = look(store).holder
    assert given_back is not None
    assert (given_back.held, given_back.expires_at, given_back.wanted_at) == (
        False,
        None,
        instant("2020-01-01T00:00:00Z"),
    )


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(0), "now"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(minutes=59, seconds=50), "60 minutes ago"),
        (timedelta(hours=-3, minutes=-20), "in 3 hours"),
        (timedelta(days=729), "729 days ago"),
        (timedelta(days=-4 * 365 - 350), "in 5 years"),
        (timedelta(days=730_500), "2,000 years ago"),
    ],
)
def test_relative(ago: timedelta, said: str) -> None:
    """An instant is told relative to now by its largest unit, rounded; in UTC it is told to the second."""
    now = instant("2026-11-28T02:30:00.123456Z")
    assert relative(now - ago, now) == said
    assert when(now, now) == "2026-11-28T02:30:00Z, now"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.44, "0.4 s"), (75, "1 min 15 s"), (86_400, "1 day"), (2 * 86_400 + 3_600, "2 days 1 h"), (3_600, "1 h")],
)
def test_length(seconds: float, said: str) -> None:
    """A length is told by its two largest units."""
    assert length(seconds) == said
