"""`report --html`: the numbers of the report, no content, and never half a page."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import Command, in_process
from tests.acceptance.test_report import due
from tests.store.operated import world
from tests.store.stores import POLICY, Store
from tests.store.test_redaction import CONFIG, RULE

DAY = 24


def said(file: Path) -> str:
    """The text of a page, with single blanks."""
    text = re.sub(r"<style>.*?</style>|<wbr>", "", file.read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def table(page: str, caption: str) -> list[list[str]]:
    """The rows of the table with a caption, of its body."""
    found = re.search(rf"<caption>{re.escape(caption)}</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert found is not None, caption
    return [
        [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    ]


def mixed(**parts: Any) -> Any:
    """Two overdue, two that come due, one in doubt, one held past its due date, and feedback."""
    feedback = [{"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2026-01-01T00:00:00Z"}]
    doubt = {**due(30, "c5"), "account": "a2"}
    held = [{"conversation": "c6"}]
    chats = (due(1), due(5, "c2"), due(-9 * DAY, "c3"), due(-9 * DAY, "c4"), doubt, due(50, "c6"))
    return world(*chats, feedback=feedback, holds=held, **parts)


def test_page_and_json_agree(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """The page says what --json says: the verdict on all records, what comes due, what is held and in doubt."""
    store.load(mixed())
    file = tmp_path / "report.html"
    done = sweeper("report", "--json", "--html", str(file))
    told, page, text = json.loads(done.out), file.read_text(), said(file)
    assert (done.code, done.err, list(tmp_path.iterdir())) == (0, "", [file])
    conversations = told["conversations"]
    assert (conversations["total"], conversations["by_rule"]["standard"]["overdue"]) == (6, 2)
    assert re.search(
        r"2 conversations and 0 feedback rows are overdue, the oldest for 5 h\b.*? within the 26 hours", text
    )
    assert "All 6 conversations and 1 feedback row of the store were looked at." in text
    assert "Kept all the same: 1 record past their due date under a legal hold and 1 record in doubt." in text
    assert f"Policy digest {told['policy']}" in text
    assert "2 conversations come due in the next 30 days, most on" in text
    due_rows = table(page, "Due in the next 30 days, by rule")
    assert len(due_rows) == 31
    within = sum(rule["due_in_days"]["30"] for rule in conversations["by_rule"].values())
    assert sum(int(row[-2]) for row in due_rows) == within == 2
    assert table(page, "conversations under hold, by rule and how long")[0][0] == "standard"
    (doubt,) = table(page, "In doubt, with examples")
    assert doubt[:3] + doubt[4:] == ["conversations", "unknown_plan", "1", str(store.id("c5"))]
    assert [row[:3] for row in table(page, "Overdue")] == [["conversations", "standard", "2"]]
    assert "[training]" not in text


def test_after_a_run(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """The page says that nothing is overdue, what runs purged, and shows the newest checkpoint as it is recorded."""
    store.load(mixed())
    assert sweeper("run").code == 0
    file = tmp_path / "report.html"
    assert f"page: {file}" in sweeper("report", "--html", str(file)).out
    text = said(file)
    assert "Nothing is overdue. All 4 conversations and 1 feedback row of the store were looked at." in text
    assert "1 run purged 2 conversations and 0 feedback rows; none failed, were refused" in text
    (note,) = store.execute("SELECT note FROM sweeper.checkpoints ORDER BY id DESC LIMIT 1")[0]
    assert " ".join(note.split()) in text
    assert "sweeper audit verify --checkpoint checkpoint.txt" in text


def test_nothing_private(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Of what people wrote, of accounts and of the matter of a hold nothing is on the page."""
    store.load(mixed())
    store.execute("UPDATE messages SET body = 'somebody@example.org secret words'")
    file = tmp_path / "report.html"
    assert sweeper("report", "--html", str(file)).code == 0
    page = file.read_text()
    for private in ("secret", "example.org", str(store.id("a1")), str(store.id("a2")), "matter 1"):
        assert private not in page


def test_alarm(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Where the report exits with 1, the page is written, and its verdict is bad."""
    store.load(world(due(27)))
    file = tmp_path / "report.html"
    assert sweeper("report", "--html", str(file)).code == 1
    assert 'class="verdict bad"' in file.read_text()
    assert "NOTHING WAS PURGED WHILE 1 CONVERSATIONS ARE OVERDUE" in said(file)
    assert "No run has completed yet." in said(file)


@pytest.mark.parametrize("name", ["missing/report.html", "folder"])
def test_file_that_cannot_be_written(sweeper: Command, store: Store, tmp_path: Path, name: str) -> None:
    """It is refused before anything is read: nothing is printed or recorded."""
    (tmp_path / "folder").mkdir()
    done = sweeper("report", "--html", str(tmp_path / name))
    assert (done.code, done.out) == (2, "")
    assert "Nothing was written. Name a" in done.err
    assert store.execute("SELECT count(*) FROM sweeper.events WHERE kind = 'reported'") == [(0,)]
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_report_that_failed(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """A report that cannot be made leaves the page of the last one, and nothing beside it."""
    file = tmp_path / "report.html"
    file.write_text("old")
    store.execute("ALTER TABLE store.feedback RENAME TO elsewhere")
    assert sweeper("report", "--html", str(file)).code != 0
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


def test_rule_that_redacts(store: Store, tmp_path: Path) -> None:
    """Content that should have been redacted is overdue as well, though no conversation has to go."""
    store.load(world(due(-9 * DAY)))
    (tmp_path / "policy.toml").write_text(Path(POLICY).read_text() + RULE)
    (tmp_path / "sweeper.toml").write_text(CONFIG)
    settings = {"SWEEPER_CONFIG": "sweeper.toml", "SWEEPER_POLICY_FILE": "policy.toml"}
    variables = {name: str(tmp_path / path) for name, path in settings.items()}
    file = tmp_path / "report.html"
    done = in_process(store.acting("postgres"), "report", "--html", str(file), **variables)
    assert (done.code, "NOTHING WAS REDACTED WHILE 1 REDACTIONS ARE OVERDUE" in done.err) == (1, True)
    assert "0 conversations, 1 redaction and 0 feedback rows are overdue" in said(file)
    assert [row[:3] for row in table(file.read_text(), "Overdue")] == [["redactions", "content", "1"]]
