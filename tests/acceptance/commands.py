"""The command line as a person uses it, in this process or as one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeper import cli
from tests.store import stores
from tests.store.stores import Store


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


PEOPLE = {"hold": "officer", "order": "officer", "migrate": "postgres"}
"""Who runs a command that is not the job's."""


def environment(store: Store | None, *words: str, **variables: str) -> dict[str, str]:
    """The environment of a command on a store, for the job or for whoever runs such a command."""
    found = {"SWEEPER_POLICY_FILE": stores.POLICY, **variables}
    if store is None:
        return found
    person = PEOPLE.get(words[0]) if words else None
    return {"SWEEPER_DATABASE_URL": (store.instead(person) if person else store).url, **found}


def in_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: Store | None,
    *words: str,
    **variables: str,
) -> Done:
    """A command through the program's own entry."""
    for name in ("SWEEPER_CONFIG", "SWEEPER_DATABASE_URL", "SWEEPER_POLICY_FILE", "SWEEPER_STORE_SCHEMA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(store, *words, **variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["sweeper", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    code = ended.value.code
    return Done(code if isinstance(code, int) else 0 if code is None else 1, printed.out, printed.err)


def process(store: Store | None, *words: str, cwd: Path | None = None, **variables: str) -> Done:
    """A command as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "sweeper.cli", *words],
        env={**os.environ, **environment(store, *words, **variables)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)
