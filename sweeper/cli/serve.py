"""`serve`: run all jobs by schedule, with an HTTP endpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config

if TYPE_CHECKING:
    from sweeper.daemon.jobs import EndedJob
    from sweeper.settings import Settings


def serve(
    config: Config = None,
    as_json: AsJson = False,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Address of the HTTP endpoint. Default: [serve] listen."),
    ] = None,
) -> None:
    """Run jobs by schedule until SIGTERM or SIGINT. Answers /healthz, /readyz and /metrics.

    --json prints a line per finished job.

    Example: sweeper serve --listen 0.0.0.0:9464
    """
    from sweeper.daemon import serve as serving

    with context.configured(config) as opened:
        serving.serve(lambda: _reload(config, opened), context.CLOCK, listen, _print if as_json else lambda _: None)


def _reload(config: Path | None, opened: "Settings") -> "Settings":
    """Load the settings from disk again; keep the URL of a demo's own server, which is already running."""
    from sweeper.settings import load

    settings = load(config)
    if not settings.database.url.startswith(context.EMBEDDED):
        return settings
    return settings.model_copy(update={"database": opened.database})


def _print(ended: "EndedJob") -> None:
    import sys

    with console.afterwards():
        console.print_json(ended)
        sys.stdout.flush()
