"""`croissant.json`: the manifest in the MLCommons Croissant format with its responsible-AI fields, for data loaders.

Invariant: the file describes the manifest as it was built; of later revocations it names only the files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeper.manifest.description import Description, ManifestField, ManifestFile, SplitNote

NAME = "croissant.json"
PARQUET = "application/x-parquet"
TYPES = {
    "string": "sc:Text",
    "int64": "sc:Integer",
    "timestamp[us, tz=UTC]": "sc:DateTime",
}
CONFORMS_TO = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0")
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write(folder: Path, description: Description, revoked: Sequence[ManifestField]) -> None:
    """Write the file into a directory; `revoked` are the columns of the revocation files."""
    text = json.dumps(metadata(description, revoked), indent=2, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def metadata(description: Description, revoked: Sequence[ManifestField]) -> dict[str, Any]:
    """Return the description as Croissant metadata."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": f"training-manifest-{description.id}",
        "description": _summary(description),
        "version": "1.0.0",
        "datePublished": description.as_of,
        "url": f"urn:sweeper:manifest:{description.id}",
        "citeAs": f"training manifest {description.id}",
        "creator": {"@type": "sc:Organization", "name": "The operator of the store"},
        "license": {
            "@type": "sc:CreativeWork",
            "name": "Internal use only",
            "description": "Model training by the operator, within the consent of the account; no other use, no publication.",
        },
        **_responsible_ai(description),
        "distribution": [
            *map(_file, description.files),
            _file_set("message-files", "part-*.parquet", "The rows of the manifest; they never change."),
            _file_set("revocation-files", "revoked-*.parquet", "Rows to leave out; files are added as they are found."),
        ],
        "recordSet": [
            {
                **_record_set(
                    "messages",
                    "Messages that may be trained on, unless they are in `revocations`.",
                    "message-files",
                    description.schema_,
                ),
                "key": {"@id": "messages/message_id"},
            },
            _record_set(
                "revocations",
                "Messages that may not be trained on any more, some named twice: take an anti-join on message_id.",
                "revocation-files",
                revoked,
            ),
        ],
    }


def _summary(description: Description) -> str:
    excluded = ", ".join(f"{count} {reason}" for reason, count in description.excluded.items() if count) or "none"
    return (
        f"The {description.eligible} messages that may be trained on at {description.as_of} under policy "
        f"{description.policy.name!r} ({description.policy.digest}). Messages left out, by reason: {excluded}."
    )


def _responsible_ai(description: Description) -> dict[str, str]:
    """Return the responsible-AI fields."""
    return {
        "rai:dataCollection": "Messages stored by the AI assistant, selected by plan, consent and retention; nothing else.",
        "rai:dataPreprocessingProtocol": _preprocessing(description),
        "rai:personalSensitiveInformation": _personal_data(description),
        "rai:dataBiases": "Only people who agreed to training, on the plans that ask for it, are in it.",
        "rai:dataLimitations": f"{_scope(description)} Not a sample of all users.",
        "rai:dataUseCases": "Model training by the operator, until each row's expires_at or its revocation.",
        "rai:dataReleaseMaintenancePlan": (
            "Rows that lose eligibility are listed by `sweeper manifest recall`; a training run takes an anti-join."
        ),
    }


def _scope(description: Description) -> str:
    if description.policy.resumed == "entire":
        return "Only accounts whose consent was in force; of a chat resumed under it also what was written before."
    return "Only accounts whose consent was in force; only messages written under it."


def _preprocessing(description: Description) -> str:
    done = [f"Account ids were replaced by {description.subject.algorithm} pseudonyms."]
    if description.split:
        done.append(
            f"Accounts were divided into {_splits(description.split)} by SHA-256 of a fixed salt and their ids."
        )
    if description.filter:
        done.append(f"Text was filtered by {description.filter.name} {description.filter.version}.")
    if description.language:
        done.append(f"Languages were detected by {description.language.name} {description.language.version}.")
    return " ".join(done)


def _splits(split: SplitNote) -> str:
    return ", ".join(f"{name} ({share:g} %)" for name, share in split.shares.items())


def _personal_data(description: Description) -> str:
    if all(column.name != "text" for column in description.schema_):
        return "Accounts are keyed pseudonyms. The rows hold no text."
    if description.filter is None:
        return "Accounts are keyed pseudonyms. The text is UNFILTERED, as the policy lets it be."
    return (
        "Accounts are keyed pseudonyms. Text was filtered: "
        f"{sum(description.filter.found.values())} findings replaced, {description.filter.not_passed} texts withheld."
    )


def _file(file: ManifestFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": PARQUET,
        "sha256": file.sha256,
    }


def _file_set(name: str, includes: str, meaning: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": meaning,
        "encodingFormat": PARQUET,
        "includes": includes,
    }


def _record_set(name: str, meaning: str, files: str, columns: Sequence[ManifestField]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": meaning,
        "field": [_field(name, files, column) for column in columns],
    }


def _field(record_set: str, files: str, column: ManifestField) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": column.name,
        "description": column.description,
        "dataType": TYPES[column.type],
        "source": {"fileSet": {"@id": files}, "extract": {"column": column.name}},
    }
