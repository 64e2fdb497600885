"""The configured prefixes below which objects may be removed, and the removal of one object, by fsspec or from a local directory.

Invariant: no file system outside the prefixes is opened. One that hangs blocks nothing else: while it hangs the objects below
its prefix are skipped, and no second thread waits for it.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread

import fsspec

from sweeper.objects import local_files
from sweeper.uri import FILE, KeptObject, Uri, UriError, parse, parse_prefix

LOOK_SECONDS = 0.1
HANGS_SECONDS = 30.0
"""A file system that has not answered for this long counts as hanging."""


class StoppedError(Exception):
    """The run was told to stop while it waited for a file system."""


class NotRemovedError(Exception):
    """The object may still be there; `reason` is a `Kept` or the class of the file system's error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_waiting: dict[Uri, Thread] = {}
"""The thread of this process that waits for a file system, by place; at most one each."""


@dataclass(frozen=True)
class FoundObject:
    """A removable object: its URI, its place and its other known URIs."""

    uri: Uri
    place: Uri
    others: tuple[Uri, ...] = ()

    @property
    def uris(self) -> tuple[Uri, ...]:
        """All known URIs of the object."""
        return (self.uri, *self.others)


@dataclass(frozen=True)
class ObjectPrefixes:
    """The configured places, and the real paths of the local ones; a place whose file system hangs has none."""

    prefixes: Sequence[Uri]
    roots: Mapping[Uri, str]

    @classmethod
    def look(cls, prefixes: Sequence[str], goes_on: Callable[[], bool]) -> "ObjectPrefixes":
        """Resolve the places of [objects] prefixes.

        Raises:
            StoppedError: `goes_on` returned False.
        """
        places = sorted(map(parse_prefix, prefixes), key=lambda place: -len(place.path))
        roots = {}
        for place in places:
            if place.protocol == FILE and not is_waiting(place):
                with suppress(NotRemovedError):
                    roots[place] = _waited(place, lambda _, place=place: os.path.realpath(place.path), goes_on)  # type: ignore[misc]  # a default in a lambda
        return cls(places, roots)

    def find(self, text: str) -> FoundObject:
        """Return the object that a URI names.

        Raises:
            UriError: the object may not be removed.
        """
        uri = parse(text)
        place = next((place for place in self.prefixes if uri.is_below(place)), None)
        if place is None:
            raise UriError(KeptObject.OUTSIDE)
        return FoundObject(uri, place, self._others(uri, place))

    def hangs(self, place: Uri) -> bool:
        """True if the file system of a place has not answered this run, or an earlier one of this process."""
        return is_waiting(place) or (place.protocol == FILE and place not in self.roots)

    def _others(self, uri: Uri, place: Uri) -> tuple[Uri, ...]:
        """Other URIs of the same file, where a configured directory is a link."""
        if place not in self.roots:
            return ()
        real = Uri(FILE, self.roots[place] + uri.path.removeprefix(place.path))
        ways = {
            Uri(FILE, other.path + real.path.removeprefix(root))
            for other, root in self.roots.items()
            if real.path.startswith(f"{root}/")
        }
        return tuple(({real} | ways) - {uri})


def is_waiting(place: Uri) -> bool:
    """True if a thread of this process still waits for the file system of a place."""
    thread = _waiting.get(place)
    return thread is not None and thread.is_alive()


def remove(found: FoundObject, goes_on: Callable[[], bool]) -> str:
    """Remove one object; returns `removed`, or `absent` if there was none.

    Args:
        found: the object.
        goes_on: polled while waiting for the file system; False stops the wait.

    Raises:
        StoppedError: `goes_on` returned False.
        NotRemovedError: the file system refused, failed or hangs.
        Exception: any error that `goes_on` raises.
    """

    def work(is_wanted: Callable[[], bool]) -> str:
        try:
            _remove(found, is_wanted)
        except FileNotFoundError:
            return "absent"
        return "removed"

    return _waited(found.place, work, goes_on)


def _remove(found: FoundObject, is_wanted: Callable[[], bool]) -> None:
    if found.uri.protocol == FILE:
        local_files.remove(found.place.path, found.uri.path, is_wanted)
        return
    filesystem, path = fsspec.core.url_to_fs(found.uri.text)
    if is_wanted():
        filesystem.rm_file(path)


def _waited(place: Uri, work: Callable[[Callable[[], bool]], str], goes_on: Callable[[], bool]) -> str:
    """Call `work` in a daemon thread and return its result; a thread that hangs is abandoned.

    `work` gets a callable that returns False once nobody waits any more, to be called just before it changes anything.
    """
    wanted, answers = Event(), SimpleQueue[str | BaseException]()
    wanted.set()
    thread = Thread(target=lambda: answers.put(_answer(work, wanted.is_set)), name="object", daemon=True)
    _waiting[place] = thread
    thread.start()
    try:
        answer = _awaited(answers, goes_on)
    finally:
        wanted.clear()
    if isinstance(answer, UriError):
        raise NotRemovedError(answer.kept)
    if isinstance(answer, Exception):
        raise NotRemovedError(type(answer).__name__)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _awaited(answers: "SimpleQueue[str | BaseException]", goes_on: Callable[[], bool]) -> str | BaseException:
    until = time.monotonic() + HANGS_SECONDS
    while time.monotonic() < until:
        with suppress(Empty):
            return answers.get(timeout=LOOK_SECONDS)
        if not goes_on():
            raise StoppedError
    raise NotRemovedError(KeptObject.HANGS)


def _answer(work: Callable[[Callable[[], bool]], str], is_wanted: Callable[[], bool]) -> str | BaseException:
    try:
        return work(is_wanted)
    except BaseException as error:  # a file system may raise anything; the object stays pending
        return error
