"""`manifest.json`, the description of a manifest. Its id is derived from all other values, including the hashes of the files.

Invariant: nothing in the description depends on when or where the manifest was built.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sweeper import files as file_access
from sweeper.errors import SweeperError
from sweeper.files import UnreadableError
from sweeper.policy.instant import parse

NAME = "manifest.json"
FORMAT = 1
MAX_BYTES = 64 << 20
"""A large limit, because the description has an entry for each data file."""


class DamagedError(SweeperError):
    """A directory does not contain the manifest it should; the message names the file and what is wrong with it."""


class DescriptionRecord(BaseModel):
    """An object in the file, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ManifestFile(DescriptionRecord):
    """One data file."""

    name: str
    rows: int
    bytes: int
    sha256: str


class ManifestField(DescriptionRecord):
    """One column."""

    name: str
    type: str
    nullable: bool
    description: str


class PolicyNote(DescriptionRecord):
    """The policy under which the manifest was built."""

    name: str
    digest: str
    resumed: str


class FilterNote(DescriptionRecord):
    """The filter of the text, its findings by kind, and the number of texts that it withheld."""

    name: str
    version: str
    found: Mapping[str, int]
    not_passed: int


class LanguageNote(DescriptionRecord):
    """What detected the languages of the texts."""

    name: str
    version: str


class SplitNote(DescriptionRecord):
    """How accounts were divided into splits: by hash of salt and account, with shares in percent; and the messages in each."""

    salt: str
    shares: Mapping[str, float]
    messages: Mapping[str, int]


class PseudonymNote(DescriptionRecord):
    """How accounts were replaced by pseudonyms; `mark` identifies the key."""

    algorithm: str
    mark: str


class Description(DescriptionRecord):
    """The content of `manifest.json`. A manifest of an earlier version lacks the values that have a default."""

    format: int
    id: str
    store: str
    as_of: str
    policy: PolicyNote
    eligible: int
    excluded: Mapping[str, int]
    order: Sequence[str]
    schema_: Sequence[ManifestField] = Field(alias="schema")
    files: Sequence[ManifestFile]
    subject: PseudonymNote
    filter: FilterNote | None
    tool: Mapping[str, str]
    split: SplitNote | None = None
    language: LanguageNote | None = None

    @property
    def instant(self) -> datetime:
        """The as-of time (UTC)."""
        return parse(self.as_of)

    @property
    def derived_id(self) -> str:
        """The id derived from all other values."""
        values = {key: value for key, value in self.to_dict().items() if key != "id"}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(canonical.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Return the description as it is written, without values that an earlier version did not write."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def write(self, folder: Path) -> None:
        """Write the file into a directory."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")


def describe(**values: Any) -> Description:
    """Return a description of these values, with the derived id."""
    draft = Description(format=FORMAT, id="", **values)
    return draft.model_copy(update={"id": draft.derived_id})


def read(folder: Path) -> Description:
    """Read the description of the manifest in a directory.

    Raises:
        DamagedError: the file is missing, invalid or changed.
    """
    path = folder / NAME
    try:
        found = Description.model_validate(json.loads(file_access.read_text(path, MAX_BYTES)))
    except UnreadableError as error:
        raise DamagedError(
            f"{path}: cannot be read ({error}). Nothing was done with the manifest. Name a manifest's directory."
        ) from None
    except (ValueError, ValidationError, RecursionError):
        raise DamagedError(
            f"{path}: is not what this program writes. Nothing was done with the manifest. Restore the directory from a copy."
        ) from None
    if found.format != FORMAT or found.id != found.derived_id:
        raise DamagedError(
            f"{path}: says id {found.id}, its content gives {found.derived_id}: it was changed. "
            "Nothing was done with the manifest. Restore the directory from a copy."
        )
    return found


def read_of(folder: Path, manifest_id: str) -> Description:
    """Read the description of the manifest with this id; its other files are not read.

    Raises:
        DamagedError: the file is missing, invalid, changed, or that of another manifest.
    """
    found = read(folder)
    if found.id != manifest_id:
        raise DamagedError(
            f"{folder}: it holds manifest {found.id}, not {manifest_id}. Nothing was done with the manifest. "
            "Restore the directory from a copy."
        )
    return found
