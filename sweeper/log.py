"""Logs: structlog to stderr, readable on a terminal, JSON lines elsewhere. Never conversation content, never a secret."""

import logging
import sys
from typing import TextIO

import structlog


def configure(*, quiet: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging for a command; `quiet` leaves only warnings and errors."""
    stream = stream or sys.stderr
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
    )


def get() -> structlog.typing.FilteringBoundLogger:
    """The logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
