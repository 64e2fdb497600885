"""stdout and stderr as they are in the field: closed, full, gone, not UTF-8, or a terminal. Real processes throughout."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.postgres import migrate
from tests.acceptance.commands import Command, Done, environment, process
from tests.acceptance.test_cli import case
from tests.processes import started
from tests.store import stores
from tests.store.stores import Store

DUE = case("opt-out: thirty days later")


def shell(store: Store, words: str, redirection: str, **variables: str) -> Done:
    """A command as a process whose streams the shell redirects; `$?` of the command itself is the code."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m sweeper.cli {words} {redirection}"],
        env={**os.environ, **environment(store, *words.split(), **variables)},
        capture_output=True,
        text=True,
        errors="replace",
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">&-", ">/dev/full", "| true"])
def test_a_stream_that_cannot_be_written_stops_no_sweep(redirection: str, store: Store) -> None:
    """A run whose log or answer cannot be written purges, closes its record and exits 0."""
    store.load(DUE)
    done = shell(store, f"run --as-of {DUE['as_of']}", redirection)
    assert (done.code, "Traceback" in done.err) == (0, False)
    assert store.execute("SELECT outcome, result->>'purged' FROM sweeper.runs") == [("completed", "1")]
    assert ("is done and recorded all the same" in done.err) is (redirection in (">&-", ">/dev/full"))


@pytest.mark.parametrize("words", ["check", "explain --all", "hold list", "run --dry-run", "--help"])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_an_answer_that_is_lost_is_a_failure(words: str, redirection: str, store: Store) -> None:
    """A command that only answers exits 1, and says in one line that stdout cannot be written."""
    done = shell(store, words, redirection)
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert done.err.count("stdout cannot be written") == 1


def test_what_is_placed_stays_placed(store: Store) -> None:
    """A hold whose answer cannot be written is in force, and the exit code says so."""
    done = shell(store, "hold place CASE-1 --everything", ">/dev/full")
    assert (done.code, "is done and recorded all the same" in done.err) == (0, True)
    assert store.execute("SELECT matter FROM sweeper.legal_holds") == [("CASE-1",)]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding(encoding: str, store: Store) -> None:
    """What stdout cannot encode is printed as an escape; nothing that is done fails for it."""
    store.execute("DROP SCHEMA sweeper CASCADE")
    done = process(store, "migrate", PYTHONIOENCODING=encoding)
    assert (done.code, rf"none \u2192 {migrate.HEAD}" in done.out, done.err) == (0, True, "")
    store.execute(stores.ROLES)
    store.execute("DROP TABLE attachments")
    assert r"\u2192" in process(store, "check", PYTHONIOENCODING=encoding).out
    placed = shell(store, "hold place 'Müller ✓' --everything", "", PYTHONIOENCODING=encoding)
    assert (placed.code, placed.err) == (0, "")
    assert store.execute("SELECT matter FROM sweeper.legal_holds") == [("Müller ✓",)]


def test_markup_and_control_characters(sweeper: Command, store: Store) -> None:
    """A matter is printed as it is written: no markup, and as an escape what a terminal would obey."""
    for matter in ("[/foo] v. Bar", "[red]x[/red]", "a\x1b[31mb\nc"):
        assert sweeper("hold", "place", matter, "--everything").code == 0
        assert sweeper("order", "add", matter, "--unknown", "--account", str(store.id("a"))).code == 0
    for words in (["hold", "list"], ["order", "list"], ["hold", "release", "[/foo] v. Bar"]):
        done = sweeper(*words)
        assert (done.code, done.err, "\x1b" in done.out) == (0, "", False)
        assert "[/foo] v. Bar" in done.out
    listed = sweeper("hold", "list").out
    assert "[red]x[/red]" in listed
    assert r"a\x1b[31mb\nc" in listed
    machine = json.loads(sweeper("hold", "list", "--json").out)
    assert machine[0]["matter"] == "a\x1b[31mb\nc"


def on_terminal(store: Store, *words: str, **variables: str) -> tuple[int, str]:
    """A command whose stderr is a terminal: its exit code and what came there."""
    ours, theirs = pty.openpty()
    with started(
        [sys.executable, "-m", "sweeper.cli", *words],
        env={**os.environ, **environment(store), "TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1", **variables},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65_536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not chunk:
                break
            seen += chunk
        code = running.wait()
    os.close(ours)
    return code, seen.decode()


def test_log_lines_stand_above_the_bar(store: Store) -> None:
    """On a terminal a log line begins a line of its own, and the bar is drawn again below it."""
    store.load(DUE)
    code, seen = on_terminal(store, "run", "--as-of", DUE["as_of"])
    assert code == 0
    assert "conversations" in seen
    for line in seen.split("\n"):
        last = line.rsplit("\x1b[2K", 1)[-1]  # what was drawn before is wiped
        assert not ("run closed" in last and "/s" in last)
        if "run closed" in last:
            assert re.match(r"\r?(\x1b\[2m)?20\d\d-", last)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": ""}, {"NO_COLOR": "", "TERM": "dumb"}], ids=str)
def test_colours(variables: dict[str, str], store: Store) -> None:
    """The log is in colour on a terminal, beside a bar and without, not with NO_COLOR, and not on a terminal that knows none."""
    for words in (["run"], ["-v", "status"]):
        code, seen = on_terminal(store, *words, **variables)
        coloured = re.search(r"\x1b\[(?:\d+;)*3\d", seen) is not None
        assert (code, "info" in seen or "debug" in seen, coloured) == (0, True, variables == {"NO_COLOR": ""})


def test_long_work_shows_progress(store: Store, tmp_path: Path) -> None:
    """On a terminal a bar counts what is done to the number of all, in the work's own unit; with -q there is none."""
    store.load(DUE)
    assert process(store, "run", "--as-of", DUE["as_of"]).code == 0
    for words in (["audit", "verify"], ["audit", "export", str(tmp_path / "ledger.jsonl")]):
        code, seen = on_terminal(store, *words)
        assert (code, re.search(r"leaves .*\b([1-9]\d*)/\1\b", seen) is not None) == (0, True)
    code, seen = on_terminal(store, "-q", "audit", "verify")
    assert (code, "leaves" in seen.replace("leaves;", "")) == (0, False)


def test_a_preview_knows_how_much_there_is(store: Store) -> None:
    """On a terminal the bar of a preview counts to the number of proposals, and not to an unknown number before."""
    store.load(DUE)
    code, seen = on_terminal(store, "run", "--dry-run", "--as-of", DUE["as_of"])
    assert (code, "1/1" in seen, "/?" in seen) == (0, True, False)


def test_help_is_instant() -> None:
    """`sweeper --help` imports none of what the commands work with."""
    script = (
        "import sys, sweeper.cli; print([m for m in sys.modules if m.split('.')[0] in "
        "('sqlalchemy', 'pydantic', 'psycopg', 'alembic', 'rich', 'structlog', 'fsspec')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_steps_of_a_look_at_the_whole_store(store: Store) -> None:
    """On a terminal the steps are named while they run, with the time that is left; nothing of them remains."""
    store.load(DUE)
    code, seen = on_terminal(store, "forecast")
    assert code == 0
    assert "counting" in seen
    assert re.search(r"\d s, about \d s left", seen)
    assert seen.rpartition("\x1b[2K")[2].strip() == ""
