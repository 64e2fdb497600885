"""A backfill as a person lives with it: approved once, stopped and gone on with, beside nightly runs, never more than said."""

import gc
import json
import signal
import time
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from sweeper.clock import Clock
from sweeper.encoding import to_json
from sweeper.errors import RefusedError
from sweeper.policy.evaluate import Proposal
from sweeper.policy.hours import Hours
from sweeper.policy.schema import Policy, parse
from sweeper.policy.window import Slice
from sweeper.postgres import backfills, pauses
from sweeper.postgres.proposals import Selector
from sweeper.runs import backfill as filling
from sweeper.runs import backfill_runner
from sweeper.runs.backfill import BackfillScope
from sweeper.runs.backfill_runner import BackfillRunner
from sweeper.runs.heartbeat import heartbeat
from sweeper.runs.job import Job
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import Budget, ProgressListener
from tests.acceptance.backfills import (
    ACCOUNT,
    AFTER,
    BEFORE,
    DUE,
    EACH,
    MONTHS,
    NOW,
    SCOPE,
    begin,
    begun,
    done,
    drained,
    fill,
    job_of,
    key,
    moved,
    running,
    runs,
    state,
    token_of,
    words,
)
from tests.acceptance.commands import in_process
from tests.acceptance.test_kill import each_once, gate, waiting
from tests.facts import instant
from tests.processes import until
from tests.store.stores import POLICY, Store

