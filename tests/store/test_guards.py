"""Guards: each refuses with the number, the limit and the way out, leaves a record, and purges nothing."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from freezegun import freeze_time

from sweeper import approval as approvals
from sweeper import batch, cli
from sweeper.approval import Approval
from sweeper.clock import Clock
from sweeper.core.instant import rfc3339
from sweeper.core.policy import Policy, parse
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.store import census
from sweeper.sweep import Preview, Result, preview, sweep
from tests.facts import instant
from tests.store.stores import POLICY, ROOT, Store, frozen

AS_OF = "2026-07-01T00:00:00Z"
NOW = instant(AS_OF)
TICK = timedelta(microseconds=1)
ACCOUNT = "acc0ffee-0000-4000-8000-000000000001"
NO_HISTORY = {"history": False}


def fill(store: Store, due: int, kept: int = 0, first: int = 1) -> None:
    """Put conversations of one account into the store: so many are due at AS_OF, so many are not."""
    with store.connect() as connection:
        connection.execute(
            "INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z') ON CONFLICT DO NOTHING", [ACCOUNT]
        )
        if first == 1:
            connection.execute(
                "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '-infinity', 'free')", [ACCOUNT]
            )
        connection.execute(
            "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at) "
            "SELECT ('c0ffee00-0000-4000-8000-' || lpad((%s + n)::text, 12, '0'))::uuid, %s, 'chat', 'first_party', false, false, "
            "'2026-01-01Z', CASE WHEN n < %s THEN '2026-02-01Z'::timestamptz ELSE '2026-06-30Z' END "
            "FROM generate_series(0, %s) n",
            [first, ACCOUNT, due, due + kept - 1],
        )


def key(number: int) -> str:
    """The id of a conversation."""
    return f"c0ffee00-0000-4000-8000-{number:012d}"


def consent(store: Store, count: int) -> None:
    """Put so many consent events into the store, of which none changes a due."""
    store.execute(
        "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) "
        "SELECT %s, 'model_improvement', false, '2026-01-01Z' FROM generate_series(1, %s)",
        ACCOUNT,
        count,
    )


def at(moment: datetime, database: datetime | None = None) -> Clock:
    """This machine's clock and the database's, standing still."""
    return Clock(lambda: moment, lambda _: database or moment)


def swept(store: Store, policy: Policy, as_of: str = AS_OF, clock: Clock | None = None, **guards: Any) -> Result:
    """One sweep; guards as in the settings, the history guard off unless it is asked for."""
    return sweep(store.job(policy, as_of, clock or frozen(as_of), guards={**NO_HISTORY, **guards}))


def previewed(store: Store, policy: Policy, as_of: str = AS_OF, clock: Clock | None = None, **guards: Any) -> Preview:
    """What such a sweep would do."""
    return preview(store.job(policy, as_of, clock or frozen(as_of), guards={**NO_HISTORY, **guards}))


@contextmanager
def refusing(store: Store, guard: str, *said: str) -> Iterator[None]:
    """What is done within is refused by the guard, tells each text, leaves a record, and purges nothing."""
    before = contents(store)
    with pytest.raises(RefusedError) as caught:
        yield
    text = str(caught.value)
    assert (caught.value.guard, caught.value.exit_code) == (guard, 3)
    assert "Nothing was purged." in text
    missing = [part for part in said if part not in text]
    assert not missing, text
    assert contents(store) == before
    outcome, result = store.execute("SELECT outcome, result FROM sweeper.runs ORDER BY id DESC LIMIT 1")[0]
    assert (outcome, result) == ("refused", {"guard": guard, "text": text})
    assert store.execute("SELECT details FROM sweeper.events WHERE kind = 'refusal' ORDER BY id DESC LIMIT 1") == [
        ({"guard": guard},)
    ]


def contents(store: Store) -> list[tuple[Any, ...]]:
    """The conversations and the tombstones that there are."""
    return store.execute(
        "SELECT id::text FROM conversations UNION ALL SELECT 'tombstone ' || record_id FROM sweeper.tombstones ORDER BY 1"
    )


def purged(result: Result) -> int:
    """How many conversations a run has purged."""
    assert result.outcome == "completed"
    count: int = result.as_json()["purged"]
    return count


# As-of


@pytest.mark.parametrize(("ahead", "refused"), [(-TICK, False), (timedelta(0), False), (TICK, True)])
def test_future_as_of(*, ahead: timedelta, refused: bool, store: Store, policy: Policy) -> None:
    """An as-of is refused from a microsecond after now on."""
    fill(store, 1)
    as_of = rfc3339(NOW + ahead)
    if not refused:
        assert purged(swept(store, policy, as_of, at(NOW))) == 1
        return
    with refusing(store, "future_as_of", as_of, rfc3339(NOW), "--as-of", "--dry-run"):
        swept(store, policy, as_of, at(NOW))
    assert purged(swept(store, policy, as_of, at(NOW), future_as_of=False)) == 1


def test_dry_run_may_look_ahead(store: Store, policy: Policy) -> None:
    """A preview of a later as-of says what will be due then; approving it does not let a run act on it."""
    fill(store, 1, kept=1)
    later = rfc3339(NOW + timedelta(days=60))
    ahead = previewed(store, policy, later, at(NOW))
    assert (ahead.tally.due, ahead.refusals) == (2, [])
    with refusing(store, "future_as_of", later):
        sweep(store.job(policy, later, at(NOW), guards=NO_HISTORY), approval=ahead.approval)


@pytest.mark.parametrize(("step", "refused"), [(-TICK, True), (timedelta(0), False), (TICK, False)])
def test_earlier_as_of(*, step: timedelta, refused: bool, store: Store, policy: Policy) -> None:
    """An as-of before that of the last completed run is refused: a clock may have been set back."""
    swept(store, policy)
    fill(store, 1)
    as_of = rfc3339(NOW + step)
    clock = at(NOW + timedelta(hours=1))
    if not refused:
        assert purged(swept(store, policy, as_of, clock)) == 1
        return
    with refusing(store, "earlier_as_of", as_of, AS_OF, "--as-of", "earlier_as_of = false"):
        swept(store, policy, as_of, clock)
    assert [r.guard for r in previewed(store, policy, as_of, clock).refusals] == ["earlier_as_of"]
    assert purged(swept(store, policy, as_of, clock, earlier_as_of=False)) == 1


def test_only_completed_runs_set_the_earliest_as_of(store: Store, policy: Policy) -> None:
    """A run that was refused, and a completed one of another store, keep no run back."""
    swept(store, policy, "2026-06-01T00:00:00Z")
    fill(store, 1)
    with refusing(store, "clock"):
        swept(store, policy, AS_OF, at(NOW, NOW + timedelta(hours=1)))
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome) "
        "VALUES ('another', '2026-09-01Z', '', '', 1, now(), now(), 'completed')"
    )
    assert purged(swept(store, policy, "2026-06-02T00:00:00Z")) == 1


# Clock


@pytest.mark.parametrize("sign", [1, -1])
def test_clock(sign: int, store: Store, policy: Policy) -> None:
    """Clocks more than five minutes apart are refused, whichever is ahead; at five minutes they are not."""
    limit = timedelta(seconds=300)
    assert purged(swept(store, policy, clock=at(NOW, NOW + sign * (limit - TICK)))) == 0
    assert purged(swept(store, policy, clock=at(NOW, NOW + sign * limit))) == 0
    fill(store, 1)
    wrong = at(NOW, NOW + sign * (limit + timedelta(seconds=1)))
    with refusing(store, "clock", "301 s", "300 s", "clock_tolerance_seconds"):
        swept(store, policy, clock=wrong)
    with refusing(store, "clock"):
        swept(store, policy, clock=at(NOW, NOW + sign * (limit + TICK)))
    assert [r.guard for r in previewed(store, policy, clock=wrong).refusals] == ["clock"]
    assert purged(swept(store, policy, clock=wrong, clock_tolerance_seconds=301)) == 1


def test_clock_guard_off(store: Store, policy: Policy) -> None:
    """With the guard off the clocks may differ."""
    fill(store, 1)
    job = store.job(policy, AS_OF, at(NOW, NOW + timedelta(days=1)), guards={**NO_HISTORY, "clock": False})
    assert purged(sweep(job)) == 1


# Volume


@pytest.mark.parametrize(("due", "refused"), [(3, False), (4, False), (5, True)])
def test_count(*, due: int, refused: bool, store: Store, policy: Policy) -> None:
    """More than the count, where it is also more than the share, is refused; at the count it is not."""
    fill(store, due)
    if not refused:
        assert purged(swept(store, policy, max_count=4)) == due
        return
    with refusing(store, "volume", f"{due} conversations", "100.0% of 5", "20%", "and 4.", "--approve", "max_count"):
        swept(store, policy, max_count=4)
    assert [r.guard for r in previewed(store, policy, max_count=4).refusals] == ["volume"]
    assert purged(swept(store, policy, max_count=5)) == due


@pytest.mark.parametrize(("kept", "refused"), [(17, False), (16, False), (15, True)])
def test_share(*, kept: int, refused: bool, store: Store, policy: Policy) -> None:
    """More than the share, where it is also more than the count, is refused; at the share it is not."""
    fill(store, 4, kept)
    if not refused:
        assert purged(swept(store, policy, max_count=0)) == 4
        return
    with refusing(store, "volume", "4 conversations", "21.1% of 19", "20%", "max_share"):
        swept(store, policy, max_count=0)
    assert purged(swept(store, policy, max_count=0, max_share=0.22)) == 4


def test_shipped_limits(store: Store, policy: Policy) -> None:
    """As shipped, 1,000 may go even if they are everything; of 1,001 in 5,004 (more than 20 %) none may."""
    fill(store, 1_001, 4_003)
    with refusing(store, "volume", "1001 conversations", "20%", "1000"):
        swept(store, policy)
    fill(store, 0, 1, first=10_000)
    assert previewed(store, policy).refusals == []
    assert purged(swept(store, policy)) == 1_001


def test_shipped_count(store: Store, policy: Policy) -> None:
    """As shipped, up to 1,000 conversations may go, however large a share they are."""
    fill(store, 1_000)
    assert purged(swept(store, policy)) == 1_000


def test_what_is_proposed_but_not_due_does_not_refuse(store: Store, policy: Policy) -> None:
    """The limits count what is due by the rules, not what was looked at: held rows and almost due ones are none."""
    fill(store, 3, kept=2)
    store.execute(
        "UPDATE conversations SET last_activity_at = '2026-06-01T00:00:00.000001Z' WHERE last_activity_at > '2026-06-02Z'"
    )
    store.execute("UPDATE conversations SET flagged_at = '2026-06-01Z' WHERE id = %s", key(1))
    store.execute("INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('m', %s)", key(2))
    assert purged(swept(store, policy, max_count=1)) == 1


@pytest.mark.parametrize(
    ("hours", "refused"),
    [(timedelta(hours=24) - TICK, True), (timedelta(hours=24), False), (timedelta(hours=24) + TICK, False)],
)
def test_window(*, hours: timedelta, refused: bool, store: Store, policy: Policy) -> None:
    """What was purged within the last 24 hours counts with what is due now; before that it does not."""
    fill(store, 2, kept=2)
    assert purged(swept(store, policy, max_count=2)) == 2
    fill(store, 2, first=100)
    later = NOW + hours
    if not refused:
        assert purged(swept(store, policy, clock=at(later), max_count=2)) == 2
        return
    with refusing(store, "volume", "2 conversations", "2 were purged within the last 24 hours", "66.7% of 6"):
        swept(store, policy, clock=at(later), max_count=2)
    assert purged(swept(store, policy, clock=at(later), max_count=3, max_share=0.67)) == 2


def test_window_setting(store: Store, policy: Policy) -> None:
    """The window is a setting."""
    fill(store, 2)
    swept(store, policy, max_count=2)
    fill(store, 2, first=100)
    later = at(NOW + timedelta(hours=30))
    with refusing(store, "volume", "48 hours"):
        swept(store, policy, clock=later, max_count=2, window_hours=48)
    assert purged(swept(store, policy, clock=later, max_count=2, window_hours=30)) == 2


def test_volume_guard_off(store: Store, policy: Policy) -> None:
    """With the guard off everything that is due goes."""
    fill(store, 5)
    assert purged(swept(store, policy, max_count=0, volume=False)) == 5


def test_feedback_is_not_counted(store: Store, policy: Policy) -> None:
    """The limits are about conversations: a feedback row counts neither now nor later."""
    fill(store, 1)
    store.execute(
        "INSERT INTO feedback (id, kind, submitted_at) SELECT gen_random_uuid(), 'thumbs', '2016-01-01Z' FROM generate_series(1, 5)"
    )
    result = swept(store, policy, max_count=1)
    assert (purged(result), result.as_json()["feedback_purged"]) == (1, 5)


# Approval


def approved(store: Store, policy: Policy, approval: Approval, clock: Clock | None = None) -> Result:
    """A run with an approval, at the as-of that it brings, as the command makes it."""
    job = store.job(policy, rfc3339(approval.as_of), clock or at(NOW), guards={**NO_HISTORY, "max_count": 1})
    return sweep(job, approval=approvals.read(approval.token()))


def test_approved_volume(store: Store, policy: Policy) -> None:
    """What a dry run found may go beyond the limits once it is approved, and counts against no later window."""
    fill(store, 4, kept=1)
    with refusing(store, "volume"):
        swept(store, policy, max_count=1)
    preview_ = previewed(store, policy, max_count=1)
    assert preview_.approval.due == {"standard": 4}
    assert purged(approved(store, policy, preview_.approval)) == 4
    assert store.execute("SELECT approval FROM sweeper.runs ORDER BY id DESC LIMIT 1") == [(preview_.approval.token(),)]
    fill(store, 1, first=100)
    assert purged(swept(store, policy, max_count=1)) == 1


def test_fewer_than_approved(store: Store, policy: Policy) -> None:
    """Fewer than approved is fine, also none."""
    fill(store, 4)
    approval = previewed(store, policy).approval
    store.execute("DELETE FROM conversations WHERE id = %s", key(1))
    assert purged(approved(store, policy, approval)) == 3
    assert purged(approved(store, policy, approval)) == 0


def test_more_than_approved(store: Store, policy: Policy) -> None:
    """One more than approved is refused with both numbers, also if it is under another rule and fewer are due in all."""
    fill(store, 4)
    approval = previewed(store, policy).approval
    fill(store, 1, first=100)
    with refusing(store, "approval", "standard: 5 due, 4 approved", "--dry-run"):
        approved(store, policy, approval)
    store.execute("DELETE FROM conversations WHERE id <> %s", key(1))
    store.execute("UPDATE conversations SET incognito = true, zero_retention = true")
    with refusing(store, "approval", "zero_retention: 1 due, 0 approved"):
        approved(store, policy, approval)


def test_as_of_is_the_approved_one(store: Store, policy: Policy) -> None:
    """The approved run looks at the world at the previewed as-of: what became due meanwhile stays."""
    fill(store, 2)
    approval = previewed(store, policy).approval
    fill(store, 1, first=100)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-01T12:00:00Z' WHERE id = %s", key(100))
    result = approved(store, policy, approval, at(NOW + timedelta(hours=23)))
    assert (purged(result), result.as_json()["as_of"]) == (2, AS_OF)
    assert store.left() == {key(100)}


def test_ceilings_hold_during_the_purge(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes due under another rule after the count was weighed is spared: never more than was approved goes."""
    fill(store, 3)
    approval = previewed(store, policy).approval
    original = batch.Purger.purge

    def deleted_first(self: batch.Purger, *args: Any, **named: Any) -> batch.Report:
        store.execute("UPDATE conversations SET deleted_at = '2026-01-15Z' WHERE id = %s", key(2))
        return original(self, *args, **named)

    monkeypatch.setattr(batch.Purger, "purge", deleted_first)
    result = approved(store, policy, approval)
    assert result.as_json()["by_rule"] == {"standard": 2}
    assert sum(result.tally.spared.values()) == 1
    assert store.left() == {key(2)}


