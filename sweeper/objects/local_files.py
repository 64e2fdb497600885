"""Removes local files without following symbolic links.

Invariant: below a configured directory no symbolic link is followed. A link would give the file a second URI, for which no
attachment was searched.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeper.uri import KeptObject, UriError

DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""Flags to open a directory for traversal only."""


def remove(prefix: str, path: str, is_wanted: Callable[[], bool]) -> None:
    """Remove a file.

    Args:
        prefix: the configured directory, without a trailing slash; it may itself be a link.
        path: the absolute path of the file, below `prefix`.
        is_wanted: called just before the removal; False cancels it.

    Raises:
        FileNotFoundError: the file does not exist, but its directory does.
        UriError: the path contains a link or names no regular file, or a directory on the way does not exist.
        OSError: any other error of the system.
    """
    *folders, name = path.removeprefix(f"{prefix}/").split("/")
    with _walked(prefix, folders) as directory:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise UriError(KeptObject.LINK)
        if not stat.S_ISREG(mode):
            raise UriError(KeptObject.FOLDER)
        if is_wanted():
            os.unlink(name, dir_fd=directory)


@contextmanager
def _walked(prefix: str, folders: list[str]) -> Iterator[int]:
    """Descend from the prefix folder by folder; yields the descriptor of the last one."""
    try:
        directory = os.open(os.path.realpath(prefix), DIRECTORY)
    except FileNotFoundError:
        raise UriError(KeptObject.NO_DIRECTORY) from None  # perhaps not mounted: every file would seem to be absent
    try:
        for name in folders:
            try:
                below = _opened(name, directory)
            except FileNotFoundError:  # perhaps not mounted, or renamed for a moment
                raise UriError(KeptObject.NO_PARENT) from None
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def _opened(name: str, directory: int) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=directory)
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise UriError(KeptObject.LINK) from None
        raise
