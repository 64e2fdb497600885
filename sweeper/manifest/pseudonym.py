"""Keyed pseudonyms for accounts, which cannot be traced back without the key.

Invariant: a manifest contains no account id, e-mail address or name, and the key is never written anywhere.
"""

import hmac
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from math import log2
from pathlib import Path

from sweeper import files
from sweeper.errors import ConfigurationError
from sweeper.files import UnreadableError

SHORTEST = 32
"""Bytes; a shorter key could be found by trying."""
LEAST_BITS = 72
"""A key with a lower estimate is refused. Random keys of 32 hexadecimal digits score lowest, at 115 ± 4."""
FEWEST_DIGITS = 39
"""Length of a key of decimal digits that has 128 bits."""
FILE, INLINE = "SWEEPER_PSEUDONYM_KEY_FILE", "SWEEPER_PSEUDONYM_KEY"
REMEDY = (
    f"Nothing was built. Write at least {SHORTEST} random bytes to a file, for instance by "
    f"`head -c 48 /dev/urandom | base64`, and name it in {FILE}."
)


@dataclass(frozen=True)
class Pseudonym:
    """Computes pseudonyms with one key."""

    key: bytes = field(repr=False)

    def of(self, account_id: str) -> str:
        """Return the pseudonym of an account: HMAC-SHA-256 in hex."""
        return hmac.new(self.key, b"subject\0" + account_id.encode(), sha256).hexdigest()

    @property
    def mark(self) -> str:
        """An identifier of the key that reveals nothing about it."""
        return hmac.new(self.key, b"mark\0", sha256).hexdigest()[:16]


def is_given(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if the environment names or contains a key."""
    return bool(environment.get(FILE) or environment.get(INLINE))


def read(environment: Mapping[str, str] = os.environ) -> Pseudonym:
    """Read the key that the environment names or contains.

    Raises:
        ConfigurationError: the key is missing, unreadable, too short, or follows a pattern.
    """
    named, inline = environment.get(FILE), environment.get(INLINE)
    if not named and not inline:
        raise ConfigurationError(f"no key for pseudonyms: neither {FILE} nor {INLINE} is set. {REMEDY}")
    try:
        key = files.read_bytes(Path(named)).strip() if named else (inline or "").encode().strip()
    except UnreadableError as error:
        raise ConfigurationError(f"{FILE} {named}: cannot be read ({error}). {REMEDY}") from None
    if len(key) < SHORTEST:
        raise ConfigurationError(
            f"the key for pseudonyms has {len(key)} bytes, at least {SHORTEST} are needed. {REMEDY}"
        )
    if estimated_bits(key) < LEAST_BITS or (key.isdigit() and len(key) < FEWEST_DIGITS):
        raise ConfigurationError(
            f"the key for pseudonyms has {len(key)} bytes, but they repeat or follow a pattern, and could be found by trying. "
            f"{REMEDY}"
        )
    return Pseudonym(key)


def estimated_bits(key: bytes) -> float:
    """Return an upper bound of a key's entropy in bits, from repetition, the spread of its bytes and the spread of their steps.

    It detects patterns ("aaaa…", "abcabc…", "0123…"), but not dictionary words.
    """
    unit = _unit(key)
    steps = bytes((after - before) % 256 for before, after in pairwise(unit))
    return min(_spread(unit), _spread(steps))


def _unit(key: bytes) -> bytes:
    """Return the shortest prefix whose repetition gives the key."""
    return next(key[:end] for end in range(1, len(key) + 1) if (key[:end] * (len(key) // end + 1)).startswith(key))


def _spread(values: bytes) -> float:
    """Return the Shannon entropy of the bytes, by their frequencies, times their count."""
    return sum(count * log2(len(values) / count) for count in Counter(values).values())
