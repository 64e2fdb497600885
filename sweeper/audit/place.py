"""Writes a file so that it appears whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sweeper.errors import ConfigurationError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that replaces `path` when all is written; for its owner alone, as it may name accounts.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path} is no file. Nothing was written. Name a file.")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(path, error) from None
        raise


def _unwritten(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path}: cannot be written ({error.strerror}). Nothing was written. Name another file.")
