"""`pause` and `resume`: stop and allow all purging. They need only the sweeper's own tables, neither policy nor store."""

from typing import Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.policy.instant import rfc3339


def pause(
    reason: Annotated[str, typer.Option("--reason", help="Why. Status and refusals show it.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Stop all purging in this database until `sweeper resume`. It stops every process, in every store.

    Example: sweeper pause --reason "restoring app from backup, ask Ida"
    """
    from sweeper.postgres import pauses

    context.text_argument("--reason", reason)
    with context.migrated(config) as database:
        made = pauses.pause(database, reason, context.CLOCK.now())
    with console.afterwards():
        if output.is_data:
            console.print_data(made, output)
        else:
            console.say(f"Paused since {rfc3339(made['paused_at'])}: {reason}. No further batch begins.")


def resume(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """Lift every pause. Runs that a pause stopped start again at their next scheduled time; a waiting backfill continues.

    Example: sweeper resume
    """
    from sweeper.postgres import pauses

    with context.migrated(config) as database:
        lifted = pauses.resume(database, context.CLOCK.now())
    with console.afterwards():
        if output.is_data:
            console.print_data(lifted, output)
        elif not lifted:
            console.say("Nothing was paused.")
        for pause_ in lifted if not output.is_data else ():
            console.say(f"Resumed. It was paused since {rfc3339(pause_['paused_at'])}: {pause_['reason']}.")
