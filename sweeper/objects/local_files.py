"""Removes local files without following symbolic links.

Invariant: below a configured directory no symbolic link is followed. Through a link the file would have a second URI, and
attachments were not searched for that one.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeper.uri import KeptObject, UriError

DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""Flags to open a directory for traversal only."""


def remove(prefix: str, path: str, confirm: Callable[[], bool]) -> None:
    """Remove a file.

    Args:
        prefix: the configured directory, without a trailing slash; it may itself be a link.
        path: the absolute path of the file, below `prefix`.
        confirm: called just before the removal; False cancels it.

    Raises:
        FileNotFoundError: the file does not exist, but its directory does.
        UriError: the path contains a link or names no regular file, or a directory on the way does not exist.
        OSError: any other error of the system.
    """
    *folders, name = path.removeprefix(f"{prefix}/").split("/")
    with _open_parent(prefix, folders) as directory:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise UriError(KeptObject.LINK)
        if not stat.S_ISREG(mode):
            raise UriError(KeptObject.FOLDER)
        if confirm():
            os.unlink(name, dir_fd=directory)


@contextmanager
def _open_parent(prefix: str, folders: list[str]) -> Iterator[int]:
    """Descend from the prefix folder by folder and yield the descriptor of the last one."""
    try:
        directory = os.open(os.path.realpath(prefix), DIRECTORY)
    except FileNotFoundError:
        raise UriError(KeptObject.NO_DIRECTORY) from None  # if it is not mounted, every file would seem absent
    try:
        for name in folders:
            try:
                below = _open_folder(name, directory)
            except FileNotFoundError:  # it may not be mounted, or be renamed for a moment
                raise UriError(KeptObject.NO_PARENT) from None
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def _open_folder(name: str, directory: int) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=directory)
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise UriError(KeptObject.LINK) from None
        raise
