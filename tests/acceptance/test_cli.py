"""The command line: names, JSON fields and exit codes are a public interface."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import Command, environment, in_process, process
from tests.facts import World, by_as_of, together
from tests.processes import started
from tests.store.stores import Store

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases.jsonl").read_text().splitlines()]
COMMANDS = [
    "migrate",
    "run",
    "explain",
    "report",
    "status",
    "check",
    "demo",
    "hold place",
    "hold release",
    "hold list",
    "order add",
    "order withdraw",
    "order list",
    *(f"{group} {command}" for group in ("plan", "consent") for command in ("record", "list")),
    *(f"audit {step}" for step in ("checkpoint", "verify", "prove", "check-receipt", "export", "check-export", "key")),
    *(f"manifest {step}" for step in ("build", "start", "complete", "list", "verify", "recall", "retire", "relocate")),
]


def case(name: str) -> World:
    """A worked case by its name."""
    found: World = next(case for case in CASES if case["name"] == name)
    return found


def test_explain_answers_every_case(sweeper: Command, store: Store) -> None:
    """`explain --all --json` has one line per conversation with exactly the expected fields, for every worked case."""
    for worked in map(together, by_as_of(CASES)):
        store.wipe()
        store.load(worked)
        done = sweeper("explain", "--all", "--json", "--as-of", worked["as_of"])
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in done.out.splitlines()]
        expected = {store.id(name): wanted for name, wanted in worked["expect"]["conversations"].items()}
        assert {
            line["conversation_id"]: {k: line[k] for k in ("rule", "due_at", "purge")} for line in lines
        } == expected
        assert all(list(line) == ["conversation_id", "rule", "due_at", "held", "purge"] for line in lines)
        for name in expected:
            told = json.loads(sweeper("explain", str(name), "--json", "--as-of", worked["as_of"]).out)
            wanted = {
                store.id(m): reason
                for m, reason in worked["expect"]["messages"].items()
                if store.id(m) in told["messages"]
            }
            assert told["messages"] == wanted


def test_run_json(sweeper: Command, store: Store) -> None:
    """`run --json` prints one object with the documented fields, `--dry-run` the same with `would_purge` and a digest."""
    worked = case("opt-out: thirty days later")
    store.load(worked)
    shared = {"as_of", "policy", "spared", "held", "unclassified", "by_rule", "duration_s"}
    dry = json.loads(sweeper("run", "--dry-run", "--json", "--as-of", worked["as_of"]).out)
    assert shared | {"would_purge", "digest"} <= set(dry)
    assert (dry["would_purge"], dry["by_rule"], dry["as_of"]) == (1, {"consent_ended": 1}, worked["as_of"])
    assert store.execute("SELECT (SELECT count(*) FROM sweeper.runs) + (SELECT count(*) FROM sweeper.events)") == [(0,)]
    done = sweeper("run", "--json", "--as-of", worked["as_of"])
    real = json.loads(done.out)
    assert done.code == 0
    assert shared | {"purged", "objects_pending"} <= set(real)
    assert (real["purged"], real["by_rule"], real["policy"]) == (1, {"consent_ended": 1}, dry["policy"])
    assert store.left() == set()


def test_approved_run_adopts_as_of(sweeper: Command, store: Store) -> None:
    """`run --approve DIGEST` takes its as-of from the digest; with an as-of of its own it is a usage error."""
    worked = case("opt-out: thirty days later")
    store.load(worked)
    digest = json.loads(sweeper("run", "--dry-run", "--json", "--as-of", worked["as_of"]).out)["digest"]
    assert sweeper("run", "--approve", digest, "--as-of", worked["as_of"]).code == 2
    done = sweeper("run", "--approve", digest, "--json")
    assert (done.code, json.loads(done.out)["as_of"]) == (0, worked["as_of"])


def test_exit_codes(sweeper: Command, store: Store) -> None:
    """0 done, 1 failed, 2 configuration, 3 refused by a guard, 4 another run holds the lease."""
    worked = case("standard: at due")
    store.load(worked)
    codes = [sweeper("run", "--as-of", worked["as_of"]).code, sweeper("run", "--as-of", "yesterday").code]
    store.execute(
        "INSERT INTO sweeper.lease (store, expires_at) VALUES ('store', 'infinity') ON CONFLICT (store) DO UPDATE SET "
        "expires_at = 'infinity'"
    )
    with store.connect() as batch, batch.transaction():
        batch.execute("SELECT FROM sweeper.lease FOR UPDATE")
        codes.append(sweeper("run", "--as-of", worked["as_of"], "--accept-history").code)
    store.execute("UPDATE sweeper.lease SET expires_at = '-infinity'")
    codes.append(sweeper("run", "--as-of", worked["as_of"], "--accept-history").code)
    store.load(world_again(worked))
    store.execute("CREATE FUNCTION store.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'")
    store.execute("CREATE TRIGGER no BEFORE DELETE ON conversations FOR EACH ROW EXECUTE FUNCTION store.no()")
    codes.append(sweeper("run", "--as-of", worked["as_of"], "--accept-history").code)
    assert codes == [3, 2, 4, 0, 1]


def world_again(worked: World) -> World:
    """The case's conversation once more, under another id."""
    return {
        **worked,
        "accounts": [],
        "conversations": [{**c, "id": "again", "messages": []} for c in worked["conversations"]],
    }


