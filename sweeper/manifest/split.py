"""Divides the accounts of manifests into training, validation and test data.

Invariant: an account is in one split, the same in every manifest with the same salt and shares, whatever the key for pseudonyms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from sweeper.settings import ManifestSettings

SALT = "sweeper-split-1"
"""It never changes: another salt would move people from one split to another."""
POINTS = 1 << 64


class Split(StrEnum):
    """What the rows of an account are for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Splitter:
    """Assigns accounts to splits; the shares are in percent."""

    validation: float
    test: float

    @classmethod
    def of_settings(cls, settings: ManifestSettings) -> "Splitter":
        """Return the splitter that the settings describe."""
        return cls(settings.validation_percent, settings.test_percent)

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of each split in percent."""
        return {
            Split.TRAIN.value: 100 - self.validation - self.test,
            Split.VALIDATION.value: self.validation,
            Split.TEST.value: self.test,
        }

    def of(self, account_id: str) -> Split:
        """Return the split of an account, from a hash of its id."""
        digest = sha256(f"{SALT}\0{account_id}".encode()).digest()
        percent = int.from_bytes(digest[:8]) / POINTS * 100
        if percent < self.test:
            return Split.TEST
        return Split.VALIDATION if percent < self.test + self.validation else Split.TRAIN
