"""Reads files given by users (settings, policies, keys, checkpoints) up to a size limit, and writes files atomically.

It also finds the files that come with the program.

Invariant: every file that cannot be read raises `UnreadableError`, including endless devices, directories and invalid names.
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
"""Bytes: the default size limit."""

PACKAGE = Path(__file__).parent
SHIPPED = {
    "policy.toml": "config/policy.toml",
    "sweeper.toml": "config/sweeper.toml",
    "roles.sql": "deploy/postgres/roles.sql",
}
"""The files that come with the program, and where they are in its repository; the wheel has them in `sweeper/config`."""


class UnreadableError(Exception):
    """A file cannot be read or is too large; the message is the reason."""


def shipped(name: str) -> Path:
    """Return the path of a file of `SHIPPED`: in the installed package or in the checkout that it runs from."""
    installed = PACKAGE / "config" / name
    return installed if installed.is_file() else PACKAGE.parent / SHIPPED[name]


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnreadableError: the file cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from None
    except ValueError as error:  # the name contains NUL
        raise UnreadableError(str(error)) from None
    if len(data) > most:
        raise UnreadableError(f"it has more than {most} bytes")
    return data


def read_text(path: Path, most: int = MOST) -> str:
    """Return the text of a file.

    Raises:
        UnreadableError: the file cannot be read, has more than `most` bytes, or is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None


def exposures(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each way in which others may read or replace a secret file, with the command that fixes it; nothing without a file.

    The group may read a file of another owner if it is a group of this process, as in the shipped deployments.
    """
    try:
        file = path.resolve()
        status, folder = file.stat(), file.parent.stat()
    except (OSError, ValueError, RuntimeError):  # the reader of the file reports that
        return
    allowed = 0o040 if status.st_uid != os.geteuid() and status.st_gid in (os.getegid(), *os.getgroups()) else 0
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077 & ~allowed:
        yield (
            f"{path} may be read or written by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})",
            f"chmod go-rwx {file}",
        )
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        yield (
            f"{path} lies in a directory in which others may replace it (mode {stat.S_IMODE(folder.st_mode):04o})",
            f"chmod go-w {file.parent}",
        )


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the body ends without an error; only its owner may read it, as it may name accounts.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path} is not a file. Nothing was written. Name a file.")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise _write_error(path, error) from None
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _write_error(path, error) from None
        raise


def _write_error(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path}: cannot be written ({error.strerror}). Nothing was written. Name another file.")
