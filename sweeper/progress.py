"""A progress bar with rate and remaining time on a terminal, and nothing anywhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sweeper.sweep import Watch


class _Rate(ProgressColumn):
    """Conversations a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s")


@contextmanager
def watched(stopping: Callable[[], bool]) -> Iterator[Watch]:
    """A watch that draws on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield Watch(stopping=stopping)
        return
    columns = (TextColumn("conversations"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sweep", total=None)
        yield Watch(
            expect=lambda count: progress.update(task, total=count),
            advance=lambda count: progress.advance(task, count),
            stopping=stopping,
        )
