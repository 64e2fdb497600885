"""`forecast`: what falls due when, by rule."""

import sys
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from dateutil.relativedelta import relativedelta

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Slice

if TYPE_CHECKING:
    from sweeper.report.forecast import Forecast, ForecastRow
    from sweeper.runs.job import Job

AHEAD = {Slice.DAY: relativedelta(days=30), Slice.WEEK: relativedelta(weeks=26), Slice.MONTH: relativedelta(months=24)}
"""How far a forecast reaches without --until."""
BAR = 24
"""Length of the longest bar, in characters."""


def forecast(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line for each row: --output csv.")] = False,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="DATE",
            help="The last day in UTC; or an instant, exclusive. Default: 30 days, 26 weeks or 24 months ahead.",
        ),
    ] = None,
    by: Annotated[Slice, typer.Option("--by", help="The length of an interval.")] = Slice.MONTH,
    as_of: AsOf = None,
) -> None:
    """Forecast what falls due when, by rule, with records and bytes. Changes nothing.

    What is overdue comes first; what a run would skip, and what a legal hold keeps, is apart. Bytes are an estimate from what
    the tables and their indexes occupy; redactions have none. Activity, consent and deletions to come are not foreseen. Content
    that is empty already, or whose conversation is purged first, is not counted as a redaction.

    Example: sweeper forecast --by week --until 2027-03-31
    """
    output = _format(output, csv=csv)
    with context.prepared(config, context.instant("--as-of", as_of)) as job:
        end = _end(until, by, job.as_of)
        found = job.database.retried(lambda: _forecast(job, by, end))
    if output is OutputFormat.CSV:
        console.print_data(found.rows, output)
    elif output.is_data:
        console.print_data(found, output)
    else:
        _print(found)


def _format(output: OutputFormat, *, csv: bool) -> OutputFormat:
    if csv and output not in (OutputFormat.TABLE, OutputFormat.CSV):
        raise ConfigurationError(f"--csv contradicts --output {output}. Nothing was read. Give one of them.")
    return OutputFormat.CSV if csv else output


def _end(until: str | None, by: Slice, as_of: datetime) -> datetime:
    """Return the instant before which a forecast looks; a date includes that day.

    Raises:
        ConfigurationError: it is not after as-of.
    """
    try:
        found = context.moment("--until", until) or as_of + AHEAD[by]
        end = found + timedelta(days=1) if context.is_date(until) else found
    except OverflowError:
        raise ConfigurationError(f"--until {until} is too late. Nothing was read. Give an earlier date.") from None
    if end <= as_of:
        raise ConfigurationError(
            f"--until {until} is not after {rfc3339(as_of)}: a forecast looks ahead. Nothing was read. Give a later date, or an "
            "earlier --as-of. `sweeper report` counts what is overdue."
        )
    return end


def _forecast(job: "Job", by: Slice, end: datetime) -> "Forecast":
    from sweeper.cli import progress
    from sweeper.report import forecast as forecasts
    from sweeper.runs.scan import verdicts

    with progress.steps() as step, verdicts(job, step) as found:
        return forecasts.forecast(job, found, by, end)


def _print(found: "Forecast") -> None:
    job = found.job
    console.say(
        f"Forecast at {rfc3339(job.as_of)} to before {rfc3339(found.until)}, policy {job.policy.name!r} "
        f"({job.policy.digest[:12]}).",
        "",
    )
    for kind, what in (("conversation", "conversations"), ("redaction", "redactions"), ("feedback", "feedback rows")):
        rows = [row for row in found.rows if row.record == kind]
        if rows:
            _print_kind(what, rows)
            if rows[0].record in found.undated:
                console.say(f"without a due date: {found.undated[rows[0].record]:,} {what}")
            console.say("")
    if not found.rows:
        console.say("Nothing has a due date.")
    if job.policy.redacting is not None:
        console.say(
            "Content that is empty already, or whose conversation is purged first, is not counted as a redaction."
        )
    console.say("Bytes are an estimate: what the purged tables and indexes occupy, shared among records and messages.")


def _print_kind(what: str, rows: "list[ForecastRow]") -> None:
    """Print one line for each state or interval, with a bar and the rules, the largest first."""
    from rich.filesize import decimal

    lines: dict[str, list[ForecastRow]] = defaultdict(list)
    for row in rows:
        lines[rfc3339(row.begin)[:10] if row.begin else row.state].append(row)
    totals = {line: sum(row.records for row in found) for line, found in lines.items()}
    longest = max((total for line, total in totals.items() if line not in ("held", "later")), default=0)
    console.print_table(
        (f"{what} due", "", "records", "bytes", "by rule"),
        [
            (
                line,
                "" if line in ("held", "later") else _bar(totals[line], longest),
                f"{totals[line]:,}",
                "" if found[0].bytes is None else decimal(sum(row.bytes or 0 for row in found)),
                ", ".join(f"{row.rule} {row.records:,}" for row in sorted(found, key=lambda row: -row.records)),
            )
            for line, found in lines.items()
        ],
    )


def _bar(count: int, longest: int) -> str:
    """Return a bar whose length is the share of the longest; at least one character for any record."""
    full = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    return full * max(round(BAR * count / longest), 1) if longest else ""