@pytest.mark.parametrize(
    ("age", "refused"),
    [(timedelta(hours=24) - TICK, False), (timedelta(hours=24), True), (timedelta(hours=24) + TICK, True)],
)
def test_approval_lapses(*, age: timedelta, refused: bool, store: Store, policy: Policy) -> None:
    """An approval lapses exactly 24 hours after its dry run."""
    approval = previewed(store, policy).approval
    now = approval.issued_at + age
    if not refused:
        approvals.check(approval, approval.store, policy.digest, now)
        return
    with pytest.raises(RefusedError, match="lapsed after 24 hours. Nothing was purged.*--dry-run") as caught:
        approvals.check(approval, approval.store, policy.digest, now)
    assert (caught.value.guard, caught.value.exit_code) == ("approval", 3)


@pytest.mark.parametrize("what", ["store", "policy"])
def test_approval_of_something_else(what: str, store: Store, policy: Policy) -> None:
    """An approval for another store or another policy is refused, naming both."""
    approval = previewed(store, policy).approval
    here = {"store": approval.store, "policy": policy.digest}
    other = replace(approval, **{what: "0123456789ab"})
    with pytest.raises(RefusedError, match=f"for {what} 0123456789ab.*{here[what][:12]}.*Nothing was purged") as caught:
        approvals.check(other, here["store"], here["policy"], NOW)
    assert caught.value.guard == "approval"


