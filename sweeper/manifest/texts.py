"""The texts of a manifest: filtered as the policy says, with the language and length of what is written.

Invariant: language and length are those of the written text, never of what the filter replaced or withheld.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from sweeper.manifest.description import FilterNote, LanguageNote
from sweeper.policy.schema import Policy

if TYPE_CHECKING:
    from sweeper.redact.filter import Filter, Filtered

WORD = r"[^\s\p{Z}]+"
"""A word is what stands between white space."""


@dataclass
class FilterStats:
    """A filter, and what it has replaced and withheld so far."""

    filter: "Filter"
    found: Counter[str] = field(default_factory=Counter)
    not_passed: int = 0

    def add(self, result: "Filtered") -> None:
        """Count one result."""
        self.found.update({kind.value: count for kind, count in result.found.items()})
        self.not_passed += not result.passed

    def note(self) -> FilterNote:
        """Return the statistics as the manifest records them."""
        return FilterNote(
            name=self.filter.name,
            version=self.filter.version,
            found=dict(sorted(self.found.items())),
            not_passed=self.not_passed,
        )


def filter_stats(policy: Policy) -> FilterStats | None:
    """Return the filter that the policy requires; None if text is written as it is."""
    from sweeper.redact.filter import Filter  # only needed for text

    is_filtered = policy.training is None or policy.training.text == "filtered"
    return FilterStats(Filter(with_language=True)) if is_filtered else None


def language_note() -> LanguageNote:
    """Return how languages are detected."""
    from sweeper.redact import language

    return LanguageNote(name=language.LIBRARY, version=language.version())


def described(batches: Iterable[Any], stats: FilterStats | None) -> Iterator[Any]:
    """Yield the batches with their texts as they are written, with language, characters and words."""
    for batch in _as_written(batches) if stats is None else _filtered(batches, stats):
        yield _measured(batch)


def _as_written(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches with the language of each text."""
    import pyarrow as pa

    from sweeper.redact import language

    for batch in batches:
        languages = [language.detect(text) for text in batch.column("text").to_pylist()]
        yield batch.append_column("language", pa.array(languages, pa.string()))


def _filtered(batches: Iterable[Any], stats: FilterStats) -> Iterator[Any]:
    """Yield the batches with filtered texts and their languages; withheld texts are null. One set of workers filters them all."""
    import pyarrow as pa

    pending: deque[Any] = deque()

    def texts() -> Iterator[str | None]:
        for batch in batches:
            if batch.num_rows:
                pending.append(batch)
                yield from batch.column("text").to_pylist()

    from sweeper.redact import pool  # multiprocessing is slow to import

    results = pool.apply_all(stats.filter, texts())
    for first in results:
        batch = pending.popleft()
        found = [first, *islice(results, batch.num_rows - 1)]
        for result in found:
            stats.add(result)
        column = batch.schema.get_field_index("text")
        batch = batch.set_column(column, "text", pa.array([result.text for result in found], pa.string()))
        yield batch.append_column("language", pa.array([result.language for result in found], pa.string()))


def _measured(batch: Any) -> Any:
    """Return a batch with the characters and words of its texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = batch.column("text").cast(pa.string())
    batch = batch.append_column("characters", pc.utf8_length(text))
    return batch.append_column("words", pc.count_substring_regex(text, pattern=WORD))
