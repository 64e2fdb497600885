"""Laws of the whole sweep on a real store: it does what the model of the policy says, once, whatever surrounds it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweeper.policy.evaluate import Outcome
from sweeper.policy.schema import Policy
from sweeper.runs.result import Result
from sweeper.runs.sweep import preview, sweep
from tests import model
from tests.facts import World, by_as_of, instant, renamed, together
from tests.redacting import COLUMNS, RULES, redacting
from tests.store.stores import RELATIONS, Store
from tests.worlds import cells, worlds

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases.jsonl").read_text().splitlines()]
GUARDS = {"history": False, "volume": False, "earlier_as_of": False}
REDACTING = redacting(*RULES)
both = st.one_of(worlds(poison=False), worlds(poison=True))
Dump = dict[str, list[str]]


# --- what the model expects -------------------------------------------------------------------------------------------


def protected(world: World) -> World:
    """The world as the delete re-checks it: holds and flags after as-of count from as-of, a later user message is activity."""
    changed: World = deepcopy(world)
    as_of = model.now(world)

    def late(at: str | None) -> bool:
        instant_ = model.parse(at)
        return model.plausible(instant_) and instant_ > as_of

    for hold in changed["holds"]:
        if late(hold.get("placed_at")):
            hold["placed_at"] = world["as_of"]
    for chat in changed["conversations"]:
        if late(chat.get("flagged_at")):
            chat["flagged_at"] = world["as_of"]
        written = [m["created_at"] for m in chat["messages"] if m.get("author") == "user" and m.get("created_at")]
        latest = max(written, key=moment, default=None)
        last = chat.get("last_activity_at")
        if latest is not None and (last is None or moment(latest) > moment(last)):
            chat["last_activity_at"] = latest
    return changed


def moment(told: str) -> int:
    """An instant that is set."""
    return model.known_instant(told)


def doomed(world: World) -> dict[str, model.Verdict]:
    """The conversations to purge: due on the row as stored and on the re-check."""
    again = model.verdicts(protected(world))
    return {name: v for name, v in model.verdicts(world).items() if v.purge and again[name].purge}


def doomed_feedback(world: World) -> dict[str, model.Verdict]:
    """The feedback to purge."""
    again = model.feedback(protected(world))
    return {name: v for name, v in model.feedback(world).items() if v.purge and again[name].purge}


# --- what the store shows ---------------------------------------------------------------------------------------------


def fill(store: Store, world: World) -> None:
    """The world alone, with an attachment for every message."""
    store.wipe()
    store.load(world)
    store.execute("INSERT INTO attachments (id, conversation_id) SELECT id, conversation_id FROM messages")


def dump(store: Store) -> Dump:
    """Every row of the store's relations, the tombstones and the orders and holds."""
    tables = (*RELATIONS, "sweeper.tombstones", "sweeper.legal_holds", "sweeper.erasure_orders")
    with store.connect() as connection:
        return {t: sorted(row[0] for row in connection.execute(f"SELECT t::text FROM {t} t")) for t in tables}


def stones(store: Store, record: str) -> list[tuple[Any, ...]]:
    """What the tombstones say; instants are read as microseconds, whatever the date style of the session."""
    rows = store.execute(
        "SELECT record_id, rule, (extract(epoch FROM due_at) * 1000000)::bigint FROM sweeper.tombstones"
        " WHERE record = %s ORDER BY 1",
        record,
    )
    return [(id_, rule, model.date_of(due)) for id_, rule, due in rows]


def run(store: Store, policy: Policy, as_of: str) -> Result:
    """One sweep, with the guards that a test would trip set aside."""
    return sweep(store.job(policy, as_of, guards=GUARDS))


def equals_model(store: Store, policy: Policy, world: World) -> None:
    """A sweep leaves what the model keeps, and a tombstone with the model's rule and due for everything else."""
    fill(store, world)
    result = run(store, policy, world["as_of"])
    gone, gone_feedback = doomed(world), doomed_feedback(world)
    assert store.left() == {store.id(chat["id"]) for chat in world["conversations"] if chat["id"] not in gone}
    feedback_left = {str(row[0]) for row in store.execute("SELECT id FROM feedback")}
    assert feedback_left == {store.id(f["id"]) for f in world["feedback"] if f["id"] not in gone_feedback}
    wanted = sorted((store.id(name), v.rule, v.due) for name, v in gone.items())
    assert stones(store, "conversation") == wanted
    wanted_feedback = sorted((store.id(name), v.due) for name, v in gone_feedback.items())
    assert [(id_, due) for id_, _, due in stones(store, "feedback")] == wanted_feedback
    for child in ("messages", "attachments"):
        kept = sum(len(chat["messages"]) for chat in world["conversations"] if chat["id"] not in gone)
        assert store.execute(f"SELECT count(*) FROM {child}") == [(kept,)]
    assert result.outcome == "completed"
    assert result.as_json()["by_rule"] == dict(Counter(v.rule for v in gone.values()))


