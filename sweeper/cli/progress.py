"""Show a progress bar with rate and remaining time, on a terminal only, and not with -q.

    with progress.counted("leaves") as told:
        export.write(database, file, told)

A function that may take long takes a `log.Told` and calls it now and then; `watched` is the same for runs and previews.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sweeper import console, log
from sweeper.log import Told, safe_stream
from sweeper.runs.throttle import ProgressListener


class _Count(MofNCompleteColumn):
    """Done and expected, once that many are known."""

    def render(self, task: Task) -> Text:
        if task.total is not None:
            return Text(f"{task.completed:,.0f}/{task.total:,.0f}")
        return Text(f"{task.completed:,.0f}" if task.completed else "")


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s")


def is_watched() -> bool:
    """Return whether stderr is a terminal, so that a progress bar is shown."""
    return safe_stream().isatty() and not console.is_quiet()


class _Remaining(ProgressColumn):
    """The time that the rest takes if it goes on as before the step that runs."""

    def render(self, task: Task) -> Text:
        done, elapsed = task.fields["done"], task.elapsed or 0.0
        if not done:
            return Text(f"{elapsed:,.0f} s")
        rest = max(task.fields["since"] / done - elapsed, 0.0)
        return Text(f"{elapsed:,.0f} s, about {rest:,.0f} s left")


@contextmanager
def steps() -> Iterator[Callable[[str, float], None]]:
    """Yield a listener of steps that draws their progress on stderr if that is a terminal.

    It is called when a step begins, with its name and the share of all work that is done by then.
    """
    if not is_watched():
        yield lambda _, __: None
        return
    stderr = Console(file=safe_stream(sys.stderr))
    columns = (TextColumn("{task.description}"), BarColumn(), _Remaining())
    with Progress(*columns, console=stderr, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=1.0, done=0.0, since=0.0)

        def begin(name: str, done: float) -> None:
            since = progress.tasks[0].elapsed or 0.0
            progress.update(task, description=name, completed=done, done=done, since=since)

        yield begin


@contextmanager
def _bar(noun: str) -> Iterator[Progress]:
    """Draw a bar with one task, number 0, on stderr; log lines appear above it."""
    columns = (
        TextColumn(noun),
        BarColumn(),
        _Count(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", markup=False),
    )
    stderr = Console(file=safe_stream(sys.stderr))
    with Progress(*columns, console=stderr, transient=True, redirect_stdout=False) as progress:
        progress.add_task(noun, total=None, waits="")
        yield progress


@contextmanager
def counted(noun: str) -> Iterator[Told]:
    """Yield a function to tell how many of something are done; it draws a bar if stderr is a terminal."""
    if not is_watched():
        yield log.untold
        return
    with _bar(noun) as progress:
        yield lambda done, total: progress.update(progress.task_ids[0], completed=done, total=total)


@contextmanager
def watched() -> Iterator[ProgressListener]:
    """Yield a listener for a run or a preview, which draws a bar if stderr is a terminal."""
    if not is_watched():
        yield ProgressListener()
        return
    with _bar("conversations") as progress:
        (task,) = progress.task_ids
        yield ProgressListener(
            expect=lambda count: progress.update(task, total=count, waits=""),
            advance=lambda count: progress.advance(task, count),
            waits=lambda reason: progress.update(task, waits=f"waits: {reason}" if reason else ""),
            proposes=lambda number, found: progress.update(
                task, waits=f"searching range {number} of accounts and orders for what is due: {found:,} found so far"
            ),
        )
