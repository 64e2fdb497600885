"""Finds the configured prefix of an object and removes the object, from a local directory or by fsspec.

Invariant: no file system outside the prefixes is opened. If one hangs, the objects below its prefix are skipped and no second
thread waits for it.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread

import fsspec

from sweeper.objects import local_files
from sweeper.uri import FILE, KeptObject, Uri, UriError, parse, parse_prefix

POLL_SECONDS = 0.1
HANGS_SECONDS = 30.0
"""A file system that does not answer for this long counts as hanging."""


class StoppedError(Exception):
    """The run was asked to stop while it waited for a file system."""


class NotRemovedError(Exception):
    """The object may still be there; `reason` is a `KeptObject` or the class of the file system's error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_waiting: dict[Uri, Thread] = {}
"""The threads of this process that wait for a file system, at most one per prefix."""


@dataclass(frozen=True)
class FoundObject:
    """A removable object: its URI, its configured prefix and its other known URIs."""

    uri: Uri
    prefix: Uri
    others: tuple[Uri, ...] = ()

    @property
    def uris(self) -> tuple[Uri, ...]:
        """All known URIs of the object."""
        return (self.uri, *self.others)


@dataclass(frozen=True)
class ObjectPrefixes:
    """The configured prefixes, longest first, and the real paths of the local ones, except where the file system hangs."""

    prefixes: Sequence[Uri]
    roots: Mapping[Uri, str]

    @classmethod
    def resolve(cls, prefixes: Sequence[str], may_continue: Callable[[], bool]) -> "ObjectPrefixes":
        """Parse the prefixes of [objects] and resolve the local ones.

        Raises:
            StoppedError: `may_continue` returned False.
        """
        parsed = sorted(map(parse_prefix, prefixes), key=lambda prefix: -len(prefix.path))
        roots = {}
        for prefix in parsed:
            if prefix.protocol == FILE and not is_waiting(prefix):
                with suppress(NotRemovedError):
                    roots[prefix] = _run_in_thread(prefix, partial(_real_path, prefix), may_continue)
        return cls(parsed, roots)

    def find(self, text: str) -> FoundObject:
        """Return the object with this URI.

        Raises:
            UriError: the object may not be removed.
        """
        uri = parse(text)
        prefix = next((prefix for prefix in self.prefixes if uri.is_below(prefix)), None)
        if prefix is None:
            raise UriError(KeptObject.OUTSIDE)
        return FoundObject(uri, prefix, self._others(uri, prefix))

    def hangs(self, prefix: Uri) -> bool:
        """Return True if the file system of a prefix did not answer this run, or an earlier one of this process."""
        return is_waiting(prefix) or (prefix.protocol == FILE and prefix not in self.roots)

    def _others(self, uri: Uri, prefix: Uri) -> tuple[Uri, ...]:
        """Return the other URIs that a file has because a configured directory is a symbolic link."""
        if prefix not in self.roots:
            return ()
        real = Uri(FILE, self.roots[prefix] + uri.path.removeprefix(prefix.path))
        aliases = {
            Uri(FILE, other.path + real.path.removeprefix(root))
            for other, root in self.roots.items()
            if real.path.startswith(f"{root}/")
        }
        return tuple(({real} | aliases) - {uri})


def _real_path(prefix: Uri, _: Callable[[], bool]) -> str:
    return os.path.realpath(prefix.path)


def is_waiting(prefix: Uri) -> bool:
    """Return True if a thread of this process still waits for the file system of a prefix."""
    thread = _waiting.get(prefix)
    return thread is not None and thread.is_alive()


def remove(found: FoundObject, may_continue: Callable[[], bool]) -> str:
    """Remove one object and return `removed`, or `absent` if it did not exist.

    Args:
        found: the object.
        may_continue: polled while waiting for the file system; False stops the wait.

    Raises:
        StoppedError: `may_continue` returned False.
        NotRemovedError: the file system refused, failed or hangs.
        Exception: any error that `may_continue` raises.
    """

    def work(confirm: Callable[[], bool]) -> str:
        try:
            _remove(found, confirm)
        except FileNotFoundError:
            return "absent"
        return "removed"

    return _run_in_thread(found.prefix, work, may_continue)


def _remove(found: FoundObject, confirm: Callable[[], bool]) -> None:
    if found.uri.protocol == FILE:
        local_files.remove(found.prefix.path, found.uri.path, confirm)
        return
    filesystem, path = fsspec.core.url_to_fs(found.uri.text)
    if confirm():
        filesystem.rm_file(path)


def _run_in_thread(prefix: Uri, work: Callable[[Callable[[], bool]], str], may_continue: Callable[[], bool]) -> str:
    """Call `work` in a daemon thread and return its result; a thread that hangs is abandoned.

    `work` gets a callable that returns False once nobody waits any more. It must call it just before it changes anything.
    """
    is_awaited, answers = Event(), SimpleQueue[str | BaseException]()
    is_awaited.set()
    thread = Thread(target=lambda: answers.put(_call(work, is_awaited.is_set)), name="object", daemon=True)
    _waiting[prefix] = thread
    thread.start()
    try:
        answer = _wait_for(answers, may_continue)
    finally:
        is_awaited.clear()
    if isinstance(answer, UriError):
        raise NotRemovedError(answer.kept)
    if isinstance(answer, Exception):
        raise NotRemovedError(type(answer).__name__)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _wait_for(answers: "SimpleQueue[str | BaseException]", may_continue: Callable[[], bool]) -> str | BaseException:
    deadline = time.monotonic() + HANGS_SECONDS
    while time.monotonic() < deadline:
        with suppress(Empty):
            return answers.get(timeout=POLL_SECONDS)
        if not may_continue():
            raise StoppedError
    raise NotRemovedError(KeptObject.HANGS)


def _call(work: Callable[[Callable[[], bool]], str], confirm: Callable[[], bool]) -> str | BaseException:
    try:
        return work(confirm)
    except BaseException as error:  # a file system may raise anything; the object stays pending
        return error