# --- the laws ---------------------------------------------------------------------------------------------------------


@given(world=both)
@settings(max_examples=30)
def test_sweep_equals_model(store: Store, policy: Policy, world: World) -> None:
    """What is purged is what the model purges, with its rule and due, and nothing of it stays behind."""
    equals_model(store, policy, world)


@given(world=both)
@settings(max_examples=12)
def test_redactions_equal_model(store: Store, world: World) -> None:
    """What is redacted is what the model redacts; it stays, without content, and a second run changes nothing."""
    owner = store.acting("postgres")
    fill(owner, world)
    job = owner.job(REDACTING, world["as_of"], guards=GUARDS, purge=COLUMNS)
    foretold = preview(job).as_json()
    told = sweep(job).as_json()
    gone, again = doomed(world), model.redactions(protected(world))
    redacted = {
        name: v for name, v in model.redactions(world).items() if v.purge and again[name].purge and name not in gone
    }
    written = {chat["id"] for chat in world["conversations"] if chat["messages"]}
    assert stones(owner, "conversation") == sorted((owner.id(name), v.rule, v.due) for name, v in gone.items())
    wanted = sorted((owner.id(name), v.rule, v.due) for name, v in redacted.items() if name in written)
    assert stones(owner, "redaction") == wanted
    left = {str(row[0]) for row in owner.execute("SELECT conversation_id FROM messages WHERE body IS NOT NULL")}
    kept = written - gone.keys() - redacted.keys()
    assert left == {owner.id(name) for name in kept}
    assert owner.left() == {owner.id(chat["id"]) for chat in world["conversations"] if chat["id"] not in gone}
    assert told["redacted_by_rule"] == foretold["redacted_by_rule"] == dict(Counter(rule for _, rule, _ in wanted))
    once = dump(owner)
    assert sweep(owner.job(REDACTING, world["as_of"], guards=GUARDS, purge=COLUMNS)).as_json()["redacted"] == 0
    assert dump(owner) == once


@given(world=both)
@settings(max_examples=15)
def test_every_proposal_has_one_fate_foretold_and_final(store: Store, policy: Policy, world: World) -> None:
    """Purged, held, spared, unclassified and not due together are what was proposed; a preview counts the same.

    Sweeping again at the same as-of purges nothing and leaves every row and every tombstone as it was.
    """
    fill(store, world)
    job = store.job(policy, world["as_of"], guards=GUARDS)
    proposed = sum(len(page.free) + len(page.held) for page in job.selector.pages())
    proposed_feedback = sum(map(len, job.selector.feedback()))
    before = dump(store)
    foretold = preview(job).as_json()
    assert dump(store) == before
    result = run(store, policy, world["as_of"])
    told, counts = result.as_json(), result.counts
    fates = (counts.by_rule, counts.feedback_by_rule, counts.skipped, counts.unclassified)
    not_due = sum(found.of(Outcome.NOT_DUE).total() for found in (counts.conversations, counts.feedback))
    numbers = counts.held + counts.feedback.held_past_due + not_due + counts.failed
    assert sum(fate.total() for fate in fates) + numbers == proposed + proposed_feedback
    same = ("by_rule", "held", "spared_by_reason", "unclassified_by_reason", "anomalies", "feedback_held")
    assert {key: foretold[key] for key in same} == {key: told[key] for key in same}
    assert foretold["feedback_by_rule"] == told["feedback_by_rule"]
    assert (foretold["would_purge"], foretold["feedback_would_purge"]) == (told["purged"], told["feedback_purged"])
    assert len(store.left()) + told["purged"] == len(world["conversations"])
    once = dump(store)
    again = run(store, policy, world["as_of"])
    assert (again.as_json()["purged"], again.as_json()["feedback_purged"]) == (0, 0)
    assert dump(store) == once