def test_what_if(sweeper: Command, store: Store) -> None:
    """`--what-if` answers as if the user had done it at as-of, and changes nothing."""
    worked = case("training allowed: five years")
    store.load(worked)
    id_, as_of = str(store.id("c1")), worked["as_of"]
    answers = {
        what: json.loads(sweeper("explain", id_, "--json", "--as-of", as_of, "--what-if", what).out)
        for what in ("opt-out", "delete")
    }
    assert (answers["opt-out"]["rule"], answers["opt-out"]["due_at"]) == ("consent_ended", "2026-02-14T00:00:00Z")
    assert (answers["delete"]["rule"], answers["delete"]["due_at"]) == ("deleted", "2026-02-14T00:00:00Z")
    assert set(answers["opt-out"]["messages"].values()) == {"no_consent"}
    told = sweeper("explain", id_, "--as-of", as_of).out
    assert "last activity 2025-12-01T00:00:00Z + 5 years = 2030-12-01T00:00:00Z" in told
    assert "If the account withdrew its consent now: it is due at 2026-02-14T00:00:00Z, in " in told
    assert store.execute("SELECT count(*) FROM consent_events") == [(1,)]


def test_holds_and_orders(sweeper: Command, store: Store) -> None:
    """A hold keeps what is due until it is released; an order makes due what no rule would; each leaves its events."""
    worked = case("training allowed: five years")
    store.load(worked)
    id_ = str(store.id("c1"))
    due = ("order", "add", "DSR-1", "--conversation", id_.upper(), "--due", "2026-01-20T00:00:00Z", "--json")
    assert json.loads(sweeper(*due).out)["conversation_id"] == id_
    placed = json.loads(sweeper("hold", "place", "CASE-1", "--conversation", id_, "--json").out)
    assert placed["released_at"] is None
    assert json.loads(sweeper("run", "--json").out)["held"] == 1
    assert [hold["matter"] for hold in json.loads(sweeper("hold", "list", "--json").out)] == ["CASE-1"]
    assert len(json.loads(sweeper("hold", "release", "CASE-1", "--json").out)) == 1
    assert sweeper("hold", "release", "CASE-1").code == 1
    assert json.loads(sweeper("hold", "list", "--json").out) == []
    assert json.loads(sweeper("run", "--json").out)["by_rule"] == {"erasure_order": 1}
    told = sweeper("explain", id_)
    assert (told.code, told.err) == (0, "")
    assert re.match(
        f"Conversation {id_} was PURGED on .* by run 2: rule erasure_order, due 2026-01-20T00:00:00Z, as-of", told.out
    )
    machine = json.loads(sweeper("explain", id_, "--json").out)
    assert (machine["rule"], machine["purge"], machine["purged"]["run"]) == ("erasure_order", False, 2)
    kinds = store.execute("SELECT kind FROM sweeper.events WHERE kind ~ '^(hold|order)' ORDER BY id")
    assert kinds == [("order_added",), ("hold_added",), ("hold_changed",)]
    assert json.loads(sweeper("order", "list", "--json").out)[0]["reference"] == "DSR-1"


def test_streams(store: Store) -> None:
    """As a process without a terminal: data alone on stdout, JSON lines alone on stderr, no progress bar."""
    worked = case("opt-out: thirty days later")
    store.load(worked)
    done = process(store, "run", "--json", "--as-of", worked["as_of"])
    assert done.code == 0
    assert json.loads(done.out)["purged"] == 1
    logged = [json.loads(line) for line in done.err.splitlines()]
    assert [line["event"] for line in logged] == ["run opened", "batch", "run closed", "checkpoint taken"]
    text = process(store, "explain", "--all")
    assert (text.code, text.err) == (0, "")