def test_approval_names_the_database_and_its_schema(store: Store) -> None:
    """Two stores in one database, and two databases of one name, have different names."""
    with store.database().transaction() as connection:
        assert census.identity(connection, "store") != census.identity(connection, "other")
        assert store.execute("SELECT oid::text FROM pg_database WHERE datname = current_database()")[0][
            0
        ] in census.identity(connection, "store")


def test_token_reads_back(store: Store, policy: Policy) -> None:
    """A digest carries what was approved; one that was cut, changed or made up is refused as usage."""
    fill(store, 2)
    approval = previewed(store, policy).approval
    token = approval.token()
    assert approvals.read(f" {token}\n") == approval
    for wrong in ("", ".", "x", token[:-1], token[1:], token.replace(".", ""), token.swapcase(), "eyJ9.000000000000"):
        with pytest.raises(ConfigurationError, match="no digest of a dry run.*Nothing was done"):
            approvals.read(wrong)


def test_approval_lifts_no_other_guard(store: Store, policy: Policy) -> None:
    """An approval is about volume: clock and as-of are guarded all the same."""
    fill(store, 2)
    approval = previewed(store, policy).approval
    with refusing(store, "clock"):
        approved(store, policy, approval, at(NOW, NOW + timedelta(hours=1)))
    with refusing(store, "future_as_of"):
        approved(store, policy, approval, at(NOW - TICK))


