"""Writes to stdout and stderr, even if they are closed, full or disconnected.

Invariant: every line is escaped (no control character, no markup). A command whose work is done does not fail, and does not undo
or repeat the work, because its output cannot be written.
"""

import csv
import errno
import io
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from sweeper.encoding import to_json
from sweeper.errors import SweeperError, printable
from sweeper.policy.instant import OutOfRange
from sweeper.policy.times import when

if TYPE_CHECKING:
    import yaml

WIDTH = 160
"""Width of tables if stdout is not a terminal."""
BROKEN = frozenset({errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT})
"""Error numbers for a stream that cannot be written."""


class OutputFormat(StrEnum):
    """How a command prints its result: as a text with tables for people, or as data. Standard output has nothing else."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    YAML = "yaml"

    @property
    def is_data(self) -> bool:
        """True if programs read it."""
        return self is not OutputFormat.TABLE


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
    _quiet.clear()
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


def print_error(error: SweeperError, output: OutputFormat = OutputFormat.TABLE) -> None:
    """Print an error to stderr, and for machines to stdout; its lines are escaped, so that all line breaks are meant."""
    if str(error):
        _write_error(*f"sweeper: {error}".split("\n"))
        if not isinstance(error, OutputError):
            _print_data_error(error.as_json(), output)


def print_usage_error(error: Any, output: OutputFormat = OutputFormat.TABLE) -> int:
    """Print a usage error of typer, which quotes arguments, to stderr, and for machines to stdout; return its exit code."""
    shown = io.StringIO()
    error.show(shown)
    _write_error(*shown.getvalue().removesuffix("\n").split("\n"))
    text = printable(error.format_message())
    path = error.ctx.command_path if getattr(error, "ctx", None) else "sweeper"
    remedy = f"See `{path} --help`."
    _print_data_error({"error": text, "guard": None, "remedy": remedy, "exit_code": error.exit_code}, output)
    return int(error.exit_code)


def _print_data_error(fields: Mapping[str, Any], output: OutputFormat) -> None:
    """Print an error as a document. CSV has none: its columns are those of the result."""
    if output in (OutputFormat.JSON, OutputFormat.YAML) and not _written.is_set():
        with suppress(OutputError):  # stderr has the error
            print_data(fields, output)


def say(*lines: str) -> None:
    """Print lines for a person; line breaks within a line are escaped."""
    _write(lines)


def be_quiet() -> None:
    """Print no notes from now on, and no progress: only errors, warnings and what was asked for."""
    _quiet.set()


def is_quiet() -> bool:
    """Return whether `be_quiet` was called."""
    return _quiet.is_set()


def note(*lines: str) -> None:
    """Print lines about what else a person may want to know or do."""
    if not is_quiet():
        _write(lines)


def print_json(value: Any) -> None:
    """Print any value of the program as one line of JSON in ASCII."""
    _write([json.dumps(to_json(value))])


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]], *, now: datetime | None = None) -> None:
    """Print a table for a person; long cells are wrapped, not cut.

    A whole number is a count and has thousands separators; an id is passed as text. With `now`, instants are shown relative to it
    as well.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = io.StringIO()
    console = Console(file=drawn, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, header_style="")
    for header in headers:
        table.add_column(Text(header), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_cell_text(cell, now))) for cell in row))
    console.print(table)
    _write(drawn.getvalue().removesuffix("\n").split("\n"))


def print_data(value: Any, output: OutputFormat) -> None:
    """Print a result of the program as JSON, YAML or CSV.

    JSON is one line, YAML one document. In CSV a list has one line for each item, with the fields of the items as columns. An
    object has one line for each value: its `name`, as a path with dots, and the `value`. In both, objects within become paths.
    """
    if output is OutputFormat.JSON:
        print_json(value)
    elif output is OutputFormat.YAML:
        _write(_yaml(to_json(value)))
    else:
        found = to_json(value)
        rows = (
            found if isinstance(found, list) else [{"name": n, "value": v} for n, v in _paths(found, into_lists=True)]
        )
        _print_csv(rows)


def print_rows(
    rows: Sequence[Mapping[str, object]],
    output: OutputFormat = OutputFormat.TABLE,
    *,
    none: str = "",
    now: datetime | None = None,
) -> None:
    """Print rows with the same columns, as a table or as data. A command that lists something ends with this call.

    A new command takes `output: Output = OutputFormat.TABLE, _json: AsJson = False` (see `sweeper.cli.context`), and

    - `print_rows(rows, output, none="no hold is in force")` prints a list: table, JSON list, CSV or YAML list;
    - `if output.is_data: print_data(value, output)`, else `say` and `print_table`, prints anything else;
    - `RowPrinter(output).print(row)` prints rows while they are found, so that a million of them need no memory.

    Args:
        rows: what is listed; the names of the fields are the headers.
        output: the option --output of the command.
        none: what a person reads if there is no row.
        now: the present, if the table is to say how long ago its instants are.
    """
    if output.is_data:
        print_data(list(rows), output)
    elif rows:
        print_table(rows[0], [[_id_text(*field) for field in row.items()] for row in rows], now=now)
    else:
        say(none)


