"""A purge plan: its keys are asked for once and kept within a bound, and a plan file is executed only as it was written."""

import gc
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError
from sweeper.policy.evaluate import Proposal
from sweeper.policy.schema import Policy
from sweeper.policy.window import Slice
from sweeper.postgres.proposals import Page, Selector
from sweeper.runs import plan as plans
from sweeper.runs.backfill import BackfillScope
from sweeper.runs.job import Job
from sweeper.runs.plan import PurgePlan
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import KEPT_BYTES, Budget, ProgressListener
from tests.facts import World, instant
from tests.store.operated import NOW, chat, mixed, world
from tests.store.stores import Store

GUARDS = {"history": False, "volume": False}
LIMITED: dict[str, Any] = {"history": False, "max_count": 0}
EACH_PAGE = 2
DUE = 9
SCOPE = BackfillScope(instant("2026-05-01T00:00:00Z"), instant("2026-06-01T00:00:00Z"), Slice.WEEK)


@pytest.fixture(autouse=True)
def many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few proposals are on a page."""

    def paged(job: Job) -> Selector:
        return Selector(job.database, job.contract, job.policy, job.as_of, job.window, proposals_per_page=EACH_PAGE)

    monkeypatch.setattr(Job, "selector", property(paged))


@contextmanager
def proposing(job: Job) -> Iterator[list[int]]:
    """The number of proposals that each proposing statement of the block found."""
    found: list[int] = []

    def look(_c: Any, cursor: Any, sql: str, *_: Any) -> None:
        if "WITH searched AS" in sql:
            found.append(cursor.rowcount)

    event.listen(job.database.engine, "after_cursor_execute", look)
    yield found
    event.remove(job.database.engine, "after_cursor_execute", look)


def several() -> World:
    """Conversations that are due, on more pages than a few."""
    return world(*(chat(f"c{number}", timedelta(days=number)) for number in range(DUE)))


def job_of(store: Store, policy: Policy, **guards: Any) -> Job:
    """A job at NOW."""
    return store.job(policy, NOW, guards=guards or GUARDS, purge={"batch": 2})


WAYS: dict[str, tuple[Callable[[Job, int], int], int, int]] = {
    "a run within the limits": (lambda job, memory: sweep(job, budget=Budget(memory=memory)).count, 1, 2),
    "a preview, and a run under its approval": (
        lambda job, memory: sweep(job, approval=preview(job).approval, budget=Budget(memory=memory)).count,
        1 + 1,
        1 + 3,
    ),
}
"""Purges as many as it returns, with the number of times that everything is proposed: if the keys are kept, and if not."""


@pytest.mark.parametrize("way", WAYS)
def test_proposed_once(way: str, store: Store, policy: Policy) -> None:
    """However often the proposals are counted, decided and purged, the store is asked for them once."""
    store.load(several())
    job, (deed, times, _) = job_of(store, policy), WAYS[way]
    with proposing(job) as once:
        list(job.selector.pages())
    assert (sum(once), len(once)) == (DUE, 8)
    with proposing(job) as found:
        assert deed(job, KEPT_BYTES) == DUE
    assert found == once * times


@pytest.mark.parametrize("way", WAYS)
def test_beyond_the_bound(way: str, store: Store, policy: Policy) -> None:
    """Keys that do not fit are not kept: what is due is purged all the same, proposed again for each use."""
    store.load(several())
    job, (deed, _, times) = job_of(store, policy), WAYS[way]
    with proposing(job) as found:
        assert deed(job, 0) == DUE
    assert sum(found) == DUE * times
    assert store.left() == set()


def test_kept_pages_are_those_proposed(store: Store, policy: Policy) -> None:
    """What was kept comes back as it was proposed, odd instants, held rows and rows of no account included."""
    store.load(mixed())
    store.execute("UPDATE conversations SET deleted_at = '-infinity' WHERE id = %s", store.id("zero"))
    store.execute("ALTER TABLE conversations ALTER account_id DROP NOT NULL")
    store.execute("UPDATE conversations SET account_id = NULL WHERE id = %s", store.id("gone"))
    job = job_of(store, policy)
    kept, again = PurgePlan(job), PurgePlan(job, memory=0)
    kept.propose(ProgressListener())
    again.propose(ProgressListener())
    pages = list(job.selector.pages())
    with proposing(job) as asked:
        assert list(kept.pages(kept.kinds[0])) == list(kept.pages(kept.kinds[0])) == pages
    assert asked == []
    assert list(again.pages(again.kinds[0])) == pages
    assert (kept.free, kept.held) == (again.free, again.held) == (count(pages, "free"), count(pages, "held"))
    assert kept.held
    assert {proposal.account_id for page in pages for proposal in page.free} > {None}


def count(pages: list[Page], which: str) -> int:
    """How many proposals of a kind are on the pages."""
    return sum(len(getattr(page, which)) for page in pages)


def outcome(store: Store, job: Job, memory: int) -> tuple[dict[str, Any], list[tuple[Any, ...]], set[str]]:
    """What a run under its approval says, what its tombstones say, and what is left."""
    said = sweep(job, approval=preview(job).approval, budget=Budget(memory=memory)).as_json()
    told = {key: said[key] for key in said.keys() - {"run", "duration_s", "batches", "pauses"}}
    tombstones = store.execute("SELECT record_id, rule, due_at FROM sweeper.tombstones ORDER BY record_id")
    return told, tombstones, store.left()


def test_kept_or_not_is_the_same(store: Store, policy: Policy) -> None:
    """A run whose keys fit and one whose keys do not purge, hold, skip and report the same."""
    found = []
    for memory in (KEPT_BYTES, 0, 100):
        store.wipe()
        store.load(mixed())
        found.append(outcome(store, job_of(store, policy), memory))
    assert found[0] == found[1] == found[2]
    assert found[0][0]["purged"] > EACH_PAGE


def test_a_kept_key_is_only_a_proposal(store: Store, policy: Policy) -> None:
    """A conversation that changes, is held or goes after its key was kept is not purged on what was proposed."""
    store.load(several())
    resumed, held, gone = (store.id(name) for name in ("c1", "c2", "c3"))

    def change(_: int) -> None:
        store.execute("UPDATE conversations SET last_activity_at = %s WHERE id = %s", NOW, resumed)
        store.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) VALUES ('m', %s, %s)", held, NOW
        )
        store.execute("DELETE FROM conversations WHERE id = %s", gone)

    result = sweep(job_of(store, policy), watch=ProgressListener(expect=change))
    assert (result.count, result.counts.held, result.counts.skipped) == (DUE - 3, 1, {"changed": 1})
    assert store.left() == {resumed, held}


def test_no_list_of_proposals(store: Store, policy: Policy) -> None:
    """Of many keys that are kept no more than a page or two is there as proposals."""
    store.load(world(*(chat(f"c{number}", timedelta(days=1)) for number in range(60))))
    alive: list[int] = []
    steps: list[int] = []

    def look(step: int) -> None:
        steps.append(step)
        if len(steps) % 7 == 1:  # each look goes through all that this process has
            gc.collect()
            alive.append(sum(type(thing) is Proposal for thing in gc.get_objects()))

    assert sweep(job_of(store, policy), watch=ProgressListener(advance=look)).count == 60
    assert 0 < max(alive) <= 2 * EACH_PAGE


# The file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a plan is written."""
    return tmp_path / "plan.json"


