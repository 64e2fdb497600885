"""Prints the demo: headings, explanations, and commands of the program with their output."""

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweeper import console
from sweeper.console import OutputError
from sweeper.errors import SweeperError


@dataclass(frozen=True)
class DemoPage:
    """Prints the demo to stdout; `run` runs a command of the program, given its arguments."""

    run: Callable[[Sequence[str]], object]

    def command(self, *arguments: str) -> None:
        """Print a command, run it, and print its error if it fails."""
        console.say("", f"$ sweeper {' '.join(arguments)}")
        sys.stdout.flush()
        try:
            self.run(arguments)
        except OutputError:
            raise
        except SweeperError as error:
            console.say(*f"sweeper: {error}".split("\n"))

    def heading(self, title: str) -> None:
        """Print a heading."""
        console.say("", title, "=" * len(title))

    def explain(self, text: str) -> None:
        """Print a paragraph."""
        console.say(*textwrap.wrap(text, width=100))
