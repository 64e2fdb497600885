"""Files that people hand in: read whole, and never more of them than such a file could need.

The law of this file: a device that never ends, a file of the wrong kind and a name that no file can have end as one error.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MOST = 1 << 20
"""Bytes of a file that a person writes or passes on: settings, a policy, a key, a checkpoint, a receipt."""


class UnreadableError(Exception):
    """A file cannot be read, or is far larger than it could need to be; the text says why."""


def content(path: Path, most: int = MOST) -> bytes:
    """What is in the file.

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
    """The text in the file.

    Raises:
        UnreadableError: it cannot be read, has more than `most` bytes, or is no UTF-8.
    """
    try:
        return content(path, most).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None


def exposures(path: Path) -> Iterator[tuple[str, str]]:
    """What lets others have or replace a secret file that is there, each with the command that mends it.

    A file that another owns, as root does in our deployments, may be read by the one group through which we read it.
    """
    try:
        file = path.resolve()
        found, folder = file.stat(), file.parent.stat()
    except (OSError, ValueError, RuntimeError):  # it is not there, or nothing that has a mode: whoever reads it says so
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
