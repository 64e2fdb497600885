"""`copies`: tell the copies of the data elsewhere what was purged, and show how far each lags."""

from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError

if TYPE_CHECKING:
    from sweeper.copies.delivery import Delivery

copies_app = typer.Typer(help="Tell copies of the data elsewhere what was purged.", no_args_is_help=True)

SAID = {
    "claimed": "another process delivers to it, or was killed a moment ago",
    "paused": "nothing more was sent, because sweeping is paused",
    "stopped": "it was stopped",
}
"""What is said of each outcome that is neither a success nor a failure."""


@copies_app.command("deliver")
def deliver(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these copies.")] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Tell each copy what was purged since it last acknowledged. Exits with 1 if one does not acknowledge.

    Runs do the same at their end. What a copy did not acknowledge is sent again.

    Example: sweeper copies deliver
    """
    from sweeper.cli import progress
    from sweeper.cli.run import stop_on_signal
    from sweeper.copies import delivery

    with context.migrated(config) as database:
        known = [copy.name for copy in database.settings.copies]
        if unknown := [name for name in names or () if name not in known]:
            raise ConfigurationError(
                f"no copy is named {unknown[0]!r}: nothing was sent. [[copies]] of the settings has {', '.join(known) or 'none'}."
            )
        with stop_on_signal(database.stop), progress.counted("records") as told:
            found = delivery.deliver(database, context.CLOCK, names or (), told)
    with console.afterwards():
        if output.is_data:
            console.print_data(found, output)
        else:
            console.say(*map(_said, found) if found else ("[[copies]] of the settings is empty: there is no copy.",))
    if any(each.outcome == "failed" for each in found):
        raise typer.Exit(1)


def _said(found: "Delivery") -> str:
    told = f"{found.copy}: {found.records:,} records delivered"
    if found.outcome == "failed":
        return f"{told}, then it FAILED: {found.error}. What is missing is sent again, from leaf {found.next_leaf} on."
    return f"{told}; {SAID[found.outcome]}." if found.outcome in SAID else f"{told}."


@copies_app.command("list")
def list_(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """Show how far each copy lags, and why.

    Example: sweeper copies list
    """
    from sweeper.copies import lag

    with context.migrated(config) as database:
        found = database.within(lambda c: lag.read(c, database.settings, context.CLOCK.now()))
    rows = [each.as_json() for each in found]
    none = "[[copies]] of the settings is empty: there is no copy."
    console.print_rows(rows, output=output, none=none, now=context.CLOCK.now())