# History


def with_history(store: Store, policy: Policy, **named: Any) -> Result:
    """A sweep with the history guard on."""
    guards = {"history": True, **named.pop("guards", {})}
    return sweep(store.job(policy, AS_OF, guards=guards), **named)


def test_no_plan_history(store: Store, policy: Policy) -> None:
    """No plan change at all, while conversations exist, is refused; without conversations it is not."""
    assert purged(with_history(store, policy)) == 0
    fill(store, 1)
    consent(store, 1)
    store.execute("DELETE FROM plan_changes")
    store.execute("UPDATE conversations SET deleted_at = '2026-01-15Z'")
    with refusing(store, "history", "plan_changes", "0 rows", "at least 1", "--accept-history", "history = false"):
        with_history(store, policy)
    assert purged(with_history(store, policy, accept_history=True)) == 1


def test_no_consent_history(store: Store, policy: Policy) -> None:
    """No consent event at all, while conversations exist, is refused: nobody having consented is not believed."""
    fill(store, 1)
    with refusing(store, "history", "consent_events", "0 rows", "at least 1", "--accept-history", "history = false"):
        with_history(store, policy)
    assert [r.guard for r in previewed(store, policy, history=True).refusals] == ["history"]
    assert purged(with_history(store, policy, guards={"history": False})) == 1


