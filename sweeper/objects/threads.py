"""Calls file systems in threads that are abandoned if they hang.

Invariant: while a thread waits for the file system of a prefix, no call begins there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from sweeper.uri import KeptObject, Uri, UriError

T = TypeVar("T")
Work = Callable[[Callable[[], bool]], T]
"""Gets a callable that returns False once nobody waits any more, and must call it just before it changes anything."""
POLL_SECONDS = 0.1
HANGS_SECONDS = 30.0
"""A file system that does not answer for this long counts as hanging."""
STOP_SECONDS = 1.0
"""How much longer to wait for a file system once the run is to stop, so that what it removes meanwhile is recorded."""


class StoppedError(Exception):
    """The run was asked to stop while it waited for a file system."""


@dataclass(frozen=True)
class NotRemoved:
    """The object may still be there; `reason` is a `KeptObject`, the class of the file system's error or S3's error code."""

    reason: str


_waiting: dict[Uri, Sequence[Thread]] = {}
"""The last threads of this process for each prefix."""


def is_waiting(prefix: Uri) -> bool:
    """Return True if a thread of this process still waits for the file system of a prefix."""
    return any(thread.is_alive() for thread in _waiting.get(prefix, ()))


def run(
    prefix: Uri, works: Sequence[Work[T]], may_continue: Callable[[], bool]
) -> Iterator[tuple[int, T | NotRemoved]]:
    """Call each of `works` in a daemon thread and yield its position and result, or why there is none.

    Args:
        prefix: the prefix of the file system.
        works: what to call.
        may_continue: polled while waiting; False ends the wait.

    Raises:
        StoppedError: `may_continue` returned False, and a thread has no result yet.
        Exception: any error that `may_continue` raises.
    """
    is_awaited, answers = Event(), SimpleQueue[tuple[int, T | BaseException]]()
    is_awaited.set()
    calls = (partial(_call, work, is_awaited.is_set) for work in works)
    threads = [
        Thread(target=partial(_answer, answers, position, call), name="object", daemon=True)
        for position, call in enumerate(calls)
    ]
    _waiting[prefix] = threads
    for thread in threads:
        thread.start()
    try:
        yield from _wait_for(answers, len(works), may_continue)
    finally:
        is_awaited.clear()


def _answer(
    answers: SimpleQueue[tuple[int, T | BaseException]], position: int, call: Callable[[], T | BaseException]
) -> None:
    answers.put((position, call()))


def _call(work: Work[T], confirm: Callable[[], bool]) -> T | BaseException:
    try:
        return work(confirm)
    except BaseException as error:  # a file system may raise anything; the object stays pending
        return error


def _wait_for(
    answers: SimpleQueue[tuple[int, T | BaseException]], count: int, may_continue: Callable[[], bool]
) -> Iterator[tuple[int, T | NotRemoved]]:
    deadline, is_stopped, unanswered = time.monotonic() + HANGS_SECONDS, False, set(range(count))
    while unanswered and time.monotonic() < deadline:
        try:
            position, answer = answers.get(timeout=POLL_SECONDS)
        except Empty:
            pass
        else:
            unanswered.remove(position)
            yield position, _result(answer)
        if unanswered and not is_stopped and not may_continue():
            is_stopped, deadline = True, min(deadline, time.monotonic() + STOP_SECONDS)
    if unanswered and is_stopped:
        raise StoppedError
    yield from ((position, NotRemoved(KeptObject.HANGS)) for position in sorted(unanswered))


def _result(answer: T | BaseException) -> T | NotRemoved:
    if isinstance(answer, UriError):
        return NotRemoved(answer.kept)
    if isinstance(answer, Exception):
        return NotRemoved(type(answer).__name__)
    if isinstance(answer, BaseException):
        raise answer
    return answer
