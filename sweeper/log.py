"""Logs: structlog to stderr, readable on a terminal, JSON lines elsewhere. Never conversation content, never a secret.

The law of this file: a log line that cannot be written is dropped; it stops nothing.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from sweeper.errors import printable


class Unfailing:
    """A stream whose writing never fails; without one of its own it is stderr as it is at that moment.

    (A progress bar replaces stderr for as long as it is drawn, so that lines go above it.)
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    @property
    def stream(self) -> TextIO | None:
        """Where it writes to now; None: there is no stderr."""
        return self._stream or sys.stderr

    def write(self, text: str) -> int:
        """Write if that is possible."""
        with suppress(OSError, ValueError):  # full, gone or closed
            if self.stream is not None:
                self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal now."""
        with suppress(OSError, ValueError):
            return self.stream is not None and self.stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unfailing(stream: TextIO | None = None) -> TextIO:
    """A stream (else stderr) that drops what cannot be written."""
    return cast(TextIO, Unfailing(stream))


def configure(*, quiet: bool = False, once: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging for a command; `quiet` leaves only warnings and errors, `once` leaves what was set up before."""
    if once and structlog.is_configured():
        return
    file = unfailing(stream)
    rendering: tuple[structlog.typing.Processor, ...] = (
        (_filtered, structlog.dev.ConsoleRenderer()) if file.isatty() else (structlog.processors.JSONRenderer(),)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=file),
    )


def _filtered(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape the strings of a line for a terminal; JSON and the repr of a list escape by themselves."""
    return {printable(key): printable(value) if isinstance(value, str) else value for key, value in event.items()}


def get() -> structlog.typing.FilteringBoundLogger:
    """The logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
