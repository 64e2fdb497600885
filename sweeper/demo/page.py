"""What the demo prints: headings, explanations, and the program's own commands with what they answer."""

import contextlib
import sys
import textwrap

import typer

from sweeper import console
from sweeper.cli import app
from sweeper.errors import SweeperError


def command(*arguments: str) -> None:
    """Show a command and run it, as if typed."""
    console.say("", f"$ sweeper {' '.join(arguments)}")
    sys.stdout.flush()
    try:
        with contextlib.suppress(typer.Exit):
            app(list(arguments), standalone_mode=False)
    except console.OutputError:
        raise
    except SweeperError as error:
        console.say(*f"sweeper: {error}".split("\n"))


def heading(title: str) -> None:
    """Print a heading."""
    console.say("", title, "=" * len(title))


def explain(words: str) -> None:
    """Print a paragraph."""
    console.say(*textwrap.wrap(words, width=100))
