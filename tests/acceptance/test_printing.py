"""Whatever stands in the store, in a file or in an argument: neither stream carries what a terminal would obey."""

import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import log
from sweeper.errors import RefusedError, SweeperError, printable
from tests.acceptance.commands import Command, Done, in_process
from tests.acceptance.test_streams import on_terminal
from tests.facts import World
from tests.manifest import made
from tests.store.stores import Store

ROOT = Path(__file__).parents[2]
NASTY = "x\x1b[2J\r\nrun closed\u202e\u2028\u0085\u200b[red]y[/red] [link=http://z]"
"""Clears the screen, forges a line, turns the direction round, hides a character, and is markup for rich."""
SHOWN = r"x\x1b[2J\r\nrun closed\u202e\u2028\x85\u200b[red]y[/red] [link=http://z]"


def refused_by_a_terminal(text: str) -> set[str]:
    """The characters in a text that are neither to be read nor the line breaks of the program itself."""
    return {c for c in text if not c.isprintable() and c != "\n" and unicodedata.category(c) != "Zs"}


def test_printable() -> None:
    """Each character that is none to read is shown as its escape; what people write stays, in every script."""
    assert printable(NASTY) == SHOWN
    assert printable("\0\t\x7f\x9b\ud800\ufeff\U000e0041") == r"\x00\t\x7f\x9b\ud800\ufeff\U000e0041"
    for text in ("Müller ✓ 3\u00a0€", "事件\u3000二", "قضية", "👩🏽 naïve", r"C:\new \x1b"):
        assert printable(text) == text


@given(st.text(st.characters()))
def test_any_text_is_one_line(text: str) -> None:
    """What comes out is one line of characters to read, and filtering it again changes nothing."""
    found = printable(text)
    assert refused_by_a_terminal(found) == set()
    assert "\n" not in found
    assert printable(found) == found


def test_errors() -> None:
    """An error's lines are those that the program wrote, whatever they quote."""
    assert str(SweeperError(f"a {NASTY}", "b")).split("\n") == [f"a {SHOWN}", "b"]
    refusal = RefusedError("paused", f"{NASTY}.", "", "Resume.")
    assert str(refusal) == f"{SHOWN}. Nothing was purged. Resume."
    assert refusal.as_json()["found"] == f"{SHOWN}."


def test_one_way_out() -> None:
    """Only two files write to a stream: what the commands say, and the log."""
    writers = re.compile(r"\.(?:stdout|stderr)\.write|\becho\(|(?<![\w. ])print\(|Console\(")
    found = {f.name for f in (ROOT / "sweeper").rglob("*.py") if writers.search(f.read_text())}
    assert found == {"console.py", "progress.py"}


def nasty_world() -> World:
    """A world in which every text that the store may hold is nasty."""
    account = {
        "id": f"a{NASTY}",
        "plans": [
            {"effective_at": "2024-01-01T00:00:00Z", "plan": "pro"},
            {"effective_at": "2026-03-01T00:00:00Z", "plan": NASTY},
        ],
        "consent": [
            {"recorded_at": "2026-01-01T00:00:00Z", "granted": True},
            {"recorded_at": "2026-01-01T00:00:00Z", "granted": True, "purpose": NASTY},
        ],
    }
    chats: list[dict[str, Any]] = [
        {"id": f"{name}{NASTY}", "created_at": "2026-01-01T00:00:00Z", "last_activity_at": "2026-01-02T00:00:00Z"}
        for name in ("kept", "held", "due", "stuck")
    ]
    chats[0] |= {"kind": NASTY, "platform": NASTY}
    chats[2] |= {"incognito": True}
    chats[3] |= {"incognito": True}
    message = {"author": NASTY, "created_at": "2026-01-02T00:00:00Z"}
    return {
        "accounts": [account],
        "conversations": [
            {"account": account["id"], "messages": [{**message, "id": f"m{chat['id']}"}], **chat} for chat in chats
        ],
        "feedback": [
            {"id": f"f{NASTY}", "account": account["id"], "kind": NASTY, "submitted_at": "2026-01-01T00:00:00Z"}
        ],
        "holds": [],
        "orders": [],
    }


