"""`report` and `status` as a person or a timer uses them: exit codes, JSON, the file for node_exporter, and nothing private."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sweeper.policy.instant import rfc3339
from tests.acceptance.commands import Command
from tests.store.operated import MONTH, ran, world
from tests.store.stores import Store

GONE = "postgresql://u:hunter2@127.0.0.1:1/x"


def due(hours: int, id_: str = "c1") -> dict[str, Any]:
    """A conversation that has been due for so many hours now, with something in it that is nobody's business."""
    last = rfc3339(datetime.now(UTC) - MONTH - timedelta(hours=hours))
    message = {"id": f"m {id_}", "author": "user", "created_at": last}
    return {"id": id_, "account": "a1", "created_at": last, "last_activity_at": last, "messages": [message]}


def value(file: Path, series: str) -> float | None:
    """The sum of a series in a file for node_exporter; None where it is not there."""
    families = text_string_to_metric_families(file.read_text())
    found = [sample.value for family in families for sample in family.samples if sample.name == series]
    return sum(found) if found else None


def test_report_json(sweeper: Command, store: Store) -> None:
    """`report --json` prints one object with the documented fields; while nothing is wrong it exits 0."""
    store.load(world(due(1), due(-24 * 9, "c2")))
    done = sweeper("report", "--json")
    told = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert set(told) == {
        "store", "as_of", "policy", "conversations", "feedback", "redactions", "anomalies", "unmatched", "purged_in_days",
        "last_success_at", "objects_pending", "copies", "manifests", "evidence", "drain_seconds", "alarms", "duration_s",
        "tables", "beyond_reach",
    }  # fmt: skip
    for part in (told["conversations"], told["feedback"]):
        assert set(part) == {"total", "by_rule", "overdue", "held_past_due", "spared", "unclassified"}
    assert set(told["conversations"]["by_rule"]["standard"]) == {
        "kept", "overdue", "held", "spared", "held_past_due", "due_in_days",
    }  # fmt: skip
    assert told["conversations"]["overdue"]["standard"]["count"] == 1
    assert told["alarms"] == []


def test_report_agrees_with_explain_all(sweeper: Command, store: Store) -> None:
    """As many are overdue by rule as `explain --all` calls to be purged, and as many are held."""
    at = rfc3339(datetime.now(UTC))
    store.load(world(due(1), due(30, "c2"), due(-24 * 9, "c3"), due(2, "c4"), holds=[{"conversation": "c4"}]))
    lines = [json.loads(line) for line in sweeper("explain", "--all", "--json", "--as-of", at).out.splitlines()]
    told = json.loads(sweeper("report", "--json", "--as-of", at).out)["conversations"]
    assert told["total"] == len(lines) == 4
    assert told["by_rule"]["standard"]["overdue"] == sum(line["purge"] for line in lines) == 2
    assert told["by_rule"]["standard"]["held"] == sum(line["held"] for line in lines) == 1


def test_report_text(sweeper: Command, store: Store) -> None:
    """For a person: a table by rule, reasons for doubt, and what was purged."""
    store.load(world(due(1), due(2, "c2"), {**due(1, "c3"), "account": "a2"}))
    assert sweeper("run").code == sweeper("audit", "checkpoint").code == 0
    done = sweeper("report")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert done.code == 0
    assert lines[0].endswith(": 1 conversations, 0 feedback rows.")
    assert "unclassified 1 0 0 0 0 0 0 0" in lines
    assert "unclassified unknown_plan 1" in lines
    assert "conversation standard 2 2 2" in lines
    assert "to purge what is overdue: nothing to do" in lines
    assert any(re.fullmatch(r"evidence: newest checkpoint \S+Z, .* \(unsigned\); 0 rows since", line) for line in lines)