def written(store: Store, policy: Policy, file: Path, scope: BackfillScope | None = None, **guards: Any) -> PurgePlan:
    """A plan that has been written."""
    store.load(mixed())
    store.execute("UPDATE conversations SET created_at = '2014-01-01Z' WHERE id = %s", store.id("old"))
    plan = preview(job_of(store, policy, **guards), scope=scope)
    plan.write(file)
    return plan


@pytest.mark.parametrize("scope", [None, SCOPE])
def test_round_trip(scope: BackfillScope | None, store: Store, policy: Policy, file: Path) -> None:
    """The file gives the approval of its plan back, is for its owner's eyes, and is the same plan however it is laid out."""
    approval = written(store, policy, file, scope).approval
    assert plans.read(file) == approval
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    assert plans.read(file) == approval


def test_what_a_reviewer_sees(store: Store, policy: Policy, file: Path) -> None:
    """By rule how many go and when they were due, what stays and why, what would refuse, until when it is good; no record."""
    plan = written(store, policy, file, **LIMITED)
    found = json.loads(file.read_text())
    assert found["by_rule"] == {"deleted": 1, "standard": 2, "zero_retention": 1} == dict(plan.counts.by_rule)
    assert found["due_dates"]["conversation"] == {
        "deleted": {"oldest": "2026-05-31T19:00:00Z", "newest": "2026-05-31T19:00:00Z"},
        "standard": {"oldest": "2026-05-31T23:00:00Z", "newest": NOW},
        "zero_retention": {"oldest": "2026-05-31T00:00:00Z", "newest": "2026-05-31T00:00:00Z"},
    }
    assert found["due_dates"]["feedback"] == {
        "feedback": {"oldest": "2026-05-31T00:00:00Z", "newest": "2026-05-31T00:00:00Z"}
    }
    assert (found["would_purge"], found["feedback_would_purge"], found["held"]) == (4, 1, 1)
    assert found["unclassified_by_reason"] == {"created_at": 1}
    assert found["spared_by_reason"] == {"protected_after_as_of": 1, "stale_last_activity": 1}
    assert found["would_refuse"] == ["volume"] == list(found["refusals"])
    assert "4 conversations are due in this run" in found["refusals"]["volume"]
    assert (found["as_of"], found["lapses_at"]) == (NOW, "2026-06-02T00:00:00Z")
    assert (found["store"], found["policy"]) == (plan.approval.store, policy.digest)
    assert found["digest"] == plan.approval.token()
    text = file.read_text()
    ids = [str(row[0]) for row in store.execute("SELECT id FROM conversations UNION SELECT id FROM accounts")]
    assert not any(id_ in text for id_ in ids)