POLICY_TEXT = Path(POLICY).read_text()
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill in this process that waits looks again soon, and a run does not wait long for a heartbeat."""
    monkeypatch.setattr(backfill_runner, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(backfills, "SILENT", timedelta(seconds=0.3))


# What it does


def test_whole_plan(store: Store, policy: Policy) -> None:
    """Slice by slice all that is due within is purged, with evidence of its own; what is outside, held or feedback stays."""
    fill(store)
    job = job_of(store, policy)
    found = to_json(preview(job, scope=SCOPE))
    assert (found["would_purge"], found["held"], found["by_rule"]) == (DUE, 1, {"standard": DUE})
    assert [(row["since"][:7], row["would_purge"]) for row in found["slices"]] == [
        (f"2024-{month:02d}", EACH - (month == 3)) for month in range(1, MONTHS + 1)
    ]
    assert runs(store) == []
    result = drained(job, token=found["digest"])
    assert (result.outcome, result.purged, result.purged_now, result.failed) == ("completed", DUE, DUE, 0)
    assert result.done_until == SCOPE.until
    assert len(store.left()) == BEFORE + AFTER + 2
    assert key(2 * EACH) in store.left()
    assert store.execute("SELECT count(*) FROM feedback") == [(1,)]
    assert runs(store) == [("backfill", "completed", None)] * (MONTHS + 1)
    assert (
        store.execute(
            "SELECT count(DISTINCT date_trunc('month', t.due_at, 'UTC')), count(DISTINCT r.backfill_id) "
            "FROM sweeper.runs r JOIN sweeper.tombstones t ON t.run_id = r.id GROUP BY r.id"
        )
        == [(1, 1)] * MONTHS
    )
    assert store.execute("SELECT due_at FROM sweeper.tombstones ORDER BY id") == store.execute(
        "SELECT due_at FROM sweeper.tombstones ORDER BY due_at, id"
    )
    assert store.execute("SELECT DISTINCT approved FROM sweeper.tombstones") == [(True,)]
    assert each_once(store)
    assert store.execute("SELECT kind FROM sweeper.events WHERE kind LIKE 'backfill%%' ORDER BY id") == [
        ("backfill_begun",),
        ("backfill_finished",),
    ]


def test_slices_give_the_lease_back(store: Store, policy: Policy) -> None:
    """Between two slices the lease is free: each takes it anew."""
    fill(store)
    job = job_of(store, policy)
    drained(job, token=token_of(job))
    assert store.execute("SELECT token, expires_at < clock_timestamp() FROM sweeper.lease") == [(MONTHS + 1, True)]


@pytest.mark.parametrize("by", list(Slice))
def test_any_slices_do_the_same(store: Store, policy: Policy, by: Slice) -> None:
    """By day, week or month: the same is gone."""
    fill(store, 1)
    scope = BackfillScope(instant("2024-02-10T00:00:00Z"), instant("2024-04-10T00:00:00Z"), by)
    job = job_of(store, policy)
    assert drained(job, token=token_of(job, scope), scope=scope).purged == 1
    assert store.execute("SELECT record_id FROM sweeper.tombstones") == [(key(1),)]


def test_progress(store: Store, policy: Policy) -> None:
    """Whoever watches is told of each range searched, the whole plan and each proposal; the log tells rate and time left."""
    fill(store)
    ticks = count()
    clock = Clock(lambda: instant(NOW) + timedelta(seconds=next(ticks)), lambda _: instant(NOW))
    job = job_of(store, policy, clock)
    expected: list[int] = []
    advanced: list[int] = []
    searched: list[tuple[int, int]] = []
    preview(job, ProgressListener(proposes=lambda *found: searched.append(found)), SCOPE)
    assert searched == [(1, 0), *((number, DUE + 1 + AFTER) for number in range(2, 5))]
    with capture_logs() as logged:
        drained(job, token=token_of(job), watch=ProgressListener(expect=expected.append, advance=advanced.append))
    assert (expected, sum(advanced)) == ([DUE], DUE + AFTER)  # those that are due at the very end are looked at, too
    slices = [entry for entry in logged if entry["event"] == "slice"]
    assert [entry["purged_in_all"] for entry in slices] == [3, 6, 8, 11, 14, 17, 17]
    assert all(entry["per_second"] > 0 and entry["remaining_seconds"] >= 0 for entry in slices)
    assert [entry["remaining_seconds"] for entry in slices] == sorted(
        (e["remaining_seconds"] for e in slices), reverse=True
    )
    assert slices[-1]["remaining_seconds"] == 0


def test_proposals_are_never_all_held(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many in one slice about a page of proposals is in memory, however many there are."""
    fill(store, 0)
    count, page = 600, 50
    store.execute(
        "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, "
        "last_activity_at) SELECT gen_random_uuid(), %s, 'chat', 'first_party', false, false, '2020-01-01Z', "
        "'2024-03-05Z' FROM generate_series(1, %s)",
        ACCOUNT,
        count,
    )

    def paged(job: Job) -> Selector:
        return Selector(job.database, job.contract, job.policy, job.as_of, job.window, proposals_per_page=page)

    monkeypatch.setattr(Job, "selector", property(paged))
    job = job_of(store, policy, purge={"batch": 50})
    alive: list[int] = []

    def look(_: int) -> None:
        gc.collect()
        alive.append(sum(type(thing) is Proposal for thing in gc.get_objects()))

    result = drained(job, token=token_of(job), watch=ProgressListener(advance=look))
    assert result.purged == count
    assert 0 < max(alive) <= 2 * page


# Budgets, rate, hours


def test_max_purge(store: Store, policy: Policy) -> None:
    """--max-purge counts over all slices, ends in order, and the next call goes on."""
    fill(store)
    job = job_of(store, policy)
    first = drained(job, token=token_of(job), budget=Budget(purges=4))
    assert (first.outcome, first.stop_reason, first.purged_now) == ("stopped", "max_purge", 4)
    assert first.done_until == instant("2024-02-01T00:00:00Z")
    second = drained(job, budget=Budget(purges=4))
    assert (second.purged_now, second.purged) == (4, 8)
    third = drained(job)
    assert (third.outcome, third.purged_now, third.purged) == ("completed", DUE - 8, DUE)
    assert each_once(store)


def test_max_runtime(store: Store, policy: Policy) -> None:
    """--max-runtime counts over all slices and ends in order between two batches."""
    fill(store)
    job = job_of(store, policy)

    def spend(count: int) -> None:
        began = time.monotonic()
        while count and time.monotonic() < began + 2.0:
            pass

    result = drained(job, token=token_of(job), watch=ProgressListener(advance=spend), budget=Budget(seconds=2.0))
    assert (result.outcome, result.stop_reason, result.purged) == ("stopped", "max_runtime", 2)
    assert drained(job).purged == DUE


