"""The command line. Commands print data to stdout and log to stderr; `EXIT_CODES` lists the documented exit codes.

Invariant: `sweeper --help` is instant, so a command imports what it needs inside its function.
"""

import sys
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from sweeper import console
from sweeper.cli.account import account
from sweeper.cli.audit import audit_app
from sweeper.cli.backfill import backfill
from sweeper.cli.choices import consent_app, plan_app
from sweeper.cli.copies import copies_app
from sweeper.cli.explain import explain
from sweeper.cli.forecast import forecast
from sweeper.cli.init import init
from sweeper.cli.maintenance import check, demo, migrate
from sweeper.cli.manifest import manifest_app
from sweeper.cli.pause import pause, resume
from sweeper.cli.policy import policy_app
from sweeper.cli.protect import hold_app, order_app
from sweeper.cli.reapply import reapply
from sweeper.cli.report import report
from sweeper.cli.run import run
from sweeper.cli.serve import serve
from sweeper.cli.status import status
from sweeper.console import OutputFormat
from sweeper.errors import SweeperError

EXIT_CODES = """Exit codes:

\b
  0  done
  1  failed, in part or wholly: what was committed before stands
  2  usage or configuration: nothing was done
  3  refused by a guard or a pause: nothing was purged, or nothing more
  4  another run holds the lease
"""

MisuseError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
"""Base class of usage errors; typer vendors its own or uses click's, depending on its version."""

app = typer.Typer(
    help="Purge stored AI-assistant conversations when their retention ends, and explain why.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    init,
    migrate,
    run,
    serve,
    backfill,
    reapply,
    pause,
    resume,
    status,
    report,
    forecast,
    explain,
    account,
    check,
    demo,
):
    app.command()(command)
app.add_typer(policy_app, name="policy")
app.add_typer(hold_app, name="hold")
app.add_typer(order_app, name="order")
app.add_typer(plan_app, name="plan")
app.add_typer(consent_app, name="consent")
app.add_typer(copies_app, name="copies")
app.add_typer(manifest_app, name="manifest")
app.add_typer(audit_app, name="audit")


class LogLevel(StrEnum):
    """The least serious lines that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _version(requested: bool) -> None:  # noqa: FBT001 — typer passes the value of the option
    if not requested:
        return
    from importlib import metadata

    console.say(f"sweeper {metadata.version('sweeper')}")
    raise typer.Exit


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors, warnings and the data asked for.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log details too: settings, policy, each step.")
    ] = False,
    log_level: Annotated[
        LogLevel | None, typer.Option("--log-level", help="Log from this level on. Default: info.", show_default=False)
    ] = None,
) -> None:
    """Configure logging before every command."""
    from sweeper import log

    given = [
        level
        for level, wanted in ((LogLevel.WARNING, quiet), (LogLevel.DEBUG, verbose), (log_level, log_level is not None))
        if wanted and level is not None
    ]
    if len(given) > 1:
        raise typer.BadParameter("give one of -q, -v and --log-level: nothing was done")
    log.configure(*given, once=not given)
    if quiet:
        console.be_quiet()


def main() -> NoReturn:
    """Run the command line and exit. An expected failure prints one message to stderr and sets the exit code."""
    console.secure_streams()
    code = 0
    try:
        # returns the code of a typer.Exit, or what a command returned
        returned = app(prog_name="sweeper", standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except MisuseError as error:
        code = console.print_usage_error(error, _output())
    except typer.Abort:
        code = 1
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except SweeperError as error:
        code = _print_error(error)
    except OSError as error:
        if not console.is_broken(error):
            raise
        code = _print_error(console.output_error(error))
    sys.exit(console.flush(code))


def _output() -> OutputFormat:
    """Return how the command line asks for its result; read here, because its parsing may be what fails."""
    words = sys.argv[1:]
    if "--json" in words:
        return OutputFormat.JSON
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option == "--output" and (value or after) in tuple(OutputFormat):
            return OutputFormat(value or after)
    return OutputFormat.TABLE


def _print_error(error: SweeperError) -> int:
    console.print_error(error, _output())
    return error.exit_code
