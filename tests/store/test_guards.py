"""Guards: reasons not to begin, each with its number, its limit and the way out; at the limit itself a run goes on."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from sweeper.clock import Clock
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy, checked
from sweeper.postgres import evidence
from sweeper.runs import approval as approvals
from sweeper.runs.approval import Approval
from sweeper.runs.job import Job
from sweeper.runs.result import Result
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import Budget, ProgressListener
from tests.facts import World, instant
from tests.store.stores import Store, frozen

NOW = "2026-06-01T00:00:00Z"
TICK = timedelta(microseconds=1)


def world(due: int, kept: int, consent: int = 1, plans: int = 1) -> World:
    """A world in which so many conversations are due (standard) and so many are not."""
    chats = [
        {
            "id": f"c{number}",
            "account": "a1",
            "created_at": "2026-01-01T00:00:00Z" if number < due else NOW,
            "last_activity_at": "2026-01-01T00:00:00Z" if number < due else NOW,
            "messages": [],
        }
        for number in range(due + kept)
    ]
    event = {"recorded_at": "2026-05-31T00:00:00Z", "granted": True}
    account = {
        "id": "a1",
        "plans": [{"effective_at": f"2024-01-0{n + 1}T00:00:00Z", "plan": "pro"} for n in range(plans)],
        "consent": [event] * consent,
    }
    return {"as_of": NOW, "accounts": [account], "conversations": chats, "holds": [], "orders": []}


def at(moment: datetime | str) -> str:
    """An instant as text."""
    return moment if isinstance(moment, str) else rfc3339(moment)


def run(
    store: Store, policy: Policy, /, now: datetime | str = NOW, as_of: datetime | str = NOW, **guards: Any
) -> Result:
    """A run at a frozen now."""
    return sweep(store.job(policy, at(as_of), frozen(at(now)), guards=guards))


def refused(store: Store, guard: str, *texts: str) -> Iterator[None]:
    """That the block is refused by the guard with the texts, recorded as such, and that nothing is purged."""
    before = store.left()
    with pytest.raises(RefusedError) as refusal:
        yield
    assert (refusal.value.guard, refusal.value.exit_code) == (guard, 3)
    found, limit, remedy = (refusal.value.as_json()[field] for field in ("found", "limit", "remedy"))
    assert str(refusal.value) == " ".join([found, *filter(None, [limit]), "Nothing was purged.", remedy])
    for text in (*texts, "Nothing was purged."):
        assert text in str(refusal.value)
    assert store.left() == before
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id DESC LIMIT 1") == [("refused",)]
    assert store.execute(
        "SELECT details ->> 'guard' FROM sweeper.events WHERE kind = 'refusal' ORDER BY id DESC LIMIT 1"
    ) == [(guard,)]


def is_refused(store: Store, guard: str, *texts: str) -> Any:
    """`refused` as a context."""
    from contextlib import contextmanager

    return contextmanager(refused)(store, guard, *texts)


def test_future_as_of(store: Store, policy: Policy) -> None:
    """An as-of after now is refused, now itself is not; a preview looks ahead and tells it; the setting switches it off."""
    store.load(world(1, 1))
    later = instant(NOW) + TICK
    with is_refused(store, "future_as_of", at(later), "--dry-run"):
        run(store, policy, as_of=later)
    ahead = preview(store.job(policy, at(later), frozen(NOW)))
    assert (ahead.counts.due, [refusal.guard for refusal in ahead.refusals]) == (1, ["future_as_of"])
    assert run(store, policy).outcome == "completed"
    assert run(store, policy, as_of=later, future_as_of=False).outcome == "completed"


def test_earlier_as_of(store: Store, policy: Policy) -> None:
    """An as-of before that of the last completed run is refused, the same one is not; the setting switches it off."""
    store.load(world(1, 1))
    run(store, policy)
    with is_refused(store, "earlier_as_of", NOW):
        run(store, policy, as_of=instant(NOW) - TICK)
    assert run(store, policy).outcome == "completed"
    assert run(store, policy, as_of=instant(NOW) - TICK, earlier_as_of=False).outcome == "completed"


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00:00Z", "2014-12-31T23:59:59.999999Z"])
def test_as_of_that_is_not_believed(store: Store, policy: Policy, as_of: str) -> None:
    """The first run has no earlier one to be compared with: an as-of that the policy does not believe is refused all the same."""
    store.load(world(1, 1))
    with is_refused(store, "earlier_as_of", as_of, "plausible is from 2015-01-01T00:00:00Z"):
        run(store, policy, as_of=as_of)
    ahead = preview(store.job(policy, as_of, frozen(NOW)))
    assert [refusal.guard for refusal in ahead.refusals] == ["earlier_as_of"]
    assert run(store, policy, as_of="2015-01-01T00:00:00Z").outcome == "completed"


def test_as_of_beside_backfill(store: Store, policy: Policy) -> None:
    """A slice of a backfill that completed with a later as-of, while a run waited for its lease, does not refuse that run."""
    store.load(world(due=1, kept=1))
    run(store, policy)
    store.execute("UPDATE sweeper.runs SET kind = 'backfill'")
    assert run(store, policy, as_of=instant(NOW) - TICK).outcome == "completed"


@pytest.mark.parametrize("sign", [-1, 1])
def test_clock(store: Store, policy: Policy, sign: int) -> None:
    """Clocks more than 300 s apart are refused, at 300 s they are not, whichever is ahead."""
    store.load(world(1, 1))

    def with_database(apart: timedelta, **guards: Any) -> Result:
        clock = Clock(lambda: instant(NOW), lambda _: instant(NOW) + sign * apart)
        return sweep(store.job(policy, NOW, clock, guards=guards))

    with is_refused(store, "clock", "The limit is 300 s"):
        with_database(timedelta(seconds=300) + TICK)
    assert with_database(timedelta(seconds=300) + TICK, clock=False).outcome == "completed"
    assert with_database(timedelta(seconds=300)).outcome == "completed"


@pytest.mark.parametrize(
    ("due", "kept", "limit", "passes"),
    [(2, 8, 0, True), (3, 11, 0, False), (2, 7, 0, False), (5, 0, 5, True), (6, 0, 5, False)],
    ids=["at the share", "above the share", "just above the share", "at the count", "above the count"],
)
def test_volume(store: Store, policy: Policy, due: int, kept: int, limit: int, passes: bool) -> None:  # noqa: FBT001 — a parameter of the table
    """Only what exceeds both the share and the count is refused; at either limit a run goes on."""
    store.load(world(due, kept))
    if passes:
        assert run(store, policy, max_count=limit).as_json()["purged"] == due
        return
    with is_refused(store, "volume", f"{due} conversations are due", "20%", str(limit), "--approve"):
        run(store, policy, max_count=limit)
    assert run(store, policy, max_count=limit, volume=False).as_json()["purged"] == due


def test_volume_counts_what_decide_calls_due(store: Store, policy: Policy) -> None:
    """Held conversations and those that are only proposed do not count against the limits."""
    held = world(4, 6)
    held["holds"] = [{"conversation": f"c{n}"} for n in range(3)]
    store.load(held)
    assert run(store, policy, max_count=0).as_json()["purged"] == 1


def test_volume_within_the_window(store: Store, policy: Policy) -> None:
    """What was purged within the last 24 hours counts together with what is due; after exactly 24 hours it does not."""
    store.load(world(2, 8))
    run(store, policy, max_count=1)
    store.load(
        {
            **world(0, 0),
            "accounts": [],
            "conversations": [{**c, "id": f"late {c['id']}"} for c in world(1, 0)["conversations"]],
        }
    )
    day = timedelta(hours=24)
    counted = "1 conversations are due in this run and 2 were purged within the last 24 hours: 27.3% of 11."
    with is_refused(store, "volume", counted):
        run(store, policy, now=instant(NOW) + day - TICK, max_count=1)
    assert run(store, policy, now=instant(NOW) + day, max_count=1).as_json()["purged"] == 1


def previewed(store: Store, policy: Policy) -> Approval:
    """The approval of a preview, as read back from its digest."""
    return approvals.read(preview(store.job(policy, NOW, frozen(NOW))).approval.token())


def approved(store: Store, policy: Policy, approval: Approval, watch: ProgressListener | None = None) -> Result:
    """An approved run under limits that it exceeds."""
    job: Job = store.job(policy, at(approval.as_of), frozen(NOW), guards={"max_count": 0})
    return sweep(job, approval=approval, watch=watch)


def test_approval(store: Store, policy: Policy) -> None:
    """An approved run may exceed the limits, and what it purged does not count against later ones."""
    store.load(world(5, 5))
    assert approved(store, policy, previewed(store, policy)).as_json()["purged"] == 5
    assert run(store, policy, max_count=0).outcome == "completed"
    assert store.execute("SELECT DISTINCT approved FROM sweeper.tombstones") == [(True,)]


@pytest.mark.parametrize(
    "ending", ["outcome = 'completed'", "outcome = 'interrupted', result = NULL", "result = '{\"error\": 1}'"]
)
def test_approval_is_used_up_however_a_run_ended(ending: str, store: Store, policy: Policy) -> None:
    """What was purged under an approval is gone from it, however the run ended: its result or its tombstones tell."""
    store.load(world(5, 5))
    approval = previewed(store, policy)
    assert approved(store, policy, approval).count == 5
    store.execute(f"UPDATE sweeper.runs SET {ending}")
    with store.database().transaction() as connection:
        assert evidence.purged_under(connection, approval.token()) == {"standard": 5}
        assert evidence.purged_under(connection, "another") == {}


def test_approval_is_a_ceiling(store: Store, policy: Policy) -> None:
    """Fewer than approved is fine; more under any rule is refused, before the run and during it."""
    store.load(world(5, 5))
    approval = previewed(store, policy)
    fewer = Approval(approval.store, approval.policy, approval.as_of, approval.issued_at, {"standard": 4})
    with is_refused(store, "approval", "standard: 5 due, 4 approved"):
        approved(store, policy, fewer)

    store.execute("DELETE FROM conversations WHERE id = %s", store.id("c0"))
    assert approved(store, policy, approval).as_json()["purged"] == 4
    store.load(
        {
            **world(0, 0),
            "accounts": [],
            "conversations": [{**c, "id": f"n{c['id']}"} for c in world(3, 0)["conversations"]],
        }
    )
    three = previewed(store, policy)
    exceeded = approved(
        store, policy, Approval(three.store, three.policy, three.as_of, three.issued_at, {"standard": 3})
    )
    assert exceeded.as_json()["purged"] == 3


def test_approval_is_used_up(store: Store, policy: Policy) -> None:
    """What a run under an approval has purged is taken off it: given again, the same digest allows only what is left."""
    store.load(world(due=5, kept=5))
    approval = previewed(store, policy)
    store.execute("UPDATE conversations SET zero_retention = NULL WHERE id = %s", store.id("c0"))
    assert approved(store, policy, approval).as_json()["purged"] == 4
    store.execute("UPDATE conversations SET zero_retention = false, last_activity_at = created_at")
    store.execute("UPDATE conversations SET created_at = '2026-01-01Z', last_activity_at = '2026-01-01Z'")
    with is_refused(store, "approval", "standard: 6 due, 1 approved and not yet purged"):
        approved(store, policy, approval)
    store.execute("UPDATE conversations SET last_activity_at = %s WHERE id <> %s", NOW, store.id("c0"))
    assert approved(store, policy, approval).as_json()["purged"] == 1


def test_approval_from_the_future(store: Store, policy: Policy) -> None:
    """An approval that says it was given later than now is refused."""
    store.load(world(due=1, kept=1))
    approval = previewed(store, policy)
    with pytest.raises(RefusedError, match="later than now"):
        approvals.check(approval, approval.store, policy.digest, approval.issued_at - TICK)


def test_no_more_than_was_weighed(store: Store, policy: Policy) -> None:
    """What falls due after a run was weighed is purged up to the limit and no further: the run stops, refused."""
    store.load(world(due=3, kept=9))

    def lose_consent(_: int) -> None:
        store.execute("UPDATE conversations SET created_at = '2026-01-01Z', last_activity_at = '2026-01-01Z'")

    job = store.job(policy, NOW, frozen(NOW), guards={"max_count": 4}, purge={"batch": 1})
    with pytest.raises(RefusedError, match=r"more than 4 conversations are due.*4 were purged") as refusal:
        sweep(
            job, watch=ProgressListener(expect=lose_consent), budget=Budget(memory=0)
        )  # proposed again after it was weighed
    assert refusal.value.guard == "volume"
    assert len(store.left()) == 8
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("refused",)]


def test_nothing_due_is_never_too_much(store: Store, policy: Policy) -> None:
    """A run with nothing due goes on whatever was purged before it, so that feedback and objects do not wait."""
    store.load(world(due=5, kept=5))
    run(store, policy, volume=False)
    assert run(store, policy, max_count=0).as_json()["purged"] == 0


@pytest.mark.parametrize("change", ["DISABLE TRIGGER fence", "ENABLE REPLICA TRIGGER fence"])
def test_fence(store: Store, policy: Policy, change: str) -> None:
    """Without the trigger that makes a placement wait, no run begins unless the setting says so."""
    store.load(world(due=1, kept=1))
    store.execute(f"ALTER TABLE sweeper.legal_holds {change}")
    with is_refused(store, "fence", "missing or switched off", "ENABLE ALWAYS TRIGGER fence"):
        run(store, policy)
    assert run(store, policy, fence=False).as_json()["purged"] == 1


def test_approval_binds(store: Store, policy: Policy) -> None:
    """An approval for another store or policy, or one that is 24 hours old, is refused; a microsecond younger is not."""
    store.load(world(1, 1))
    approval = previewed(store, policy)
    day = timedelta(hours=24)
    approvals.check(approval, approval.store, policy.digest, approval.issued_at + day - TICK)
    for other in (
        (approval.store, policy.digest, approval.issued_at + day),
        ("another", policy.digest, approval.issued_at),
        (approval.store, "another", approval.issued_at),
    ):
        with pytest.raises(RefusedError, match="Nothing was purged"):
            approvals.check(approval, *other)


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: "x" + t, lambda t: t.split(".")[0], lambda _: ""])
def test_mistyped_digest(store: Store, policy: Policy, change: Any) -> None:
    """A digest that was cut or mistyped is a usage error."""
    with pytest.raises(ConfigurationError, match="--approve"):
        approvals.read(change(previewed(store, policy).token()))


@pytest.mark.parametrize("missing", ["plan_changes", "consent_events"])
def test_history(store: Store, policy: Policy, missing: str) -> None:
    """No history at all, or less than at the last completed run, is refused; as much is not; there are two ways out."""
    store.load(world(1, 9, consent=2, plans=2))
    run(store, policy)
    store.execute(f"DELETE FROM {missing} WHERE id = (SELECT max(id) FROM {missing})")
    with is_refused(store, "history", f"{missing} has 1 rows. The last completed run saw 2", "--accept-history"):
        run(store, policy)
    job = store.job(policy, NOW, frozen(NOW))
    assert sweep(job, accept_history=True).outcome == "completed"
    assert run(store, policy).outcome == "completed"
    store.execute(f"DELETE FROM {missing}")
    with is_refused(store, "history", f"{missing} is empty", "[guards] history = false"):
        run(store, policy)
    assert run(store, policy, history=False).outcome == "completed"


def test_history_without_conversations(store: Store, policy: Policy) -> None:
    """Where there is nothing to purge, an empty history is nothing to worry about."""
    assert run(store, policy).outcome == "completed"


def test_preview_says_what_would_refuse(store: Store, policy: Policy) -> None:
    """A preview lists the refusals of the run that would follow, and refuses nothing itself."""
    store.load(world(5, 0, consent=0))
    found = preview(store.job(policy, NOW, frozen(NOW), guards={"max_count": 1}))
    assert [refusal.guard for refusal in found.refusals] == ["history", "volume"]
    assert found.counts.due == 5
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]


# --- a changed policy -------------------------------------------------------------------------------------------------


def another(policy: Policy, days: int, name: str = "standard") -> Policy:
    """The policy with another period for a rule."""
    found = json.loads(policy.normal_form)
    (changed,) = (rule for rule in found["rules"] if rule["name"] == name)
    changed["due"][0]["period"] = f"{days} days"
    return checked(found)


def accepting(store: Store, policy: Policy, /, accept: str | None = None, **guards: Any) -> Result:
    """A run that accepts a policy."""
    return sweep(store.job(policy, NOW, frozen(NOW), guards=guards), accept_policy=accept)


def accepted(store: Store) -> list[tuple[Any, ...]]:
    """The acceptances that are in the evidence: of which policy, after which, by what."""
    return store.execute(
        "SELECT details ->> 'digest', details ->> 'former', details ->> 'accepted_by' FROM sweeper.events"
        " WHERE kind = 'policy_accepted' ORDER BY id"
    )


def test_changed_policy(store: Store, policy: Policy) -> None:
    """A policy other than that of the last run is refused until it is accepted, once, and so is the way back."""
    store.load(world(1, 1))
    shorter = another(policy, 29)
    assert run(store, policy).outcome == "completed"
    said = "rule standard: due last activity + 29 days instead of last activity + 30 days"
    with is_refused(store, "policy", said, "sweeper policy diff", f"--accept-policy {shorter.digest[:12]}"):
        run(store, shorter)
    with is_refused(store, "policy", policy.digest[:12], shorter.digest[:12]):
        accepting(store, shorter, policy.digest)
    assert accepting(store, shorter, shorter.digest[:12]).outcome == "completed"
    assert run(store, shorter).outcome == "completed"
    assert accepted(store) == [(shorter.digest, policy.digest, "--accept-policy")]
    with is_refused(store, "policy", "30 days instead of"):
        run(store, policy)
    texts = store.execute("SELECT details ->> 'policy' FROM sweeper.events WHERE kind = 'policy_recorded' ORDER BY id")
    assert [hashlib.sha256(text.encode()).hexdigest() for (text,) in texts] == [policy.digest, shorter.digest]


def test_accepted_and_refused_by_volume(store: Store, policy: Policy) -> None:
    """What was accepted stays accepted if another guard then refuses; a run under the former policy ends that."""
    store.load(world(5, 0))
    run(store, policy, as_of="2026-01-02T00:00:00Z")
    shorter = another(policy, 29)
    with is_refused(store, "volume"):
        accepting(store, shorter, shorter.digest, max_count=0)
    assert run(store, policy, as_of="2026-01-03T00:00:00Z").outcome == "completed"
    with is_refused(store, "policy"):
        run(store, shorter)
    with is_refused(store, "volume"):
        accepting(store, shorter, shorter.digest, max_count=0)
    assert run(store, shorter).as_json()["purged"] == 5


def test_policy_of_a_run_that_was_stopped(store: Store, policy: Policy) -> None:
    """A run that purged counts, whatever its outcome: the way back to what came before it is a change."""
    store.load(world(2, 8))
    run(store, policy, as_of="2026-01-02T00:00:00Z")
    shorter = another(policy, 29)
    job = store.job(shorter, NOW, frozen(NOW), purge={"batch": 1})
    assert sweep(job, accept_policy=shorter.digest, budget=Budget(purges=1)).outcome == "stopped"
    with is_refused(store, "policy"):
        run(store, policy)
    assert run(store, shorter).as_json()["purged"] == 1


def test_policy_that_only_lengthens(store: Store, policy: Policy) -> None:
    """With policy = "shortening" it goes on with an event; what shortens, or follows a policy that nobody knows, does not."""
    store.load(world(1, 1))
    run(store, policy)
    longer, shorter = another(policy, 31), another(another(policy, 40), 3, "commercial")
    with is_refused(store, "policy", "31 days instead of"):
        run(store, longer)
    assert run(store, longer, policy="shortening").outcome == "completed"
    assert accepted(store) == [(longer.digest, policy.digest, "[guards] policy = shortening")]
    with is_refused(store, "policy", "rule commercial: due last activity + 3 days", "seen to lengthen"):
        run(store, shorter, policy="shortening")
    change = "SET session_replication_role = replica; UPDATE sweeper.events SET {} WHERE kind = 'policy_recorded'"
    text = another(policy, 3).normal_form.replace("'", "''")
    store.execute(change.format(f"details = jsonb_set(details, '{{policy}}', to_jsonb('{text}'::text))"))
    with is_refused(store, "policy", "no run has recorded what that one says"):
        run(store, another(policy, 30), policy="shortening")
    store.execute(change.format("kind = 'x'"))
    with is_refused(store, "policy", "no run has recorded what that one says"):
        run(store, another(policy, 32), policy="shortening")
    assert run(store, shorter, policy="off").as_json()["guards_off"] == ["policy"]


def test_preview_of_a_changed_policy(store: Store, policy: Policy) -> None:
    """A preview says that a run would refuse, and what differs; it refuses nothing and accepts nothing."""
    store.load(world(1, 1))
    run(store, policy)
    shorter = another(policy, 29)
    job = store.job(shorter, NOW, frozen(NOW))
    found = to_json(preview(job))
    assert (found["would_refuse"], found["policy_change"]["former"]) == (["policy"], policy.digest)
    assert [each["part"] for each in found["policy_change"]["differences"]] == ["rule standard"]
    assert to_json(preview(job, accept_policy=shorter.digest[:12]))["would_refuse"] == []
    assert to_json(preview(store.job(policy, NOW, frozen(NOW))))["policy_change"] is None
    assert accepted(store) == []