def test_rate_holds_over_slices(store: Store, policy: Policy) -> None:
    """Slices of a few conversations are purged no faster than --rate allows together."""
    fill(store, 1)
    job = job_of(store, policy)
    token, began = token_of(job), time.monotonic()
    result = drained(job, token=token, budget=Budget(per_second=2.0))
    assert result.purged == MONTHS - 1
    assert time.monotonic() - began >= (MONTHS - 2) / 2.0


def test_hours(store: Store, policy: Policy) -> None:
    """Outside of --between it waits without the lease and says so; in the hours it works."""
    fill(store, 1)
    told: list[str] = []
    at = [instant("2026-06-01T00:00:00Z")]
    clock = Clock(lambda: at[0], lambda _: at[0])

    def wait(reason: str) -> None:
        if reason:
            assert store.execute("SELECT 1 FROM sweeper.lease WHERE expires_at > clock_timestamp()") == []
            told.append(reason)
            at[0] += HOUR / 2

    job = job_of(store, policy, clock)
    token = token_of(job)
    hours = Hours.parse("01:00-02:00", ZoneInfo("UTC"))

    def work(count: int) -> None:
        assert count == 0 or hours.holds(at[0])
        at[0] += HOUR / 4 * min(count, 1)

    result = drained(job, token=token, watch=ProgressListener(waits=wait, advance=work), hours=hours)
    assert (result.outcome, result.purged) == ("completed", MONTHS - 1)
    assert told[0].startswith("until 01:00-02:00 UTC")
    assert len(told) > 2 * 23


def test_end_of_the_hours_ends_a_slice(store: Store, policy: Policy) -> None:
    """At the end of --between no further batch begins; the slice is gone on with the next day."""
    fill(store)
    at = [instant("2026-06-01T01:00:00Z")]
    clock = Clock(lambda: at[0], lambda _: at[0])

    def wait(reason: str) -> None:
        at[0] = instant("2026-06-02T01:00:00Z") if reason else at[0]

    def work(count: int) -> None:
        if at[0].day == 1:
            at[0] += HOUR * min(count, 1)

    job = job_of(store, policy, clock)
    token, hours = token_of(job), Hours.parse("01:00-02:00", ZoneInfo("UTC"))
    assert drained(job, token=token, watch=ProgressListener(waits=wait, advance=work), hours=hours).purged == DUE
    assert runs(store)[:2] == [("backfill", "stopped", "hours"), ("backfill", "completed", None)]
    assert store.execute("SELECT count(*) FROM sweeper.tombstones WHERE purged_at < '2026-06-02Z'") == [(2,)]


def test_signal_while_it_waits(store: Store, policy: Policy) -> None:
    """A backfill that waits for its hours hears who asks it to stop."""
    fill(store)
    job = job_of(store, policy)
    token, asked = token_of(job), [""]

    def ask(reason: str) -> None:
        if reason:
            asked[0] = "signal"

    watch = ProgressListener(waits=ask)
    hours = Hours.parse("01:00-02:00", ZoneInfo("UTC"))
    result = drained(replace(job, further_reason=lambda: asked[0]), token=token, watch=watch, hours=hours)
    assert (result.outcome, result.stop_reason, result.purged) == ("stopped", "signal", 0)


def test_pause_and_resume(store: Store, policy: Policy) -> None:
    """Paused in a slice it begins no further batch, waits without the lease, and goes on by itself when resumed."""
    fill(store)
    job = job_of(store, policy)
    counts: list[int] = []
    token = token_of(job)

    def pause(count: int) -> None:
        if count and not counts:
            pauses.pause(job.database, "look", instant(NOW))
            counts.append(len(store.left()))

    def resume(reason: str) -> None:
        if reason.startswith("paused"):
            counts.append(len(store.left()))
            assert store.execute("SELECT 1 FROM sweeper.lease WHERE expires_at > clock_timestamp()") == []
            pauses.resume(job.database, instant(NOW))

    result = drained(job, token=token, watch=ProgressListener(advance=pause, waits=resume))
    assert (result.outcome, result.purged) == ("completed", DUE)
    assert counts[0] == counts[1]
    assert runs(store)[:2] == [("backfill", "stopped", "paused"), ("backfill", "completed", None)]