@pytest.mark.parametrize(("count", "refused"), [(2, True), (3, False), (4, False)])
def test_less_consent_history(*, count: int, refused: bool, store: Store, policy: Policy) -> None:
    """Less consent history than at the last completed run is refused with both numbers; as much is not."""
    fill(store, 1)
    consent(store, 3)
    assert purged(with_history(store, policy)) == 1
    fill(store, 1, first=100)
    store.execute("DELETE FROM consent_events")
    consent(store, count)
    if not refused:
        assert purged(with_history(store, policy)) == 1
        return
    with refusing(store, "history", f"consent_events has {count} rows", "saw 3", "--accept-history", "history = false"):
        with_history(store, policy)
    with refusing(store, "history", "saw 3"):  # a refused run sets no new measure
        with_history(store, policy)
    assert purged(with_history(store, policy, accept_history=True)) == 1
    fill(store, 1, first=200)
    assert purged(with_history(store, policy)) == 1  # what was accepted is the new measure


def test_less_plan_history(store: Store, policy: Policy) -> None:
    """Less plan history than at the last completed run is refused."""
    fill(store, 1)
    consent(store, 1)
    store.execute(
        "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '2026-01-01Z', 'pro')", ACCOUNT
    )
    assert purged(with_history(store, policy)) == 1
    fill(store, 1, first=100)
    store.execute("DELETE FROM plan_changes WHERE plan = 'pro'")
    with refusing(store, "history", "plan_changes has 1 rows", "saw 2"):
        with_history(store, policy)