def test_preview_foretells_feedback_that_a_late_hold_keeps(store: Store, policy: Policy) -> None:
    """Feedback whose hold was placed after as-of is spared by the run, and the preview says so."""
    world: World = deepcopy(DUE)
    world["holds"] = [{"account": "a1", "placed_at": "2026-06-02T00:00:00Z"}]
    fill(store, world)
    foretold = preview(store.job(policy, world["as_of"], guards=GUARDS)).as_json()
    told = run(store, policy, world["as_of"]).as_json()
    assert foretold["feedback_would_purge"] == told["feedback_purged"] == 1
    assert foretold["spared_by_reason"] == told["spared_by_reason"]


@given(world=both, later=st.sampled_from([1, 86_400_000_000, 30 * 86_400_000_000, 400 * 86_400_000_000]))
@settings(max_examples=12)
def test_stepwise_equals_at_once(store: Store, policy: Policy, world: World, later: int) -> None:
    """Sweeping earlier and then again leaves what a single later sweep leaves: what was due does not become undue.

    One thing makes it so: a plan that nobody knows, taken up between the two, leaves an account's conversations
    unclassified from then on. Such worlds are set aside.
    """
    end = model.date_of(model.now(world) + later).isoformat().replace("+00:00", "Z")
    known = model.CONSUMER | model.COMMERCIAL
    strange = [
        at
        for account in world["accounts"]
        for change in model.plan_changes(account)
        if change.plan not in known and (at := change.effective_at) is not None
    ]
    assume(not any(model.now(world) < at <= model.known_instant(end) for at in strange))
    fill(store, world)
    run(store, policy, end)
    at_once = {t: rows for t, rows in dump(store).items() if t != "sweeper.tombstones"}
    fill(store, world)
    run(store, policy, world["as_of"])
    run(store, policy, end)
    stepwise = {t: rows for t, rows in dump(store).items() if t != "sweeper.tombstones"}
    numbered = ("plan_changes", "consent_events", "sweeper.legal_holds", "sweeper.erasure_orders")  # ids grow on reload
    assert {t: rows for t, rows in stepwise.items() if t not in numbered} == {
        t: rows for t, rows in at_once.items() if t not in numbered
    }


# --- whatever surrounds it --------------------------------------------------------------------------------------------

ZONES = ("America/New_York", "Australia/Lord_Howe")
"""West and east of Greenwich, with summers of an hour and of half an hour, in one hemisphere and in the other."""
SETTINGS = (
    {
        "default_transaction_isolation": "'repeatable read'",
        "DateStyle": "'German, DMY'",
        "IntervalStyle": "'sql_standard'",
        "search_path": "noise, public",
        "lock_timeout": "1",
        "statement_timeout": "'20s'",
    },
    {
        "default_transaction_isolation": "'serializable'",
        "default_transaction_deferrable": "on",
        "DateStyle": "'SQL, MDY'",
        "IntervalStyle": "'iso_8601'",
    },
)


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A time zone that this process is in while the test runs."""
    name: str = request.param
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield name
    monkeypatch.undo()
    time.tzset()


def alter(store: Store, setting: str, value: str) -> None:
    """Make a setting the default of every new session, and see that it took."""
    name = psycopg.conninfo.conninfo_to_dict(store.libpq)["dbname"]
    store.execute(f'ALTER DATABASE "{name}" SET {setting} = {value}')
    found = store.execute("SELECT unnest(setconfig) FROM pg_db_role_setting")
    assert setting.lower() in {row[0].partition("=")[0].lower() for row in found}


def purges_cases(store: Store, policy: Policy, cases: list[World]) -> None:
    """Of each worked case, exactly what it says is purged."""
    for case in map(together, by_as_of(cases)):
        store.wipe()
        store.load(case)
        run(store, policy, case["as_of"])
        expected = case["expect"]["conversations"]
        kept = {store.id(name) for name, wanted in expected.items() if not wanted["purge"]}
        assert store.left() == kept, case["as_of"]
        due = {id_: at for id_, _, at in stones(store, "conversation")}
        wanted_due = {store.id(n): instant(w["due_at"]) for n, w in expected.items() if w["purge"]}
        assert due == wanted_due, case["as_of"]


@pytest.mark.parametrize("zone", ZONES, indirect=True)
@given(world=both)
@settings(max_examples=10)
def test_time_zone_changes_nothing(zone: str, store: Store, policy: Policy, world: World) -> None:
    """In whatever time zone this machine and the session are, the model's conversations are purged."""
    if store.execute("SELECT count(*) FROM pg_db_role_setting") == [(0,)]:
        alter(store, "timezone", f"'{zone}'")
    equals_model(store, policy, world)