# Approvals


def refused(job: Any, token: str | None, *texts: str, scope: BackfillScope = SCOPE) -> None:
    """That a backfill is refused for its approval, with these words, and nothing purged or begun."""
    left, plans = job.database, job.database.within(lambda c: backfills.unfinished(c, "store"))
    with pytest.raises(RefusedError) as refusal:
        begin(job, scope, token)
    assert (refusal.value.guard, refusal.value.exit_code) == ("approval", 3)
    for words_ in (*texts, "Nothing was purged"):
        assert words_ in str(refusal.value)
    assert left.within(lambda c: backfills.unfinished(c, "store")) == plans


def test_nothing_without_an_approval(store: Store, policy: Policy) -> None:
    """Without an approval there is no backfill."""
    fill(store)
    refused(job_of(store, policy), None, "--dry-run", "--approve")


OTHERS = {
    "since": replace(SCOPE, since=instant("2023-01-01T00:00:00Z")),
    "until": replace(SCOPE, until=instant("2025-06-01T00:00:00Z")),
    "by": replace(SCOPE, by=Slice.DAY),
}


@pytest.mark.parametrize("other", OTHERS)
def test_approval_of_another_plan(store: Store, policy: Policy, other: str) -> None:
    """An approval is of one scope: another since, until or length of slices is another plan."""
    fill(store)
    job = job_of(store, policy)
    refused(job, token_of(job, OTHERS[other]))


@pytest.mark.parametrize("other", OTHERS)
def test_approval_of_another_plan_that_was_begun(store: Store, policy: Policy, other: str) -> None:
    """Also an approval under which another plan has been begun is none of this one."""
    fill(store)
    job = job_of(store, policy)
    refused(job, begun(job, OTHERS[other]))


def test_approval_of_another_store(store: Store, policy: Policy) -> None:
    """A plan that was begun for one store of the database is none of the other."""
    fill(store)
    job = job_of(store, policy)
    token = begun(job)
    store.execute("ALTER SCHEMA store RENAME TO second")
    second = job_of(store, policy, store={"schema": "second"})
    refused(second, token)
    refused(second, None)


def test_approval_lapses_before_it_is_used(store: Store, policy: Policy) -> None:
    """After 24 hours an approval begins nothing; what it has begun it goes on with for weeks."""
    fill(store)
    job = job_of(store, policy)
    token = token_of(job)
    refused(moved(job, "2026-06-02T00:00:00Z"), token, "lapsed")
    begin(moved(job, "2026-06-01T23:59:59Z"), SCOPE, token)
    for how in (token, None):
        assert begin(moved(job, "2026-06-20T00:00:00Z"), SCOPE, how).approval == token
    assert drained(moved(job, "2026-06-20T00:00:00Z")).purged == DUE


def test_changed_policy(store: Store, policy: Policy) -> None:
    """Another policy needs another approval, also to go on."""
    fill(store)
    job = job_of(store, policy)
    changed = replace(job, policy=parse(POLICY_TEXT.replace("30 days", "31 days")))
    assert changed.policy.digest != policy.digest
    token = token_of(job)
    refused(changed, token)
    begin(job, SCOPE, token)
    for how in (token, None):
        refused(changed, how, "policy")
    assert drained(job).purged == DUE


def test_policy_other_than_that_of_the_last_run(store: Store, policy: Policy) -> None:
    """An approval names a policy and does not accept it: nothing is begun until somebody does, and slices then need no more."""
    fill(store)
    former = job_of(store, parse(POLICY_TEXT.replace("30 days", "31 days")))
    sweep(moved(former, "2023-12-01T00:00:00Z"))
    changed = job_of(store, policy)
    found = preview(changed, scope=SCOPE)
    assert [refusal.guard for refusal in found.refusals] == ["policy"]
    approval = found.approval
    with pytest.raises(RefusedError, match="--accept-policy"):
        filling.begin(changed, SCOPE, approval)
    assert changed.database.within(lambda c: backfills.unfinished(c, "store")) == []
    accept = changed.policy.digest
    plan = filling.begin(changed, SCOPE, approval, accept)
    assert BackfillRunner(changed, plan, budget=Budget(purges=2), accept_policy=accept).run().outcome == "stopped"
    assert drained(changed).purged == DUE


