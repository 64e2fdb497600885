"""What goes to stdout, and what happens when stdout or stderr is closed, full or gone.

The law of this file: every line that goes out has been escaped (no control character, no markup), and where it cannot be
written no deed is undone, repeated or called failed for it.
"""

import errno
import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, TextIO

from sweeper.errors import SweeperError, printable
from sweeper.policy.instant import OutOfRange, rfc3339

WIDTH = 160
"""How wide a table may be where no terminal says it."""
GONE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT})
"""What the system says of a stream that cannot be written."""


class OutputError(SweeperError):
    """The answer could not be written to stdout; without a text where nobody is left to read it."""


def secure() -> None:
    """Make all three streams usable, before anything else is opened: one that is closed must not become a socket's number."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # so that writing to a closed stdout fails
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 — it is open as long as the process is
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding, an answer is printed
    sys.excepthook = _crashed
    threading.excepthook = _crashed_thread


def finish(code: int) -> int:
    """Write what is still held back; returns the exit code, which is 1 where an answer was lost."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        if code == 0:
            tell(lost(error))
            code = 1
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return code


@contextmanager
def afterwards() -> Iterator[None]:
    """Print what has been done: where that cannot be written, stderr says so, and the exit code tells of the deed alone."""
    try:
        yield
        sys.stdout.flush()
    except (OutputError, OSError) as error:
        if isinstance(error, OSError) and not is_broken(error):
            raise
        _silence(sys.stdout)
        told = str(error if isinstance(error, OutputError) else lost(error))
        warn(told and f"{told} What was asked for is done and recorded all the same.")


def is_broken(error: OSError) -> bool:
    """Whether the error is one of a stream rather than of a file."""
    return error.filename is None and error.errno in GONE


def lost(error: OSError) -> OutputError:
    """What to say of an answer that could not be written."""
    if error.errno == errno.EPIPE:
        return OutputError("")  # whoever read us has gone
    return OutputError(f"stdout cannot be written ({error.strerror}): the answer is lost.")


def warn(text: str) -> None:
    """Print one line to stderr; failures to write are ignored."""
    if text:
        _write_error(f"sweeper: {text}")


def tell(error: SweeperError) -> None:
    """Print an error to stderr; its line breaks are its own, since `SweeperError` escapes each line."""
    if str(error):
        _write_error(*f"sweeper: {error}".split("\n"))


def misused(error: Any) -> int:
    """Print a usage error, which quotes arguments, to stderr; returns the exit code."""
    said = io.StringIO()
    error.show(said)
    _write_error(*said.getvalue().removesuffix("\n").split("\n"))
    return int(error.exit_code)


def say(*lines: str) -> None:
    """Print lines for a person; a line break within one is escaped."""
    _write(lines)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one line of JSON in ASCII."""
    _write([json.dumps(value, default=_as_json)])


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for a person; long cells are folded, nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = io.StringIO()
    console = Console(file=drawn, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, header_style="")
    for header in headers:
        table.add_column(Text(header), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(shown(cell))) for cell in row))
    console.print(table)
    _write(drawn.getvalue().removesuffix("\n").split("\n"))


def shown(cell: object) -> str:
    """A value for a person; what is not set is empty."""
    if cell is None:
        return ""
    return _as_json(cell) if isinstance(cell, datetime | OutOfRange) else str(cell)


def _as_json(value: object) -> str:
    if isinstance(value, OutOfRange):
        return value.value
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def _write(lines: Iterable[str]) -> None:
    """The only way to stdout."""
    try:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    except OSError as error:
        raise lost(error) from None


def _write_error(*lines: str) -> None:
    """The only way to stderr beside the log and the progress bar."""
    with suppress(OSError, ValueError):
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, but escaped: the message may quote anything."""
    told = "".join(traceback.format_exception(kind, error, trace))
    _write_error(*told.removesuffix("\n").split("\n"))


def _crashed_thread(fault: threading.ExceptHookArgs) -> None:
    if fault.exc_value is not None:
        _crashed(fault.exc_type, fault.exc_value, fault.exc_traceback)


def _silence(stream: TextIO) -> None:
    """Send to nowhere what is still held back, so that the interpreter's own last flush does not fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