class RowPrinter:
    """Prints rows one by one as data: JSON lines, CSV with the columns of the first row, or one list in YAML."""

    def __init__(self, output: OutputFormat) -> None:
        self._output = output
        self._columns: list[str] | None = None

    def print(self, row: Any) -> None:
        """Print one row."""
        if self._output is OutputFormat.JSON:
            print_json(row)
        elif self._output is OutputFormat.YAML:
            _write(_yaml([to_json(row)]))
        else:
            self._columns = _print_csv([to_json(row)], self._columns)


def print_document(
    head: Mapping[str, Any],
    lists: Mapping[str, Iterable[Any]],
    rest: Callable[[], Mapping[str, Any]],
    output: OutputFormat,
) -> None:
    """Print one object in JSON or YAML whose lists are printed row by row, so that a million rows need no memory.

    Args:
        head: the fields before the lists; at least one.
        lists: the rows of each list by the name of its field.
        rest: returns the fields after the lists, once these are printed; at least one.
        output: JSON or YAML.
    """
    is_yaml = output is OutputFormat.YAML
    _write(_yaml(to_json(head)) if is_yaml else [json.dumps(to_json(head))[:-1]])
    for name, rows in lists.items():
        lead = ""
        for row in rows:
            if not lead:
                _write([f"{name}:" if is_yaml else f', "{name}": ['])
            _write(_yaml([to_json(row)]) if is_yaml else [lead + json.dumps(to_json(row))])
            lead = ","
        if not is_yaml:
            _write(["]" if lead else f', "{name}": []'])
        elif not lead:
            _write([f"{name}: []"])
    _write(_yaml(to_json(rest())) if is_yaml else [f", {json.dumps(to_json(rest()))[1:]}"])


def _yaml(value: Any) -> list[str]:
    """Return the lines of a value in YAML, in ASCII. A text that may look like a number to any parser is quoted."""
    import yaml

    return yaml.dump(value, Dumper=_dumper(), sort_keys=False, width=sys.maxsize).removesuffix("\n").split("\n")


@cache
def _dumper() -> "type[yaml.SafeDumper]":
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes 12e3, which is a text in PyYAML's version 1.1 of YAML and a number in 1.2."""

    def text(dumper: yaml.SafeDumper, found: str) -> yaml.ScalarNode:
        is_like_a_number = found[:1] in set("0123456789+-.")
        return dumper.represent_scalar("tag:yaml.org,2002:str", found, '"' if is_like_a_number else None)

    Dumper.add_representer(str, text)
    return Dumper


def _print_csv(rows: Sequence[Any], columns: list[str] | None = None) -> list[str]:
    """Print rows as CSV, below their columns if none are given; return the columns."""
    flat = [dict(_paths(row)) for row in rows]
    header = list(dict.fromkeys(name for row in flat for name in row)) if columns is None else columns
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    if columns is None and header:
        writer.writeheader()
    writer.writerows(flat)
    _write(text.getvalue().splitlines())
    return header


def _paths(value: Any, path: str = "", *, into_lists: bool = False) -> Iterator[tuple[str, object]]:
    """Yield the values within a value of JSON with their paths; a list that is not entered is one value, written as JSON."""
    if isinstance(value, Mapping) and value:
        inner: Iterable[tuple[object, Any]] = value.items()
    elif isinstance(value, list) and value and into_lists:
        inner = enumerate(value)
    else:
        yield printable(path) or "value", _csv_text(value)
        return
    for key, each in inner:
        yield from _paths(each, f"{path}.{key}" if path else str(key), into_lists=into_lists)


def _csv_text(value: Any) -> str:
    """Return a value as CSV has it: nothing for null, texts with escapes for what no terminal should get, else JSON."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) else json.dumps(value)


def is_live() -> bool:
    """Return whether stdout is a terminal on which `live` can replace what it printed."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def live() -> Iterator[Callable[[Iterable[tuple[str, str]]], None]]:
    """Yield a function that prints lines, each with its style, in the place of those before; the last ones stay."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as drawn:

        def show(lines: Iterable[tuple[str, str]]) -> None:
            texts = (Text(f"{printable(line)}\n", style) for line, style in lines)
            text = Text(no_wrap=True, overflow="ellipsis").join(texts)
            text.rstrip()
            drawn.update(text, refresh=True)

        yield show


def _id_text(name: str, value: object) -> object:
    return str(value) if value is not None and re.search("(^|_)id$", name) else value


def _cell_text(cell: object, now: datetime | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime) and now is not None:
        return when(cell, now)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
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


_quiet = threading.Event()
"""Set by -q."""


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