def test_more_than_approved_stays(store: Store, policy: Policy) -> None:
    """What becomes due in the plan after its approval is not purged under it: ceilings hold by rule, over all slices."""
    fill(store)
    job = job_of(store, policy)
    token = token_of(job)
    store.execute("UPDATE sweeper.legal_holds SET released_at = '2026-05-01Z'")
    store.execute(
        "UPDATE conversations SET deleted_at = '2024-01-02Z' "
        "WHERE last_activity_at = '2024-04-10Z'::timestamptz - interval '30 days'"
    )
    with capture_logs() as logged:
        result = drained(job, token=token)
    assert (result.outcome, result.purged) == ("completed", DUE + 1 - EACH)
    assert store.execute("SELECT rule, count(*) FROM sweeper.tombstones GROUP BY rule") == [
        ("standard", DUE + 1 - EACH)
    ]
    assert store.execute("SELECT sum((result #>> '{spared_by_reason,not_approved}')::int) FROM sweeper.runs") == [
        (EACH,)
    ]
    assert [entry for entry in logged if entry["event"] == "slice"] != []


def test_ceiling_holds_over_slices(store: Store, policy: Policy) -> None:
    """What earlier slices have purged counts against the approval in later ones."""
    fill(store)
    job = job_of(store, policy)
    token = token_of(job)
    store.execute(
        "UPDATE conversations SET last_activity_at = '2024-01-03Z' WHERE id IN (%s, %s)",
        key(len_due()),
        key(len_due() + 1),
    )
    store.execute("UPDATE messages SET created_at = '2024-01-03Z' WHERE created_at < '2024-01-03Z'")
    result = drained(job, token=token)
    assert result.purged == DUE
    assert len(store.left()) == BEFORE + AFTER + 2


def len_due() -> int:
    """The number of the first conversation that is due before the plan."""
    return MONTHS * EACH


def test_approvals_of_runs_and_backfills_are_not_exchanged(store: Store, tmp_path: Path) -> None:
    """A run does not take a backfill's digest, nor a backfill a run's: exit code 3, and nothing is purged."""
    fill(store)
    left = store.left()
    _, filled, _ = done(store, tmp_path, *words("--dry-run"))
    _, ran, _ = done(store, tmp_path, "run", "--dry-run", "--json")
    code, found, err = done(store, tmp_path, "run", "--json", "--approve", filled["digest"])
    assert (code, found["guard"]) == (3, "approval"), err
    code, _, err = done(store, tmp_path, *words("--approve", ran["digest"]))
    assert (code, "Nothing was purged" in err) == (3, True), err
    assert store.left() == left


# Beside nightly runs


def test_nightly_run_leaves_the_plan_alone(store: Store, policy: Policy) -> None:
    """While a plan is at work a run takes what is due before and after it, without weighing the rest; so does its preview."""
    fill(store)
    limits = {"history": False, "volume": True, "max_count": BEFORE + AFTER, "max_share": 0.0001}
    job = job_of(store, policy, guards=limits)
    with pytest.raises(RefusedError, match="conversations are due"):
        sweep(job)
    begun(job)
    assert preview(job).as_json()["would_purge"] == BEFORE + AFTER
    assert preview(job).as_json()["would_refuse"] == []
    result = sweep(job)
    assert (result.outcome, result.count, result.is_done) == ("completed", BEFORE + AFTER, True)
    assert store.execute(
        "SELECT DISTINCT due_at >= '2024-01-01Z' AND due_at < '2025-01-01Z' FROM sweeper.tombstones WHERE record = 'conversation'"
    ) == [(False,)]
    assert store.execute("SELECT count(*) FROM feedback") == [(0,)]
    assert drained(job).purged == DUE
    assert sweep(job_of(store, policy)).count == 0


