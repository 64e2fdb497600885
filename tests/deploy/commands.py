"""Whether the command line takes the words that a deployment gives it, and which names of the environment it knows.

Invariant: nothing runs. The words go through the program's own parser, and a stand-in is called for the command.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import typer

import sweeper
from sweeper.cli import app


def refusal(words: Sequence[str]) -> str:
    """What the program says against these words after its name; "" if it takes them."""
    reached: list[str] = []
    root = typer.main.get_command(app)
    for name, command in _leaves(root):
        command.callback = _standing_in(name, reached)
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(said):
        try:
            root.main(list(words), prog_name="sweeper")
        except SystemExit as ended:
            if ended.code in (0, None) and reached:
                return ""
    return said.getvalue().strip() or "no command was reached"


def known_names() -> frozenset[str]:
    """The names of environment variables that the program's source speaks of."""
    sources = Path(sweeper.__file__).parent.rglob("*.py")
    return frozenset(name for file in sources for name in re.findall(r"\"(SWEEPER_[A-Z_]+)\"", file.read_text()))


def _leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, each in inner.items():
        yield from _leaves(each, f"{name} {word}".strip())


def _standing_in(name: str, reached: list[str]) -> Callable[..., None]:
    def note(**_: object) -> None:
        reached.append(name)

    return note