def test_slices_of_a_backfill(store: Store, policy: Policy, file: Path) -> None:
    """The file of a backfill says what it is about, and how many go in each slice that has any."""
    written(store, policy, file, SCOPE)
    found = json.loads(file.read_text())
    assert {key: found[key] for key in ("since", "until", "by")} == to_json(SCOPE)
    assert found["slices"] == [
        {"since": "2026-05-25T00:00:00Z", "until": "2026-06-01T00:00:00Z", "would_purge": found["would_purge"]}
    ]
    assert found["would_purge"] == sum(found["by_rule"].values()) == 3


def is_refused(file: Path, *texts: str) -> None:
    """That a file is refused with 2 and these words."""
    with pytest.raises(ConfigurationError) as refusal:
        plans.read(file)
    for text in (str(file), *texts, "Nothing was done.", "--dry-run --out FILE"):
        assert text in str(refusal.value)


@pytest.mark.parametrize("scope", [None, SCOPE])
def test_every_edit_is_refused(scope: BackfillScope | None, store: Store, policy: Policy, file: Path) -> None:
    """Whatever field is changed, taken out or added, the file is not the plan any more."""
    written(store, policy, file, scope)
    found = json.loads(file.read_text())
    for name, value in found.items():
        for edited in (
            {**found, name: _changed(value)},
            {key: kept for key, kept in found.items() if key != name},
        ):
            file.write_text(json.dumps(edited))
            is_refused(file)
    file.write_text(json.dumps({**found, "note": "fine"}))
    is_refused(file, "edited", "its checksum is")


def _changed(value: Any) -> Any:
    match value:
        case str():
            return value[:-1]
        case dict():
            return {**value, "standard": 1_000}
        case list():
            return [*value, "volume"]
        case None:
            return "another"
        case _:
            return value + 1


def test_edited_figures_are_named(store: Store, policy: Policy, file: Path) -> None:
    """What differs from the digest is told with both values, whatever the checksum says."""
    written(store, policy, file)
    found = json.loads(file.read_text())
    found["by_rule"]["standard"] = 1
    found["would_purge"] = 3
    file.write_text(json.dumps(found))
    is_refused(file, "edited", "would_purge is 3, its digest says 4", "'standard': 1", "'standard': 2")


BROKEN = {
    "empty": "",
    "no JSON": "a plan",
    "a list": "[]",
    "no digest": '{"checksum": "x"}',
    "a digest of nothing": '{"checksum": "x", "digest": ""}',
    "a number for a digest": '{"checksum": "x", "digest": 1}',
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("what", BROKEN)
def test_no_plan(what: str, file: Path) -> None:
    """What is no plan file is refused in words."""
    file.write_text(BROKEN[what])
    is_refused(file, "this is no plan of a dry run")


def test_a_name_twice(store: Store, policy: Policy, file: Path) -> None:
    """A field that says two things, of which a reader may see either, is refused."""
    written(store, policy, file)
    file.write_text(file.read_text().replace("{", '{"would_purge": 1,', 1))
    is_refused(file, "a name occurs twice")


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, or a directory, is refused in words."""
    is_refused(tmp_path / "none", "No such file")
    is_refused(tmp_path, "Is a directory")