def test_slices_that_are_done_are_the_runs(store: Store, policy: Policy) -> None:
    """What turns out to be due in a slice that is done with, when a hold is released say, goes with the next run."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    store.execute("UPDATE sweeper.backfills SET done_until = '2024-04-10Z'")
    due = store.execute("SELECT count(*) FROM conversations WHERE last_activity_at < '2024-03-11Z'")[0][0]
    assert sweep(job).count == due - 1 + AFTER
    store.execute("UPDATE sweeper.legal_holds SET released_at = '2026-05-01Z'")
    assert sweep(job).count == 1


def test_given_up(store: Store, tmp_path: Path, policy: Policy) -> None:
    """A plan that is given up binds no run any more, its process stops, and it cannot be gone on with or given up again."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    plan = begin(job, SCOPE, None)
    assert done(store, tmp_path, *words("--give-up"))[0] == 0
    assert store.execute("SELECT kind FROM sweeper.events WHERE kind LIKE 'backfill_%%' ORDER BY id")[-1] == (
        "backfill_given_up",
    )
    stopped = BackfillRunner(job, plan).run()
    assert (stopped.outcome, stopped.stop_reason) == ("stopped", "given_up")
    assert done(store, tmp_path, *words())[0] == 3
    assert done(store, tmp_path, *words("--give-up"))[0] == 2
    assert sweep(job).active_backfill is None


def test_run_beside_an_abandoned_plan_is_loud(store: Store, policy: Policy) -> None:
    """A run that purges nothing while nobody works on a plan with something to do is no success, and names the command."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    assert sweep(job).is_done
    result = sweep(moved(job, "2026-06-01T00:10:00.000001Z"))
    assert (result.outcome, result.count, result.is_done) == ("completed", 0, False)
    left = to_json(result)["left_to_backfill"]
    assert (left["silent"], left["command"].split()[:2]) == (True, ["sweeper", "backfill"])
    assert sweep(moved(job, "2026-06-01T00:10:00.000001Z")).is_stalled
    store.execute("DELETE FROM conversations")
    assert sweep(moved(job, "2026-06-01T00:11:00Z")).is_done


def test_heartbeat_counts_and_not_its_age(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill whose clock is an hour behind is at work if another heartbeat of it comes while the run waits."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    assert sweep(job).count == BEFORE + AFTER
    monkeypatch.setattr(backfills, "SILENT", timedelta(minutes=30))
    monkeypatch.setattr(backfills, "HEARTBEAT", timedelta(seconds=0.01))
    (plan,) = job.database.within(lambda connection: backfills.unfinished(connection, "store"))
    ticks = count()
    with heartbeat(job.database, plan, Clock(lambda: instant(NOW) - HOUR + timedelta(seconds=next(ticks)))):
        result = sweep(job)
    assert (result.active_backfill and result.active_backfill.silent, result.is_done) == (False, True)


def test_finished_plan_again(store: Store, policy: Policy) -> None:
    """The command of a plan that has come to its end has nothing to do, and says that it is done."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    assert drained(job).outcome == "completed"
    again = BackfillRunner(job, begin(job, SCOPE, None)).run()
    assert (again.outcome, again.purged_now, again.is_stalled) == ("completed", 0, False)


def test_plan_of_a_process_not_seen_for_a_day(store: Store, policy: Policy) -> None:
    """A plan whose process was not seen for 24 hours binds no run any more; just before, it does."""
    fill(store)
    job = job_of(store, policy)
    begun(job)
    assert preview(moved(job, "2026-06-01T23:59:59.999999Z")).counts.due == BEFORE + AFTER
    assert preview(moved(job, "2026-06-02T00:00:00Z")).counts.due == BEFORE + DUE + AFTER


def test_finished_plan_binds_nobody(store: Store, policy: Policy) -> None:
    """When the plan has come to its end, a run takes all that is due."""
    fill(store)
    job = job_of(store, policy)
    drained(job, token=token_of(job))
    assert sweep(job).count == BEFORE + AFTER


