"""Configures structlog to log to stderr: in colour on a terminal, as JSON lines elsewhere. Content and secrets are never logged.

Invariant: a log line that cannot be written is dropped without an error.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from sweeper.errors import printable

Told = Callable[[int, int | None], None]
"""Is told how much of a work is done, and how much there is in all (None: not known)."""


def untold(done: int, total: int | None) -> None:
    """Ignore how much is done."""


class SafeStream:
    """A text stream that drops what cannot be written.

    Without a stream of its own it writes to the current `sys.stderr`, which a progress bar replaces while it is drawn.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    @property
    def stream(self) -> TextIO | None:
        """The stream to write to now; None if there is no stderr."""
        return self._stream or sys.stderr

    def write(self, text: str) -> int:
        """Write the text if possible."""
        with suppress(OSError, ValueError):  # the stream is full, disconnected or closed
            if self.stream is not None:
                self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream if possible."""
        with suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.flush()

    def isatty(self) -> bool:
        """Return True if the stream is a terminal."""
        with suppress(OSError, ValueError):
            return self.stream is not None and self.stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def safe_stream(stream: TextIO | None = None) -> TextIO:
    """Return a wrapper of a stream, or of stderr, that drops what cannot be written."""
    return cast(TextIO, SafeStream(stream))


def configure(level: str = "info", *, once: bool = False, stream: TextIO | None = None) -> None:
    """Log from a level on (`debug`, `info`, `warning`, `error`); `once` does nothing if logging is set up already."""
    if once and structlog.is_configured():
        return
    file = safe_stream(stream)
    rendering: tuple[structlog.typing.Processor, ...] = (
        (_escape, structlog.dev.ConsoleRenderer(colors=_has_colours()))
        if file.isatty()
        else (structlog.processors.JSONRenderer(),)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=file),
    )


def _has_colours() -> bool:
    """Return whether a terminal is to show colours: not with NO_COLOR (see no-color.org), and not if it knows none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _escape(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape the strings of an event for a terminal; the JSON renderer and the repr of lists escape by themselves."""
    return {printable(key): printable(value) if isinstance(value, str) else value for key, value in event.items()}


def get() -> structlog.typing.FilteringBoundLogger:
    """Return the logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
