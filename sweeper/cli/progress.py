"""Show a progress bar with rate and remaining time, on a terminal only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sweeper.log import safe_stream
from sweeper.runs.throttle import ProgressListener


class _Rate(ProgressColumn):
    """Conversations a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s")


def is_watched() -> bool:
    """Return whether stderr is a terminal, so that a progress bar is shown."""
    return safe_stream().isatty()


@contextmanager
def watched() -> Iterator[ProgressListener]:
    """Yield a listener that draws a progress bar on stderr if that is a terminal; log lines appear above the bar."""
    if not is_watched():
        yield ProgressListener()
        return
    columns = (
        TextColumn("conversations"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", markup=False),
    )
    console = Console(file=safe_stream(sys.stderr))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("sweep", total=None, waits="")
        yield ProgressListener(
            expect=lambda count: progress.update(task, total=count),
            advance=lambda count: progress.advance(task, count),
            waits=lambda reason: progress.update(task, waits=f"waits: {reason}" if reason else ""),
        )