def test_process_is_seen_during_a_long_batch(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a batch takes, the process is seen meanwhile, so that its plan does not look abandoned."""
    fill(store)
    monkeypatch.setattr(backfills, "HEARTBEAT", timedelta(seconds=0.01))
    at = [instant(NOW)]
    job = job_of(store, policy, Clock(lambda: at[0], lambda _: at[0]))
    token = token_of(job)

    def pass_(_: int) -> None:
        at[0] += 20 * HOUR
        until(lambda: bool(store.execute("SELECT 1 FROM sweeper.backfills WHERE seen_at = %s", at[0])))

    assert drained(job, token=token, watch=ProgressListener(advance=pass_)).purged == DUE


def test_run_goes_first_with_real_processes(store: Store, tmp_path: Path) -> None:
    """A run that begins in a slice gets the lease after the batch at work; the backfill goes on, and both end with 0.

    A second backfill that begins meanwhile is refused with 4.
    """
    fill(store)
    _, found, _ = done(store, tmp_path, *words("--dry-run"))
    with running(store, tmp_path, *words("--approve", found["digest"]), lease=20) as filler:
        with gate(store, "sweeper.tombstones", "INSERT", "true") as holder:
            waiting(filler, holder)
            assert done(store, tmp_path, *words(), lease=20)[0] == 4
            with running(store, tmp_path, "run", "--json", lease=20) as runner:
                asks = (
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
                    "AND query LIKE '%SET wanted_at%'"
                )
                until(lambda: holder.execute(asks).fetchone() is not None, runner)
                holder.execute("SELECT pg_advisory_unlock_all()")
                out, err = runner.communicate()
                assert runner.returncode == 0, err
        filled, err = filler.communicate()
    assert filler.returncode == 0, err
    assert json.loads(out)["purged"] == BEFORE + AFTER
    assert (json.loads(filled)["outcome"], json.loads(filled)["purged"]) == ("completed", DUE)
    ended = runs(store)
    assert ended[:2] == [("backfill", "stopped", "yielded"), ("run", "completed", None)]
    assert set(ended[2:]) == {("backfill", "completed", None)}
    assert each_once(store)


# Stopped and gone on with


@pytest.fixture
def once(store: Store, policy: Policy) -> dict[str, Any]:
    """What an uninterrupted backfill leaves; the store is filled again afterwards."""
    fill(store)
    job = job_of(store, policy)
    drained(job, token=token_of(job))
    left = state(store)
    assert len(left["tombstones"]) == DUE
    store.wipe()
    fill(store)
    store.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''120s''', current_database()); END $$"
    )
    return left


KILLS = {
    "in a batch": ("sweeper.tombstones", "INSERT", "(SELECT count(*) FROM sweeper.tombstones) > 5"),
    "at the end of a slice": ("sweeper.runs", "UPDATE", "NEW.outcome = 'completed' AND NEW.id > 1"),
    "between slices": ("sweeper.backfills", "UPDATE", "NEW.done_until > '2024-02-15Z'"),
    "at the end": ("sweeper.backfills", "UPDATE", "NEW.finished_at IS NOT NULL"),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_gone_on_with(moment: str, once: dict[str, Any], store: Store, tmp_path: Path) -> None:
    """Killed at any moment and started again, without an approval, it ends as if nothing had happened."""
    _, found, _ = done(store, tmp_path, *words("--dry-run"))
    with running(store, tmp_path, *words("--approve", found["digest"])) as process, store.connect() as watcher:
        with gate(store, *KILLS[moment]) as holder:
            pid = waiting(process, holder)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
        until(lambda: watcher.execute(gone, [pid]).fetchone() == (True,), process)
    assert each_once(store)
    code, again, err = done(store, tmp_path, *words())
    assert (code, again["outcome"], again["purged"]) == (0, "completed", DUE), err
    assert state(store) == once
    assert each_once(store)
    assert store.execute("SELECT count(*) FROM sweeper.runs WHERE finished_at IS NULL") == [(0,)]


def test_asked_to_stop(once: dict[str, Any], store: Store, tmp_path: Path) -> None:
    """SIGTERM lets the batch at work end, and exits 1 in order; the same command goes on."""
    _, found, _ = done(store, tmp_path, *words("--dry-run"))
    with running(store, tmp_path, *words("--approve", found["digest"])) as process:
        with gate(store, "sweeper.tombstones", "INSERT", "true") as holder:
            waiting(process, holder)
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    stopped = json.loads(out)
    assert (process.returncode, stopped["outcome"], stopped["stop_reason"]) == (1, "stopped", "signal"), err
    assert stopped["purged"] == 2
    assert runs(store) == [("backfill", "stopped", "signal")]
    code, again, err = done(store, tmp_path, *words())
    assert (code, again["purged"], again["purged_now"]) == (0, DUE, DUE - 2), err
    assert state(store) == once


def test_budgets_end_with_0(store: Store, tmp_path: Path) -> None:
    """A backfill that used up its budget did what was asked of it: exit code 0."""
    fill(store)
    _, found, _ = done(store, tmp_path, *words("--dry-run"))
    code, first, err = done(store, tmp_path, *words("--approve", found["digest"], "--max-purge", "5"))
    assert (code, first["outcome"], first["stop_reason"], first["purged"]) == (0, "stopped", "max_purge", 5), err


# Bad input

BAD = {
    "--until in the future": ["--since", "2024-01-01T00:00:00Z", "--until", "2999-01-01T00:00:00Z"],
    "--since after --until": ["--since", "2025-01-01T00:00:00Z", "--until", "2024-01-01T00:00:00Z"],
    "--since is --until": ["--since", "2024-01-01T00:00:00Z", "--until", "2024-01-01T00:00:00Z"],
    "--since naive": ["--since", "2024-01-01", "--until", "2025-01-01T00:00:00Z"],
    "--since no instant": ["--since", "yesterday", "--until", "2025-01-01T00:00:00Z"],
    "--until missing": ["--since", "2024-01-01T00:00:00Z"],
    "--by": [*words()[1:5], "--by", "year"],
    "--between": [*words()[1:5], "--between", "1-5"],
    "--between of no length": [*words()[1:5], "--between", "01:00-01:00"],
    "--rate 0": [*words()[1:5], "--rate", "0"],
    "--rate negative": [*words()[1:5], "--rate", "-1"],
    "--rate no number": [*words()[1:5], "--rate", "fast"],
    "--rate nan": [*words()[1:5], "--rate", "nan"],
    "--rate inf": [*words()[1:5], "--rate", "inf"],
    "--max-runtime": [*words()[1:5], "--max-runtime", "soon"],
    "--max-purge": [*words()[1:5], "--max-purge", "0"],
    "--approve garbage": [*words()[1:5], "--approve", "garbage"],
    "--approve with --dry-run": [*words()[1:5], "--approve", "x", "--dry-run"],
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str, store: Store) -> None:
    """What cannot be meant is refused with 2 and words, not with a traceback, and nothing is done."""
    fill(store, 1)
    left = store.left()
    ended = in_process(store, "backfill", *BAD[what])
    assert (ended.code, "Traceback" in ended.err, ended.out) == (2, False, ""), ended.err
    assert ended.err.strip()
    assert store.left() == left


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "0003-01-02T00:00:00Z"])
def test_plan_since_always(since: str, store: Store) -> None:
    """A plan may begin before there were any computers: that is said or previewed, without a traceback."""
    fill(store, 1)
    ended = in_process(store, "backfill", "--since", since, "--until", "2025-01-01T00:00:00Z", "--dry-run")
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert f"Would purge {BEFORE + MONTHS - 1} conversations" in ended.out


def test_setting_between_is_named(store: Store, tmp_path: Path) -> None:
    """A fault in the settings is told with the setting's name."""
    config = tmp_path / "sweeper.toml"
    config.write_text('[backfill]\nbetween = "night"\n')
    ended = in_process(store, *words("--config", str(config)))
    assert (ended.code, "[backfill] between" in ended.err) == (2, True)
