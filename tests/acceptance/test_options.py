"""What the program takes before any command, how its help looks on a terminal of 80 columns, and `check --strict`."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml

from sweeper.cli import app
from sweeper.errors import printable
from tests.acceptance.commands import Command, in_process
from tests.acceptance.test_cli import case
from tests.store.stores import Store

WIDTH = 80


def every_command(command: Any = None, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of the program, of each group and of each command."""
    command = command or typer.main.get_command(app)
    yield words
    for name, inner in (getattr(command, "commands", None) or {}).items():
        yield from every_command(inner, *words, name)


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_help_fits_a_terminal(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a help is longer than a terminal is wide, and no summary of a command is cut off."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    lines = in_process(None, *words, "--help").out.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    assert [line for line in lines if line.endswith("...") and not line.startswith("Usage:")] == []


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ((), {"info", "warning"}),
        (("-q",), {"warning"}),
        (("-v",), {"debug", "info", "warning"}),
        (("--log-level", "error"), set()),
        (("--log-level", "debug"), {"debug", "info", "warning"}),
    ],
)
def test_log_level(options: tuple[str, ...], levels: set[str], sweeper: Command, store: Store) -> None:
    """The global options choose what is logged to stderr; the result on stdout stays what it is."""
    store.execute("CREATE FUNCTION store.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'")
    store.execute(
        "CREATE TRIGGER keep BEFORE DELETE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.keep()"
    )  # which a run warns of
    done = sweeper(*options, "run", "--json")
    assert (done.code, json.loads(done.out)["outcome"]) == (0, "completed")
    assert {json.loads(line)["level"] for line in done.err.splitlines() if line.startswith("{")} == levels


def test_log_levels_exclude_each_other(sweeper: Command) -> None:
    """Two options that say different things are a usage error."""
    done = sweeper("-q", "--log-level", "debug", "status")
    assert (done.code, done.out) == (2, "")
    assert "one of -q, -v and --log-level" in done.err


def test_quiet(sweeper: Command, store: Store) -> None:
    """With -q a command prints what was asked for, and no notes."""
    for number, options in enumerate(([], ["-q"])):
        assert sweeper("order", "add", f"DSR-{number}", "--unknown", "--account", str(store.id("a1"))).code == 0
        done = in_process(store.instead("officer"), *options, "order", "withdraw", f"DSR-{number}")
        assert (done.code, f"DSR-{number}" in done.out, "They erase nothing more" in done.out) == (0, True, not options)


def test_strict_check(sweeper: Command, store: Store) -> None:
    """A store with nothing but warnings passes `check` and fails `check --strict`, which prints the same."""
    loose, strict = sweeper("check", "--json"), sweeper("check", "--strict", "--json")
    assert {finding["level"] for finding in json.loads(loose.out)} == {"ok", "warning"}
    assert (loose.code, strict.code) == (0, 1)
    assert json.loads(strict.out) == json.loads(loose.out)


def flat(value: Any, path: str = "") -> dict[str, str]:
    """What CSV shows of a value of JSON, by path."""
    if isinstance(value, dict) and value:
        return {p: text for key, each in value.items() for p, text in flat(each, f"{path}.{key}".strip(".")).items()}
    return {path: printable(value) if isinstance(value, str) else "" if value is None else json.dumps(value)}


def test_output_of_lists(sweeper: Command, store: Store) -> None:
    """A list is the same in JSON, YAML and CSV, whatever its texts look like, and `--output json` is `--json`."""
    store.load(case("opt-out: thirty days later"))
    for matter in ("12e3", "no", 'a, "b"\nc', "=1+1", "\u2028é"):
        assert sweeper("hold", "place", matter, "--everything").code == 0
    account = str(store.id("a1"))
    assert sweeper("plan", "record", account, "pro", "--unknown").code == 0
    for words in ("hold list", "order list", "explain --all", "check --no-trial", f"plan list {account}"):
        command = words.split()
        out = sweeper(*command, "--json").out
        assert sweeper(*command, "--output", "json").out == out
        rows = [json.loads(line) for line in out.splitlines()] if "--all" in command else json.loads(out)
        assert yaml.safe_load(sweeper(*command, "--output", "yaml").out) == rows
        assert list(csv.DictReader(io.StringIO(sweeper(*command, "--output=csv").out))) == list(map(flat, rows))
        assert bool(rows) is (words != "order list")
    assert 'matter: "12e3"' in sweeper("hold", "list", "--output", "yaml").out  # which other parsers take for a number


def test_output_of_objects(sweeper: Command, store: Store) -> None:
    """An object has one line a value in CSV, with its path, those of lists too; the exit code stays what it is."""
    store.load(case("opt-out: thirty days later"))
    assert sweeper("run").code == 0
    found = json.loads(sweeper("audit", "verify", "--json").out)
    assert yaml.safe_load(sweeper("audit", "verify", "--output", "yaml").out) == found
    lines = sweeper("audit", "verify", "--output", "csv").out.splitlines()
    assert lines[0] == "name,value"
    assert {line.split(",")[0] for line in lines[1:]} >= {"leaves", "compared.runs"}
    runs = [line for line in sweeper("status", "--output", "csv").out.splitlines() if line.startswith("runs.0.")]
    assert "runs.0.outcome,completed" in runs


def test_output_of_errors(sweeper: Command, store: Store) -> None:
    """An error is a document in YAML as in JSON; a table of CSV has no place for one. --json contradicts all but JSON."""
    texts = {output: sweeper("hold", "release", "none", "--output", output) for output in ("json", "yaml", "csv")}
    assert {done.code for done in texts.values()} == {1}
    assert yaml.safe_load(texts["yaml"].out) == json.loads(texts["json"].out)
    assert texts["csv"].out == ""
    for words in ("--json --output csv", "--output=table --json"):
        done = sweeper("hold", "list", *words.split())
        assert (done.code, json.loads(done.out)["exit_code"], "contradicts --json" in done.err) == (2, 2, True)
    assert sweeper("hold", "list", "--output", "json", "--json").code == 0


def test_every_command_has_both_options() -> None:
    """What prints JSON prints the other formats too, except for the daemon's lines."""
    for words in every_command():
        command = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" not in options or "--output" in options or words == ("serve",), words