def test_policy_without_history_is_not_bothered(store: Store) -> None:
    """A policy that decides by neither plans nor consent needs no history."""
    example = next(
        parse(path.read_text())
        for path in sorted((ROOT / "config" / "examples").glob("*.toml"))
        if "temporary" in path.read_text()
    )
    fill(store, 1)
    store.execute("DELETE FROM plan_changes")
    store.execute("UPDATE conversations SET deleted_at = '2026-01-15Z'")
    assert purged(with_history(store, example)) == 1


# Through the command


@pytest.fixture
def command(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process with the database's clock set to this machine's; code, stdout, stderr."""
    monkeypatch.setenv("SWEEPER_DATABASE_URL", store.url)
    monkeypatch.setenv("SWEEPER_POLICY_FILE", POLICY)
    monkeypatch.setattr(cli, "CLOCK", Clock(database_now=lambda _: Clock().now()))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sweeper", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_lapse_through_the_command(command: Command, store: Store) -> None:
    """With the clock frozen: approved the next day at the last microsecond it runs, at 24 hours exactly it is refused."""
    fill(store, 1_200)
    consent(store, 1)
    with freeze_time(NOW) as clock:
        code, out, err = command("run")
        assert (code, out) == (3, "")
        assert "1200 conversations" in err
        code, out, _ = command("run", "--dry-run", "--json")
        assert code == 0
        seen = json.loads(out)
        assert (seen["would_purge"], seen["would_refuse"], seen["as_of"]) == (1_200, ["volume"], AS_OF)
        clock.move_to(NOW + timedelta(hours=24))
        code, out, err = command("run", "--approve", seen["digest"])
        assert (code, out) == (3, "")
        assert "lapsed" in err
        assert "--dry-run" in err
        assert len(store.left()) == 1_200
        clock.move_to(NOW + timedelta(hours=24) - TICK)
        code, out, _ = command("run", "--approve", seen["digest"], "--json")
    assert (code, json.loads(out)["purged"], json.loads(out)["as_of"]) == (0, 1_200, AS_OF)
    assert store.left() == set()


def test_refused_approval_leaves_a_record(command: Command, store: Store) -> None:
    """A run whose approval has lapsed, or is for another policy, is recorded as refused like any other."""
    fill(store, 1)
    consent(store, 1)
    with freeze_time(NOW) as clock:
        digest = next(line for line in command("run", "--dry-run")[1].splitlines() if line.startswith("digest: "))
        clock.move_to(NOW + timedelta(hours=25))
        assert command("run", "--approve", digest.removeprefix("digest: "))[0] == 3
    assert store.execute("SELECT outcome, result ->> 'guard' FROM sweeper.runs") == [("refused", "approval")]
    assert store.execute("SELECT details FROM sweeper.events WHERE kind = 'refusal'") == [({"guard": "approval"},)]


def test_approval_is_an_event(command: Command, store: Store) -> None:
    """That somebody approved beyond the limits is history: an event of the run."""
    fill(store, 1)
    consent(store, 1)
    with freeze_time(NOW):
        digest = next(line for line in command("run", "--dry-run")[1].splitlines() if line.startswith("digest: "))
        assert command("run", "--approve", digest.removeprefix("digest: "))[0] == 0
    assert store.execute("SELECT count(*) FROM sweeper.events WHERE kind = 'approval' AND run_id IS NOT NULL") == [(1,)]


def test_dry_run_writes_nothing(command: Command, store: Store) -> None:
    """A dry run leaves every table as it was, its own included."""
    fill(store, 2)
    tables = ("sweeper.runs", "sweeper.events", "sweeper.lease", "sweeper.tombstones", "sweeper.object_purges")
    with freeze_time(NOW):
        assert command("run", "--dry-run")[0] == 0
    assert [store.execute(f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)]] * len(tables)
    assert len(store.left()) == 2
