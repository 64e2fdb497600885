"""What the program takes before any command, how its help looks on a terminal of 80 columns, and `check --strict`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from sweeper.cli import app
from tests.acceptance.commands import Command, in_process
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


def test_strict_check(sweeper: Command, store: Store) -> None:
    """A store with nothing but warnings passes `check` and fails `check --strict`, which prints the same."""
    loose, strict = sweeper("check", "--json"), sweeper("check", "--strict", "--json")
    assert {finding["level"] for finding in json.loads(loose.out)} == {"ok", "warning"}
    assert (loose.code, strict.code) == (0, 1)
    assert json.loads(strict.out) == json.loads(loose.out)
