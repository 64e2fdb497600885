"""The command line as a person uses it, in this process or as one of its own."""

import io
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


PEOPLE = {**dict.fromkeys(("hold", "order", "plan", "consent"), "officer"), "migrate": "postgres"}
"""Who runs a command that is not the job's."""


def environment(store: Store | None, *words: str, **variables: str) -> dict[str, str]:
    """The environment of a command on a store, for the job or for whoever runs such a command."""
    found = {"SWEEPER_POLICY_FILE": stores.POLICY, **variables}
    if store is None:
        return found
    person = PEOPLE.get(words[0]) if words else None
    return {"SWEEPER_DATABASE_URL": (store.instead(person) if person else store).url, **found}


def in_process(store: Store | None, *words: str, **variables: str) -> Done:
    """A command through the program's own entry."""
    with pytest.MonkeyPatch.context() as patched, _Text() as out, _Text() as err:
        for name in list(os.environ):
            if name.startswith("SWEEPER_"):
                patched.delenv(name)
        for name, value in environment(store, *words, **variables).items():
            patched.setenv(name, value)
        patched.setattr(sys, "argv", ["sweeper", *words])
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, out.text(), err.text())


class _Text(io.TextIOWrapper):
    """A standard stream that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="", write_through=True)

    def text(self) -> str:
        """What was written."""
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


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
