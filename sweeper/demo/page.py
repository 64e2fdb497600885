"""What the demo prints: headings, explanations, and the program's own commands with what they answer."""

import contextlib
import sys
import textwrap

import typer

from sweeper.cli import app, output
from sweeper.errors import SweeperError


def command(*arguments: str) -> None:
    """Show a command and run it, as if typed."""
    output.say("", f"$ sweeper {' '.join(arguments)}")
    sys.stdout.flush()
    try:
        with contextlib.suppress(typer.Exit):
            app(list(arguments), standalone_mode=False)
    except output.OutputError:
        raise
    except SweeperError as error:
        output.say(*f"sweeper: {error}".split("\n"))


def heading(title: str) -> None:
    """Print a heading."""
    output.say("", title, "=" * len(title))


def explain(words: str) -> None:
    """Print a paragraph."""
    output.say(*textwrap.wrap(words, width=100))