STUCK = """
CREATE FUNCTION store.stuck() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.id LIKE 'stuck%' THEN RAISE EXCEPTION '%', OLD.id; END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER stuck BEFORE DELETE ON store.conversations FOR EACH ROW EXECUTE FUNCTION store.stuck()
"""


@pytest.fixture
def nasty(store: Store) -> Store:
    """A store of that world, in which one row cannot be deleted and the server says so in its words."""
    store.load(nasty_world())
    store.execute(STUCK)
    return store


@pytest.fixture
def sweeper(nasty: Store) -> Command:
    """A command on that store, of which neither stream may carry anything that a terminal would obey."""

    def clean(*words: str, **variables: str) -> Done:
        done = in_process(nasty, *words, **variables)
        for stream in (done.out, done.err):
            assert refused_by_a_terminal(stream) == set(), words
            assert not re.search("^run closed", stream, re.MULTILINE), words
        return done

    return clean


@pytest.mark.parametrize("store", ["text"], indirect=True)
def test_every_command(sweeper: Command, nasty: Store, tmp_path: Path) -> None:
    """Every command that prints shows the same id, matter, reference, reason and plan as its escapes."""
    key, ledger, receipt = tmp_path / "signing.pem", tmp_path / "ledger.jsonl", tmp_path / "receipt.json"
    key.write_text(SIGNING_KEY)
    signed = {"SWEEPER_SIGNING_KEY_FILE": str(key)}
    kept, held, due = (f"{name}{NASTY}" for name in ("kept", "held", "due"))
    assert r"x\x1b[2J\r\nrun" in sweeper("hold", "place", NASTY, "--conversation", held).out
    sweeper("hold", "list")
    sweeper("order", "add", NASTY, "--account", f"a{NASTY}", "--due", "2099-01-01T00:00:00Z")
    sweeper("order", "add", f"{NASTY}2", "--conversation", kept)
    sweeper("order", "list")
    sweeper("check")
    told = sweeper("explain", kept).out
    assert f"Conversation kept{SHOWN}, at" in told
    sweeper("explain", held, "--what-if", "opt-out")
    assert f"due{SHOWN}" in sweeper("explain", "--all").out
    assert f"nobody{SHOWN}" in sweeper("explain", f"nobody{NASTY}").err
    for words in (["report"], ["status"], ["run", "--dry-run"], ["backfill", *PERIOD, "--dry-run"]):
        for form in ([], ["--json"]):
            sweeper(*words, *form)
    assert SHOWN in sweeper("pause", "--reason", NASTY).out
    assert SHOWN in sweeper("run").err
    assert SHOWN in json.loads(sweeper("run", "--json").out)["text"]
    for command in ("status", "resume", "run"):
        sweeper(command, **signed)
    assert "stuck" in sweeper("run").err
    assert f"Conversation due{SHOWN} was PURGED" in sweeper("explain", due).out
    page = tmp_path / "account.html"
    assert f"Account a{SHOWN}, store" in sweeper("account", f"a{NASTY}", "--html", str(page)).out
    assert refused_by_a_terminal(page.read_text()) == set()
    for output in ("table", "json", "yaml", "csv"):
        sweeper("account", f"a{NASTY}", "--output", output)
        sweeper("account", f"a{NASTY}", "--purged", "--output", output)
    assert (
        f"The conversation due{SHOWN} was purged" in sweeper("audit", "prove", due, "--out", str(receipt), **signed).out
    )
    sweeper("audit", "prove", due, **signed)
    assert SHOWN in sweeper("audit", "prove", NASTY, **signed).err
    for words in (["checkpoint"], ["verify"], ["key"], ["export", str(ledger)]):
        sweeper("audit", *words, **signed)
    nasty.execute("DELETE FROM sweeper.legal_holds")
    assert SHOWN in sweeper("reapply", "--ledger", str(ledger), "--dry-run", **signed).err
    sweeper("hold", "place", NASTY, "--everything")
    sweeper("hold", "release", NASTY)
    sweeper("status")
    sweeper("report", "--textfile", str(tmp_path / "sweeper.prom"))
    assert refused_by_a_terminal((tmp_path / "sweeper.prom").read_text()) == set()


