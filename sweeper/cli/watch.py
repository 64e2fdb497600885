"""`status --watch`: show how runs and backfills proceed, on a terminal of 80 columns or more, until Ctrl-C."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from sweeper import console
from sweeper.cli import context
from sweeper.cli.status import lag_text
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.policy.times import length, relative, when
from sweeper.postgres import database as databases
from sweeper.postgres import migrate
from sweeper.postgres.database import reason
from sweeper.report import numbers
from sweeper.report.live import Look, Replica, Watcher
from sweeper.report.operation import Progress, RunEntry

BAR = 30
"""Characters of the bar."""
MOST = 3
"""How many replicas, copies and backfills are shown."""
MEGABYTE = 1 << 20
Line = tuple[str, str]
"""A line and its style."""


def watch_status(config: Path | None, every: float, output: OutputFormat) -> None:
    """Show looks at the store every so many seconds, until Ctrl-C; the last one stays.

    Raises:
        ConfigurationError: stdout is no terminal, or data is asked for; or the sweeper's tables are missing.
    """
    if output.is_data or not console.is_live():
        raise ConfigurationError(
            "status --watch draws on a terminal, and stdout is none, or data is asked for: nothing was read. Programs call "
            "`sweeper status --json` as often as they need it."
        )
    with suppress(KeyboardInterrupt), context.configured(config) as settings:
        database = databases.connect(numbers.impatient(settings))
        try:
            migrate.refuse_other(migrate.revision(database))
            _watch(Watcher(database, context.CLOCK), every)
        finally:
            database.engine.dispose()


def _watch(watcher: Watcher, every: float) -> None:
    """Look again and again; while the database does not answer, show the last look and since when."""
    look, silence = watcher.look(), ""
    with console.live() as show:
        while True:
            show(_lines(look, silence))
            time.sleep(every)
            try:
                look, silence = watcher.look(), ""
            except DBAPIError as error:
                silence = f"since {when(look.at, watcher.clock.now())}: {reason(error)}"


def _lines(look: Look, silence: str) -> Iterator[Line]:
    """Yield the lines of one look."""
    yield f"{look.store} at {rfc3339(look.at.replace(microsecond=0))}; Ctrl-C ends", "bold"
    yield from _labelled("no answer", [silence] if silence else [], "bold red")
    yield from _labelled("paused", (f"since {when(p.paused_at, look.at)}: {p.reason}" for p in look.pauses), "bold red")
    yield from _labelled("at work", [_at_work(look)])
    if look.run is not None:
        yield from _labelled("done", [_done(look)])
        yield from _labelled("rate", [_rate(look)])
    yield from _labelled("now", [look.doing] if look.doing else [], "bold yellow")
    yield from _labelled("backfill", map(_backfill, look.backfills))
    yield from _labelled("load", look.load, "yellow")
    yield from _labelled("replica", map(_replica, look.replicas))
    yield from _labelled("copy", (f"{copy.copy}: {lag_text(copy)}" for copy in look.copies))
    yield from _labelled("ended", (_ended(run, look.at) for run in look.ended))


def _labelled(label: str, texts: Iterable[str], style: str = "") -> Iterator[Line]:
    """Yield the first texts, each with the label, and how many more there are."""
    listed = list(texts)
    yield from ((f"{label:<9} {text}", style) for text in listed[:MOST])
    if len(listed) > MOST:
        yield f"{label:<9} and {len(listed) - MOST:,} more", style


def _at_work(look: Look) -> str:
    run, holder = look.run, look.holder
    if run is None:
        return "a run that is about to begin" if holder is not None and holder.held else "no run"
    waiting = "; another run waits for its lease" if holder is not None and holder.wanted_at else ""
    return f"run {run.id} ({run.kind}), began {when(run.started_at, look.at)}{waiting}"


def _done(look: Look) -> str:
    left = look.left
    if look.run is not None and look.run.kind == "backfill":
        return f"{look.done:,} in this slice"
    if left is None:
        return f"{look.done:,}"
    share = look.done / (look.done + left) if look.done + left else 1.0
    bar = "#" * int(share * BAR)
    return f"{look.done:,} [{bar:.<{BAR}}] {share:.0%}, {left:,} left"


def _rate(look: Look) -> str:
    now = "-" if look.rate is None else f"{look.rate:,.0f}"
    average = "-" if look.average is None else f"{look.average:,.0f}"
    rest = look.remaining_seconds
    return f"{now}/s now, {average}/s since it began{f'; {length(rest)} left' if rest is not None else ''}"


def _backfill(progress: Progress) -> str:
    plan = progress.plan
    done = f"{progress.purged:,} of {plan.expected:,} purged ({progress.share:.0%})"
    return f"{plan.id}: {done}, done until {rfc3339(plan.done_until)}"


def _replica(replica: Replica) -> str:
    if replica.hidden:
        return f"{replica.name}: hidden from this role; GRANT pg_read_all_stats to it"
    behind = "an unknown amount" if replica.bytes is None else f"{replica.bytes / MEGABYTE:,.1f} MB"
    return f"{replica.name}: {behind} behind{'' if replica.seconds is None else f', {length(replica.seconds)}'}"


def _ended(run: RunEntry, now: datetime) -> str:
    why = run.stop_reason or run.guard
    ended = relative(run.finished_at, now) if run.finished_at else "died"
    return (
        f"run {run.id} ({run.kind}) {run.outcome or 'died'}{f' ({why})' if why else ''} {ended}: {run.purged:,} purged"
    )
