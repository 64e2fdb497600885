"""Filters texts on all cores, in order.

The law of this file: every text comes back once and filtered, or the caller gets an error; no worker outlives the caller.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeAlias

from sweeper.errors import SweeperError
from sweeper.redact.filter import Filter, Filtered, recognisers

Chunk: TypeAlias = list[str | None]
Answers: TypeAlias = list[Filtered | None]
"""For each text of a chunk what may leave of it; None where that is all of it, so that it need not be sent back."""

TEXTS = 2048
CHARACTERS = 250_000
"""A chunk ends with the text that makes it so long."""
AHEAD = 2
"""So many chunks for each worker are under way."""
DEATHS = 3
"""So often in a row workers may die over the same chunks."""


class FilterBrokenError(SweeperError):
    """Workers of the text filter died again and again; no more text was filtered or written. Look for a lack of memory."""


def apply_all(chosen: Filter, texts: Iterable[str | None], workers: int | None = None) -> Iterator[Filtered]:
    """Yield what may leave of each text, in order, filtered on all cores or by that many workers.

    Texts are taken as results are: memory is bounded by a few chunks a worker. Few texts, and those of a single core, are
    filtered in this process.

    Raises:
        ConfigurationError: the libraries of the extra `text` are not installed.
        FilterBrokenError: workers died again and again.
    """
    recognisers()
    return _results(chosen, texts, workers)


def _results(chosen: Filter, texts: Iterable[str | None], workers: int | None) -> Iterator[Filtered]:
    chunks = _chunks(texts)
    first = list(islice(chunks, 2))
    count = workers or len(os.sched_getaffinity(0))
    if count == 1 or len(first) < 2:
        for chunk in _chained(first, chunks):
            yield from map(chosen.apply, chunk)
        return
    pool = _Pool(chosen, count)
    try:
        yield from pool.results(_chained(first, chunks))
    finally:
        pool.close()


def _chained(first: list[Chunk], rest: Iterator[Chunk]) -> Iterator[Chunk]:
    while first:
        yield first.pop(0)
    yield from rest


def _chunks(texts: Iterable[str | None]) -> Iterator[Chunk]:
    chunk: Chunk = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text or "")
        if len(chunk) >= TEXTS or characters >= CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class _Pool:
    """The workers, and the chunks under way in the order in which they came."""

    def __init__(self, chosen: Filter, workers: int) -> None:
        self.chosen = chosen
        self.workers = workers
        self.executor = self._started()
        self.under_way: deque[tuple[Chunk, Future[Answers]]] = deque()

    def results(self, chunks: Iterator[Chunk]) -> Iterator[Filtered]:
        """The results in the order of the texts."""
        for chunk in chunks:
            self.under_way.append((chunk, self._submitted(chunk)))
            if len(self.under_way) >= self.workers * AHEAD:
                yield from self._oldest()
        while self.under_way:
            yield from self._oldest()

    def close(self) -> None:
        """End the workers; what they were at is given up."""
        self.executor.shutdown(wait=True, cancel_futures=True)

    def _oldest(self) -> list[Filtered]:
        for _ in range(DEATHS):
            try:
                answers = self.under_way[0][1].result()
            except BrokenProcessPool:
                self._restart()
            else:
                chunk, _ = self.under_way.popleft()
                return [answer or Filtered(text) for text, answer in zip(chunk, answers, strict=True)]
        raise FilterBrokenError(str(FilterBrokenError.__doc__))

    def _restart(self) -> None:
        """New workers for all that is under way: filtering is deterministic, doing it again does no harm."""
        self.close()
        self.executor = self._started()
        self.under_way = deque((chunk, self._submitted(chunk)) for chunk, _ in self.under_way)

    def _submitted(self, chunk: Chunk) -> Future[Answers]:
        """The chunk on its way; where the workers have just died, as one that failed like those before it."""
        try:
            return self.executor.submit(_filter_chunk, self.chosen, chunk)
        except BrokenProcessPool as error:
            failed: Future[Answers] = Future()
            failed.set_exception(error)
            return failed

    def _started(self) -> ProcessPoolExecutor:
        """Workers that share nothing with this process: a fork beside threads may inherit a lock that nobody releases."""
        return ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    """In a worker: leave Ctrl-C to the caller, and end when the caller does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _filter_chunk(chosen: Filter, chunk: Chunk) -> Answers:
    results = zip(chunk, map(chosen.apply, chunk), strict=True)
    return [None if filtered.passed and filtered.text is text else filtered for text, filtered in results]
