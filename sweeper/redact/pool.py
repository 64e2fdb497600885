"""Filters texts in worker processes and returns the results in order.

Invariant: each text yields exactly one result, or the caller gets an error. No worker outlives the caller.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import chain, islice
from typing import TypeAlias

from sweeper.errors import SweeperError
from sweeper.redact.filter import Filter, Filtered, recognisers

Chunk: TypeAlias = list[str | None]
ChunkResults: TypeAlias = list[Filtered | None]
"""One result for each text of a chunk, as `_reduced` leaves it: an unchanged text need not be sent back."""

TEXTS = 2048
CHARACTERS = 250_000
"""A chunk ends when it has this many texts or characters."""
AHEAD = 2
"""Chunks in flight per worker."""
DEATHS = 3
"""Number of times in a row that workers may die before the filter gives up."""


class FilterBrokenError(SweeperError):
    """Workers of the text filter died repeatedly; no more text was filtered or written. Check for a lack of memory."""


def apply_all(chosen: Filter, texts: Iterable[str | None], workers: int | None = None) -> Iterator[Filtered]:
    """Yield the result for each text, in order, computed by `workers` processes or one per core.

    Texts are consumed as results are taken, so that a few chunks per worker bound the memory. Up to one chunk of texts, or any
    number on a single core, is filtered in this process.

    Raises:
        ConfigurationError: the libraries of the extra `text` are not installed; raised by the call itself.
        FilterBrokenError: workers died repeatedly.
    """
    recognisers()
    return _results(chosen, texts, workers)


def _results(chosen: Filter, texts: Iterable[str | None], workers: int | None) -> Iterator[Filtered]:
    chunks = _chunks(texts)
    first = list(islice(chunks, 2))
    count = workers or len(os.sched_getaffinity(0))
    if count == 1 or len(first) < 2:
        for chunk in chain(first, chunks):
            yield from map(chosen.apply, chunk)
        return
    pool = _Pool(chosen, count)
    try:
        yield from pool.results(chain(first, chunks))
    finally:
        pool.close()


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
    """The worker processes and the chunks in flight, in order."""

    def __init__(self, chosen: Filter, workers: int) -> None:
        self.chosen = chosen
        self.workers = workers
        self.executor = self._start()
        self.in_flight: deque[tuple[Chunk, Future[ChunkResults]]] = deque()

    def results(self, chunks: Iterator[Chunk]) -> Iterator[Filtered]:
        """Yield the results in the order of the texts."""
        for chunk in chunks:
            self.in_flight.append((chunk, self._submit(chunk)))
            if len(self.in_flight) >= self.workers * AHEAD:
                yield from self._oldest()
        while self.in_flight:
            yield from self._oldest()

    def close(self) -> None:
        """End the workers and discard the chunks in flight."""
        self.executor.shutdown(wait=True, cancel_futures=True)

    def _oldest(self) -> list[Filtered]:
        for _ in range(DEATHS):
            try:
                answers = self.in_flight[0][1].result()
            except BrokenProcessPool:
                self._restart()
            else:
                chunk, _ = self.in_flight.popleft()
                return [_completed(text, answer) for text, answer in zip(chunk, answers, strict=True)]
        raise FilterBrokenError(str(FilterBrokenError.__doc__))

    def _restart(self) -> None:
        """Start new workers and submit all chunks in flight again, which is safe because filtering is deterministic."""
        self.close()
        self.executor = self._start()
        self.in_flight = deque((chunk, self._submit(chunk)) for chunk, _ in self.in_flight)

    def _submit(self, chunk: Chunk) -> Future[ChunkResults]:
        """Submit a chunk; if the workers have just died, return a future that failed like those of the other chunks."""
        try:
            return self.executor.submit(_filter_chunk, self.chosen, chunk)
        except BrokenProcessPool as error:
            failed: Future[ChunkResults] = Future()
            failed.set_exception(error)
            return failed

    def _start(self) -> ProcessPoolExecutor:
        """Start workers by `spawn`; after a fork in a process with threads, a worker could inherit a locked lock."""
        return ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    """Prepare a worker: ignore Ctrl-C, which the caller handles, and exit as soon as the caller has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _filter_chunk(chosen: Filter, chunk: Chunk) -> ChunkResults:
    return [_reduced(text, filtered) for text, filtered in zip(chunk, map(chosen.apply, chunk), strict=True)]


def _reduced(text: str | None, filtered: Filtered) -> Filtered | None:
    """Return a result without an unchanged text; None if nothing else is in it."""
    if not filtered.passed or filtered.text is not text:
        return filtered
    return replace(filtered, text=None) if filtered.language else None


def _completed(text: str | None, answer: Filtered | None) -> Filtered:
    """Return the result that was reduced."""
    if answer is None:
        return Filtered(text)
    return replace(answer, text=text) if answer.passed and answer.text is None else answer
