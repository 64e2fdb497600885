"""`manifest.json`: what a manifest says of itself. Its id is derived from all the rest, file hashes included.

The law of this file: nothing in it depends on when or where it was built.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sweeper import files as handed
from sweeper.errors import SweeperError
from sweeper.files import UnreadableError
from sweeper.policy.instant import parse

NAME = "manifest.json"
FORMAT = 1
MOST = 64 << 20
"""Bytes: one line a data file, of which a manifest may have many."""


class DamagedError(SweeperError):
    """The directory does not hold the manifest that it says; the text names the file and what differs."""


class DescriptionRecord(BaseModel):
    """A table of the file: no unknown key."""

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
    """The policy under which it was built."""

    name: str
    digest: str
    resumed: str


class FilterNote(DescriptionRecord):
    """By what the text was filtered, what was found, and how many texts did not pass and were not written."""

    name: str
    version: str
    found: Mapping[str, int]
    not_passed: int


class PseudonymNote(DescriptionRecord):
    """How accounts were made pseudonyms; `mark` tells one key from another."""

    algorithm: str
    mark: str


class Description(DescriptionRecord):
    """What `manifest.json` holds."""

    format: int
    id: str
    store: str
    as_of: str
    policy: PolicyNote
    eligible: int
    excluded: Mapping[str, int]
    order: Sequence[str]
    schema_: Sequence[ManifestField]
    files: Sequence[ManifestFile]
    subject: PseudonymNote
    filter: FilterNote | None
    tool: Mapping[str, str]

    @property
    def instant(self) -> datetime:
        """The as-of (UTC)."""
        return parse(self.as_of)

    @property
    def derived_id(self) -> str:
        """The id that follows from the rest."""
        said = {key: value for key, value in self.said().items() if key != "id"}
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(canonical.encode()).hexdigest()[:32]

    def said(self) -> dict[str, Any]:
        """As it is written, key by key."""
        found = self.model_dump(mode="json")
        found["schema"] = found.pop("schema_")
        return found

    def write(self, folder: Path) -> None:
        """Write the file."""
        text = json.dumps(self.said(), indent=2, ensure_ascii=False)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")


def described(**said: Any) -> Description:
    """A description whose id follows from the rest."""
    draft = Description(format=FORMAT, id="", **said)
    return draft.model_copy(update={"id": draft.derived_id})


def read(folder: Path) -> Description:
    """The description of the manifest in a directory.

    Raises:
        DamagedError: there is none, it is no such file, or it was changed.
    """
    path = folder / NAME
    try:
        raw = json.loads(handed.text(path, MOST))
        if isinstance(raw, dict):
            raw["schema_"] = raw.pop("schema", None)
        found = Description.model_validate(raw)
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
