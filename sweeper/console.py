"""Writes to stdout and stderr, even if they are closed, full or disconnected.

Invariant: every line is escaped (no control character, no markup). A command whose work is done does not fail, and does not undo
or repeat the work, because its output cannot be written.
"""

import errno
import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, TextIO

from sweeper.encoding import to_json
from sweeper.errors import SweeperError, printable
from sweeper.policy.instant import OutOfRange

WIDTH = 160
"""Width of tables if stdout is not a terminal."""
BROKEN = frozenset({errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT})
"""Error numbers for a stream that cannot be written."""


class OutputError(SweeperError):
    """The output could not be written to stdout; the message is empty if the reader of a pipe has gone."""


def secure_streams() -> None:
    """Make all three standard streams usable. Call it first, before a socket can get the number of a closed stream."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # writing to a closed stdout must fail
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 — open until the process ends
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # print in any encoding
    _written.clear()
    sys.excepthook = _report_crash
    threading.excepthook = _report_thread_crash


def flush(code: int) -> int:
    """Flush both streams and return the exit code: 1 instead of 0 if output was lost."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        if code == 0:
            print_error(output_error(error))
            code = 1
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return code


@contextmanager
def afterwards() -> Iterator[None]:
    """Context manager to print the result of work that is done; if stdout fails, only a warning on stderr says so."""
    try:
        yield
        sys.stdout.flush()
    except (OutputError, OSError) as error:
        if isinstance(error, OSError) and not is_broken(error):
            raise
        _silence(sys.stdout)
        text = str(error if isinstance(error, OutputError) else output_error(error))
        warn(text and f"{text} What was asked for is done and recorded all the same.")


def is_broken(error: OSError) -> bool:
    """Return True if a standard stream failed, not a file."""
    return error.filename is None and error.errno in BROKEN


def output_error(error: OSError) -> OutputError:
    """Return the error to report when stdout could not be written."""
    if error.errno == errno.EPIPE:
        return OutputError("")  # the reader of the pipe has gone
    return OutputError(f"stdout cannot be written ({error.strerror}): the output is lost.")


def warn(text: str) -> None:
    """Print one line to stderr; failures to write are ignored."""
    if text:
        _write_error(f"sweeper: {text}")


def print_error(error: SweeperError, *, as_json: bool = False) -> None:
    """Print an error to stderr, and for machines to stdout; its lines are escaped, so that all line breaks are meant."""
    if str(error):
        _write_error(*f"sweeper: {error}".split("\n"))
        if as_json and not isinstance(error, OutputError):
            _print_json_error(error.as_json())


def print_usage_error(error: Any, *, as_json: bool = False) -> int:
    """Print a usage error of typer, which quotes arguments, to stderr, and for machines to stdout; return its exit code."""
    shown = io.StringIO()
    error.show(shown)
    _write_error(*shown.getvalue().removesuffix("\n").split("\n"))
    if as_json:
        text = printable(error.format_message())
        path = error.ctx.command_path if getattr(error, "ctx", None) else "sweeper"
        remedy = f"See `{path} --help`."
        _print_json_error({"error": text, "guard": None, "remedy": remedy, "exit_code": error.exit_code})
    return int(error.exit_code)


def _print_json_error(fields: Mapping[str, Any]) -> None:
    if not _written.is_set():
        with suppress(OutputError):  # stderr has the error
            print_json(fields)


def say(*lines: str) -> None:
    """Print lines for a person; line breaks within a line are escaped."""
    _write(lines)


def print_json(value: Any) -> None:
    """Print any value of the program as one line of JSON in ASCII."""
    _write([json.dumps(to_json(value))])


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for a person; long cells are wrapped, not cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = io.StringIO()
    console = Console(file=drawn, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, header_style="")
    for header in headers:
        table.add_column(Text(header), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_cell_text(cell))) for cell in row))
    console.print(table)
    _write(drawn.getvalue().removesuffix("\n").split("\n"))


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool, none: str = "") -> None:
    """Print rows with the same columns, as a JSON list or as a table; `none` is what a person reads if there is no row."""
    if as_json:
        print_json(list(rows))
    elif rows:
        print_table(rows[0], [row.values() for row in rows])
    else:
        say(none)


def _cell_text(cell: object) -> str:
    if cell is None:
        return ""
    return str(to_json(cell) if isinstance(cell, datetime | OutOfRange) else cell)


def _write(lines: Iterable[str]) -> None:
    """Write to stdout; nothing else does."""
    _written.set()
    try:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    except OSError as error:
        raise output_error(error) from None


_written = threading.Event()
"""Set once something was written to stdout: an error is then no second JSON document there."""


def _write_error(*lines: str) -> None:
    """Write to stderr; nothing else does except for the log and the progress bar."""
    with suppress(OSError, ValueError):
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def _report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, but escaped, since the message may quote any text."""
    text = "".join(traceback.format_exception(kind, error, trace))
    _write_error(*text.removesuffix("\n").split("\n"))


def _report_thread_crash(fault: threading.ExceptHookArgs) -> None:
    if fault.exc_value is not None:
        _report_crash(fault.exc_type, fault.exc_value, fault.exc_traceback)


def _silence(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that the interpreter's own last flush does not fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