@pytest.mark.parametrize(("zone", "chosen"), list(zip(ZONES, SETTINGS, strict=True)), ids=ZONES, indirect=["zone"])
def test_surroundings_change_no_case(zone: str, chosen: dict[str, str], store: Store, policy: Policy) -> None:
    """The machine's zone and the session's zone, isolation, date and interval style, limits and path change no worked case."""
    alter(store, "timezone", f"'{zone}'")
    store.execute("CREATE SCHEMA noise")
    for table in RELATIONS:
        store.execute(f"CREATE TABLE noise.{table} (LIKE store.{table})")
    for setting, value in chosen.items():
        alter(store, setting, value)
    purges_cases(store, policy, CASES)


# --- poison -----------------------------------------------------------------------------------------------------------

DUE: World = {
    "as_of": "2026-06-01T00:00:00Z",
    "accounts": [
        {"id": "a1", "plans": [{"effective_at": "2020-01-01T00:00:00Z", "plan": "free"}], "consent": []},
        {
            "id": "a2",
            "plans": [{"effective_at": "2020-01-01T00:00:00Z", "plan": "pro"}],
            "consent": [{"recorded_at": "2025-09-01T00:00:00Z", "granted": True}],
        },
    ],
    "conversations": [
        {
            "id": f"c{number}",
            "account": f"a{number}",
            "created_at": "2026-01-01T00:00:00Z",
            "last_activity_at": "2026-01-01T00:00:00Z",
            "messages": [{"id": f"m{number}", "created_at": "2026-01-01T00:00:00Z", "author": "user"}],
        }
        for number in (1, 2)
    ],
    "holds": [{"account": "a2", "placed_at": "2026-01-01T00:00:00Z"}],
    "orders": [
        {"conversation": "c2", "recorded_at": "2026-01-02T00:00:00Z", "due_at": "2026-01-03T00:00:00Z"},
        {"account": "a2", "conversation": "c2", "recorded_at": "2026-01-02T00:00:00Z"},
    ],
    "feedback": [
        {"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2020-01-01T00:00:00Z"},
        {"id": "f2", "account": "a2", "kind": "thumbs", "submitted_at": "2020-01-01T00:00:00Z"},
    ],
}


def of_the_other(world: World) -> list[tuple[dict[str, Any], str, list[Any]]]:
    """The cells of the second account and of what belongs to it, holds and orders."""
    mine = [world["accounts"][0], *world["accounts"][0]["plans"], world["conversations"][0]]
    mine += [*world["conversations"][0]["messages"], world["feedback"][0]]
    return [cell for cell in cells(world) if not any(cell[0] is row for row in mine)]


def test_poisoned_row_stops_nobody(store: Store, policy: Policy) -> None:
    """Whatever one cell of an account holds, for each cell and each value, the others' due is purged and the run completes."""
    world: World = deepcopy(DUE)
    poisons = [(place, value) for place, cell in enumerate(of_the_other(DUE)) for value in cell[2]]
    for number, (place, value) in enumerate(poisons, 3):
        other: World = deepcopy(DUE)
        row, column, _ = of_the_other(other)[place]
        row[column] = value
        world["accounts"].append(renamed(other["accounts"][1], number))
        chat = renamed(other["conversations"][1], number)
        world["conversations"].append(chat | {"messages": [renamed(m, number) for m in chat["messages"]]})
        for rows in ("holds", "orders"):
            world[rows] += [renamed(row, number) for row in other[rows]]
        world["feedback"].append(renamed(other["feedback"][1], number))
    assert len(poisons) > 100
    equals_model(store, policy, world)
    assert store.id("c1") not in store.left()
    assert store.id("f1") in {record for record, _, _ in stones(store, "feedback")}


@given(world=worlds(poison=True))
@settings(max_examples=12)
def test_poisoned_world_stops_nobody(store: Store, policy: Policy, world: World) -> None:
    """Beside a whole world with poison in it, a stranger's due conversation is purged and the run completes."""
    assume(not any(not ({"account", "conversation"} & hold.keys()) for hold in world["holds"]))
    stranger = deepcopy(DUE["conversations"][0]) | {"id": "c100", "account": "a100", "messages": []}
    for column in ("created_at", "last_activity_at"):
        stranger[column] = "2018-01-01T00:00:00Z"
    plans = [{"id": 10_000, "effective_at": "-infinity", "plan": "free"}]
    world["accounts"].append({"id": "a100", "plans": plans, "consent": []})
    world["conversations"].append(stranger)
    fill(store, world)
    assert run(store, policy, world["as_of"]).outcome == "completed"
    assert store.id("c100") not in store.left()