def test_reader_that_goes_away(store: Store) -> None:
    """A reader that has seen enough ends `explain --all` without a traceback."""
    import sys

    worked = case("standard: at due")
    store.load(
        {
            **worked,
            "conversations": [{**worked["conversations"][0], "id": f"c{n}", "messages": []} for n in range(3000)],
        }
    )

    command = [sys.executable, "-m", "sweeper.cli", "explain", "--all", "--json"]
    with started(command, env={**environment(store), "PATH": ""}) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.readline()
        reading.stdout.close()
        assert "Traceback" not in reading.stderr.read()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, sweeper: Command) -> None:
    """Every command's help has an example that its own options understand."""
    told = sweeper(*command.split(), "--help")
    assert told.code == 0
    example = re.search(r"Example: sweeper (.+)", " ".join(told.out.split()))
    assert example is not None
    assert example[1].startswith(command)
    for option in re.findall(r"--[a-z-]+", example[1].split(" Options:")[0].split(" Arguments:")[0]):
        assert option in told.out


def test_version_and_exit_codes(sweeper: Command) -> None:
    """The version can be asked for, and the help lists the exit codes."""
    told = sweeper("--version")
    assert (told.code, told.err) == (0, "")
    assert re.fullmatch(r"sweeper \d+\.\d+\.\d+\n", told.out)
    listed = sweeper("--help").out
    assert re.findall(r"^ +(\d)  \w", listed, re.MULTILINE) == ["0", "1", "2", "3", "4"]


def test_objects_without_a_place_are_said_to_stay(store: Store) -> None:
    """Where [objects] prefixes is empty the run says how many objects stay, and the remedy: once to people, once in the log."""
    worked: dict[str, Any] = case("opt-out: thirty days later")
    store.load(worked)
    store.execute("INSERT INTO attachments VALUES (gen_random_uuid(), %s, 'memory://b/o')", store.id("c1"))
    done = in_process(store, "run", "--as-of", worked["as_of"])
    assert done.code == 0
    assert "1 objects of purged attachments are still to be removed: [objects] prefixes is empty" in done.out
    assert 'prefixes = ["s3://bucket/"]' in done.out
    assert done.err.count("[objects] prefixes is empty") == 1


def test_no_content_anywhere(store: Store, tmp_path: Path) -> None:
    """Neither message text nor a password appears in what a command prints, logs or records."""
    worked: dict[str, Any] = case("opt-out: thirty days later")
    store.load(worked)
    store.execute("INSERT INTO attachments VALUES (gen_random_uuid(), %s, 'nowhere://secret words')", store.id("c1"))
    secret = store.url.replace("sweeper@", "sweeper:hunter2@")
    printed = ""
    for words in (["explain", str(store.id("c1"))], ["run", "--as-of", worked["as_of"]], ["check"]):
        done = in_process(store, *words, SWEEPER_DATABASE_URL=secret)
        printed += done.out + done.err
    (tmp_path / "s.toml").write_text("[database]\noutage_seconds = 0\n")
    nowhere = "postgresql://u:hunter2@127.0.0.1:1/x"
    failed = in_process(None, "run", "--config", str(tmp_path / "s.toml"), SWEEPER_DATABASE_URL=nowhere)
    assert failed.code == 1
    printed += failed.err
    recorded = store.execute(
        "SELECT t::text FROM sweeper.tombstones t UNION SELECT e::text FROM sweeper.events e "
        "UNION SELECT r::text FROM sweeper.runs r"
    )
    assert "secret words" not in printed + str(recorded)
    assert "hunter2" not in printed + str(recorded)


def test_refusal_for_machines(sweeper: Command, store: Store) -> None:
    """A refused run answers machines as well: which guard, and why."""
    chat = {
        "id": "c1",
        "account": "a1",
        "created_at": "2025-11-01T00:00:00Z",
        "last_activity_at": "2025-11-01T00:00:00Z",
    }
    account = {"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": []}
    store.load({"accounts": [account], "conversations": [{**chat, "messages": []}], "holds": [], "orders": []})
    done = sweeper("run", "--json")
    said = json.loads(done.out)
    assert (done.code, said["outcome"], said["guard"]) == (3, "refused", "history")
    assert said["text"] in done.err