PERIOD = ("--since", "2026-01-01T00:00:00Z", "--until", "2026-06-01T00:00:00Z")
SIGNING_KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("store", ["text"], indirect=True)
def test_machines(sweeper: Command, nasty: Store) -> None:
    """JSON is ASCII whose own escapes tell every character, so that what is read is what is stored."""
    sweeper("hold", "place", NASTY, "--conversation", f"held{NASTY}")
    for words in (["hold", "list"], ["explain", f"kept{NASTY}"], ["explain", "--all"], ["run"], ["status"]):
        done = sweeper(*words, "--json")
        assert done.out.isascii()
        for line in done.out.splitlines():
            json.loads(line)
        for line in done.err.splitlines():
            assert line.isascii()
            json.loads(line)
    assert json.loads(sweeper("hold", "list", "--json").out)[0]["matter"] == NASTY
    assert json.loads(sweeper("explain", f"kept{NASTY}", "--json").out)["conversation_id"] == f"kept{NASTY}"


@pytest.mark.parametrize(
    "words",
    [
        [NASTY],
        ["run", NASTY],
        ["run", f"--{NASTY}"],
        ["run", "--as-of", NASTY],
        ["run", "--config", NASTY],
        ["run", "--max-runtime", NASTY],
        ["run", "--max-purge", NASTY],
        ["run", "--approve", NASTY],
        ["explain", "x", "--what-if", NASTY],
        ["audit", "check-receipt", NASTY, "--key", NASTY],
        ["audit", "verify", "--checkpoint", NASTY],
        ["manifest", "verify", NASTY],
        ["manifest", "start", NASTY],
        ["serve", "--listen", NASTY],
    ],
    ids=lambda words: " ".join(map(printable, words))[:40],
)
def test_arguments(words: list[str], sweeper: Command) -> None:
    """What was typed is quoted as its escapes, by the parser of the command line too."""
    done = sweeper(*words)
    assert done.code in (1, 2)
    assert done.err


@pytest.mark.parametrize("store", ["text"], indirect=True)
def test_manifests(sweeper: Command, nasty: Store, tmp_path: Path) -> None:
    """A manifest's directory and what is said of it are shown as escapes."""
    nasty.wipe()
    nasty.load(made.world())
    folder = tmp_path / NASTY.replace("/", "")
    key = {"SWEEPER_PSEUDONYM_KEY": "Xk3vQ0pT7mZr9bYw2LdNfHs5JgCa8EuVti1oRnBq"}
    built = json.loads(sweeper("manifest", "build", str(folder), "--as-of", made.AS_OF, "--json", **key).out)
    for words in (
        ["list"],
        ["verify", str(folder)],
        ["start", built["id"]],
        ["recall"],
        ["verify", str(tmp_path / NASTY)],
    ):
        sweeper("manifest", *words, **key)
    assert r"\u202e" in sweeper("manifest", "list").out


@pytest.mark.parametrize("store", ["text"], indirect=True)
def test_log_on_a_terminal(nasty: Store) -> None:
    """The log's lines for a terminal show ids and what the server said as escapes; the colours are the program's own."""
    code, seen = on_terminal(nasty, "run")
    assert code == 1
    own = re.sub(r"\x1b\[(?:[0-9;]*m|2K|1A|\?25[lh])|\r", "", seen)
    assert refused_by_a_terminal(own) == set()
    assert not re.search("^run closed", own, re.MULTILINE)
    assert re.search(r"reason='?stuckx\\+x1b\[2J\\+r\\+nrun", own)


def test_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of the program's own, which ends in a traceback, is told through the filter too."""
    import sys

    from sweeper import console

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    console.secure_streams()
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert refused_by_a_terminal(said) == set()
    assert r"\u202e" in said


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_log_line() -> None:
    """Each text of a log line for a terminal passes the filter, the event's own name and a key too."""
    stream = Terminal()
    log.configure(stream=stream)
    log.get().warning(f"event {NASTY}", **{f"key {NASTY}": NASTY, "many": [NASTY], "told": {NASTY: NASTY}})
    own = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert refused_by_a_terminal(own) == set()
    assert own.count("\n") == 1
    assert f"event {SHOWN}" in own
