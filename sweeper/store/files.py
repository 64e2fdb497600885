"""Removes local files without following a link.

The law of this file: below a directory that the settings name, no symbolic link is followed, wherever it leads: a second way to a
file would be a second URI for it, which nobody has asked about.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeper.core.uri import Kept, UriError

DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""How a directory is opened: to go through, not to read."""


def remove(prefix: str, path: str, is_wanted: Callable[[], bool]) -> None:
    """Remove a file.

    Args:
        prefix: the directory that the settings name, without a slash at its end; it may be a link itself.
        path: the file below it, absolute.
        is_wanted: asked in the last moment; where it says no, nothing is removed.

    Raises:
        FileNotFoundError: there is no such file.
        UriError: a link lies below the prefix, the path is no file's, or the directory of the prefix is not there.
        OSError: whatever the system answers.
    """
    *folders, name = path.removeprefix(f"{prefix}/").split("/")
    with _walked(prefix, folders) as directory:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise UriError(Kept.LINK)
        if not stat.S_ISREG(mode):
            raise UriError(Kept.FOLDER)
        if is_wanted():
            os.unlink(name, dir_fd=directory)


@contextmanager
def _walked(prefix: str, folders: list[str]) -> Iterator[int]:
    """The descriptor of the directory to which the names lead, one by one."""
    try:
        directory = os.open(os.path.realpath(prefix), DIRECTORY)
    except FileNotFoundError:
        raise UriError(Kept.NO_DIRECTORY) from None  # not mounted, it may be: then every file would seem to be gone
    try:
        for name in folders:
            below = _opened(name, directory)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def _opened(name: str, directory: int) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise UriError(Kept.LINK) from None
        raise
