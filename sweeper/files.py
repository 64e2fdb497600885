"""Reads files that people name (settings, policies, keys, checkpoints) within a size limit, and writes files whole or not at all.

Invariant: a device without end, a file of the wrong kind and an impossible name all raise `UnreadableError`.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sweeper.errors import ConfigurationError

MOST = 1 << 20
"""Bytes: the size limit unless the caller gives another."""


class UnreadableError(Exception):
    """A file cannot be read or is too large; the message is the reason."""


def content(path: Path, most: int = MOST) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnreadableError: it cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from None
    except ValueError as error:  # a name with a NUL in it
        raise UnreadableError(str(error)) from None
    if len(found) > most:
        raise UnreadableError(f"it has more than {most} bytes")
    return found


def text(path: Path, most: int = MOST) -> str:
    """Return the text of a file.

    Raises:
        UnreadableError: it cannot be read, has more than `most` bytes, or is no UTF-8.
    """
    try:
        return content(path, most).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None


def exposures(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each way in which others may read or replace a secret file, with the command that fixes it; nothing if it is absent.

    The group may read a file of another owner if it is a group of this process, as in the shipped deployments.
    """
    try:
        file = path.resolve()
        found, folder = file.stat(), file.parent.stat()
    except (OSError, ValueError, RuntimeError):  # whoever reads the file reports that
        return
    allowed = 0o040 if found.st_uid != os.geteuid() and _is_ours(found.st_gid) else 0
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077 & ~allowed:
        yield (
            f"{path} may be read or written by others than its owner (mode {stat.S_IMODE(found.st_mode):04o})",
            f"chmod go-rwx {file}",
        )
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        yield (
            f"{path} lies in a directory in which others may replace it (mode {stat.S_IMODE(folder.st_mode):04o})",
            f"chmod go-w {file.parent}",
        )


def _is_ours(group: int) -> bool:
    return group in (os.getegid(), *os.getgroups())


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
