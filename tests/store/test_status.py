"""The status: what is at work, what was, and what to do where something is wrong."""

from datetime import timedelta
from typing import Any

import pytest

from sweeper.encoding import to_json
from sweeper.policy.instant import rfc3339
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
    """An unfinished backfill is shown with its progress, and one that is silent for more than ten minutes is advised on."""
    ran(store, {})
    (plan_id,) = store.execute(
        "INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, "
        "seen_at) "
        "VALUES ('store', '2026-01-01Z', '2026-01-05Z', 'day', 'd', 'a', 40, '2026-01-04Z', %s, %s) RETURNING id",
        NOW, rfc3339(instant(NOW) - silent),
    )[0]  # fmt: skip
    run_id = ran(store, {"purged": 30}, kind="backfill")
    store.execute("UPDATE sweeper.runs SET backfill_id = %s WHERE id = %s", plan_id, run_id)
    (progress,) = look(store).backfills
    assert (progress.share, progress.purged, progress.plan.expected) == (0.75, 30, 40)
    assert (f"Backfill {plan_id} was last seen 10 min ago" in advice(store)) is said
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
    assert advice(store).startswith("1 feedback rows are overdue, the oldest for 1174 days")


def test_backlog_of_a_backfill(store: Store) -> None:
    """What runs leave to a backfill is not said to be purged by a run."""
    ran(store, {})
    store.load(world(chat("c1", timedelta(days=3))))
    store.execute(
        "INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, "
        "seen_at) VALUES ('store', '2026-01-01Z', '2026-05-30Z', 'day', 'd', 'a', 40, '2026-01-04Z', %s, %s)",
        NOW, NOW,
    )  # fmt: skip
    assert (
        "runs leave what is due before 2026-05-30T00:00:00Z to backfill 1, which must be at work: `sweeper backfill"
        in advice(store)
    )
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
    ("seconds", "said"),
    [(0.44, "0.4 s"), (75, "1 min 15 s"), (86_400, "1 day"), (2 * 86_400 + 3_600, "2 days 1 h"), (3_600, "1 h")],
)
def test_length(seconds: float, said: str) -> None:
    """A length is told by its two largest units."""
    assert status.length(seconds) == said
