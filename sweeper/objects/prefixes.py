"""Finds the configured prefix of an object.

Invariant: no file system outside the prefixes is opened.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sweeper.objects import threads
from sweeper.uri import FILE, KeptObject, Uri, UriError, parse, parse_prefix


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
            if prefix.protocol == FILE and not threads.is_waiting(prefix):
                for _, answer in threads.run(prefix, [partial(_real_path, prefix)], may_continue):
                    if isinstance(answer, str):
                        roots[prefix] = answer
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
        return threads.is_waiting(prefix) or (prefix.protocol == FILE and prefix not in self.roots)

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