def test_nothing_purged_while_overdue(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Then the report exits 1 and says so loudly, with the file written all the same; a run makes it good."""
    store.load(world(due(27), due(27, "c2")))
    file = tmp_path / "sweeper.prom"
    done = sweeper("report", "--json", "--textfile", str(file))
    assert done.code == 1
    assert "NOTHING WAS PURGED WHILE 2 CONVERSATIONS ARE OVERDUE" in done.err
    assert json.loads(done.out)["alarms"][0] in done.err
    assert (value(file, "sweeper_overdue_conversations"), value(file, "sweeper_up")) == (2, 1)
    assert value(file, "sweeper_last_report_timestamp_seconds")
    assert sweeper("run").code == 0
    assert sweeper("report", "--textfile", str(file)).code == 0
    assert (value(file, "sweeper_overdue_conversations"), value(file, "sweeper_purged_lately")) == (0, 2)


def test_textfile_is_replaced_at_once(sweeper: Command, tmp_path: Path) -> None:
    """Who has the file open reads the old text to its end; the new one is readable by all, and nothing else is left there."""
    file = tmp_path / "sweeper.prom"
    file.write_text("old\n" * 1_000)
    with file.open() as opened:
        assert opened.readline() == "old\n"
        assert sweeper("report", "--textfile", str(file)).code == 0
        assert set(opened.read().split()) == {"old"}
    assert value(file, "sweeper_up") == 1
    assert (file.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o644, [file])


@pytest.mark.parametrize("broken", [{"SWEEPER_DATABASE_URL": GONE}, {"SWEEPER_POLICY_FILE": "/nowhere/p.toml"}])
def test_textfile_of_a_report_that_failed(sweeper: Command, tmp_path: Path, broken: dict[str, str]) -> None:
    """A report that cannot be made leaves no old numbers behind: the file says that there are none."""
    file = tmp_path / "sweeper.prom"
    assert sweeper("report", "--textfile", str(file)).code == 0
    done = sweeper("report", "--textfile", str(file), **broken)
    assert done.code in (1, 2)
    assert (value(file, "sweeper_up"), value(file, "sweeper_overdue_conversations")) == (0, None)
    assert "hunter2" not in done.out + done.err + file.read_text()


def test_textfile_that_cannot_be_written(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """The report is made and printed, and the exit code is 1; with two failures both are told."""
    file = str(tmp_path / "missing" / "sweeper.prom")
    done = sweeper("report", "--json", "--textfile", file)
    assert (done.code, json.loads(done.out)["alarms"]) == (1, [])
    assert f"--textfile {file}: cannot be written (No such file or directory)" in done.err
    store.load(world(due(27)))
    done = sweeper("report", "--textfile", file)
    assert "cannot be written" in done.err
    assert "NOTHING WAS PURGED" in done.err


def test_textfile_tells_of_now(sweeper: Command, tmp_path: Path) -> None:
    """With another as-of it is a usage error, and nothing is written."""
    done = sweeper("report", "--textfile", str(tmp_path / "s.prom"), "--as-of", "2026-01-01T00:00:00Z")
    assert (done.code, list(tmp_path.iterdir())) == (2, [])


def test_nothing_private(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Neither text nor an id or matter of anybody is printed, written or recorded by a report or a status."""
    store.load(world(due(27), holds=[{"account": "a9"}]))
    store.execute("UPDATE messages SET body = 'somebody@example.org secret words'")
    file = tmp_path / "s.prom"
    printed = "".join(
        done.out + done.err
        for words in (("report", "--textfile", str(file)), ("report", "--json"), ("status",), ("status", "--json"))
        for done in (sweeper(*words),)
    )
    told = printed + file.read_text() + str(store.execute("SELECT details FROM sweeper.events WHERE kind = 'reported'"))
    assert "standard" in told
    for private in ("secret", "example.org", str(store.id("c1")), str(store.id("a1")), str(store.id("a9")), "matter 1"):
        assert private not in told


def test_a_role_that_may_not_record(sweeper: Command, store: Store) -> None:
    """A look that cannot be recorded is no report: it exits 1 and says what was missing."""
    store.execute(
        "REVOKE ALL ON sweeper.events FROM PUBLIC; CREATE ROLE looker LOGIN; GRANT USAGE ON SCHEMA sweeper TO looker"
    )
    store.execute(
        "GRANT USAGE ON SCHEMA store TO looker; GRANT SELECT ON ALL TABLES IN SCHEMA sweeper, store TO looker; "
        "GRANT EXECUTE ON FUNCTION sweeper.spelling(text) TO looker"
    )
    try:
        done = sweeper("report", SWEEPER_DATABASE_URL=store.acting("looker").url)
        assert (done.code, done.out) == (1, "")
        assert "permission denied for table events" in done.err
        assert sweeper("status", SWEEPER_DATABASE_URL=store.acting("looker").url).code == 0
    finally:
        store.execute("DROP OWNED BY looker; DROP ROLE looker")


def test_status_json(sweeper: Command, store: Store) -> None:
    """`status --json` prints one object with the documented fields, and exits 0 whatever it sees."""
    store.load(world(due(27)))
    refused = ran(store, {"guard": "volume", "text": "9 are due."}, "refused")
    store.execute("INSERT INTO sweeper.pauses (reason) VALUES ('audit')")
    done = sweeper("status", "--json")
    told = json.loads(done.out)
    assert done.code == 0
    assert set(told) == {
        "at", "store", "paused", "pauses", "lease", "running", "runs", "last_success_at", "last_success_age_seconds",
        "signs", "backfills", "overdue", "overdue_unknown", "upkeep", "advice", "not_looked_at",
    }  # fmt: skip
    assert (told["paused"], told["pauses"][0]["reason"], told["lease"]) == (True, "audit", None)
    assert (told["runs"][0]["id"], told["runs"][0]["guard"], told["runs"][0]["purged"]) == (refused, "volume", 0)
    assert told["overdue"]["conversations"]["standard"]["count"] == 1
    assert [line.split()[0] for line in told["advice"]] == ["Paused", "1", "No", "Run"]


def test_status_text(sweeper: Command, store: Store) -> None:
    """One screen: pause, lease, success, what is overdue, runs, and what to do."""
    assert "Nothing is wrong." not in sweeper("status").out
    store.load(world(due(1)))
    assert sweeper("run").code == 0
    lines = sweeper("status").out.splitlines()
    assert lines[1:3] == ["paused    no", "lease     free"]
    assert lines[3].startswith("success   2")
    assert lines[4] == "overdue   0 conversations, 0 feedback rows; 0 held past their due date"
    assert lines[5].startswith(
        "upkeep    guards off: 0; missing indexes: 0; unreachable manifests: 0 of 0; pending objects: 0"
    )
    assert [line.split()[:3] for line in lines[7:9]] == [["run", "kind", "as"], ["1", "run", lines[8].split()[2]]]
    assert lines[-1] == "Nothing wrong was found in what was looked at."
    assert sweeper("report").code == 0
    assert sweeper("status").out.splitlines()[-1] == "Nothing is wrong."
    assert len(lines) < 25


def test_status_with_a_broken_policy(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """What does not need the policy is told; of the rest it is said that it could not be counted, and why."""
    (tmp_path / "p.toml").write_text("format = 2")
    store.execute("INSERT INTO sweeper.pauses (reason) VALUES ('audit')")
    broken = {"SWEEPER_POLICY_FILE": str(tmp_path / "p.toml")}
    done = sweeper("status", **broken)
    assert (done.code, f"sweeper: policy {tmp_path / 'p.toml'}" in done.err) == (2, True)
    assert "overdue   could not be counted" in done.out
    assert f"! Overdue records could not be counted: policy {tmp_path / 'p.toml'}" in done.out
    assert "! Paused since" in done.out
    told = json.loads(sweeper("status", "--json", **broken).out)
    assert told["overdue"] is None
    assert "format" in told["overdue_unknown"]


def test_status_with_a_broken_store(sweeper: Command, store: Store) -> None:
    """A relation that is not there keeps only what is overdue from being counted."""
    store.execute("ALTER TABLE store.conversations RENAME TO elsewhere")
    done = sweeper("status")
    assert (done.code, "overdue   could not be counted" in done.out) == (0, True)


@pytest.mark.parametrize(("url", "code"), [(GONE, 1), ("", 2)])
def test_status_that_could_not_look(sweeper: Command, url: str, code: int) -> None:
    """Without a database there is no status: exit 1, or 2 where none is named."""
    done = sweeper("status", SWEEPER_DATABASE_URL=url)
    assert (done.code, done.out, "hunter2" in done.err) == (code, "", False)
