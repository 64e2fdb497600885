"""`croissant.json`: the manifest in the words of MLCommons Croissant, its responsible-AI fields included, for data loaders."""

import json
from pathlib import Path
from typing import Any

from sweeper.manifest.description import Description, Field

NAME = "croissant.json"
TYPES = {
    "string": "sc:Text",
    "int64": "cr:Int64",
    "timestamp[us, tz=UTC]": "sc:DateTime",
}
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
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
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
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


def write(folder: Path, description: Description) -> None:
    """Write the file."""
    text = json.dumps(said(description), indent=2, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def said(description: Description) -> dict[str, Any]:
    """The description in Croissant's words."""
    excluded = ", ".join(f"{count} {reason}" for reason, count in description.excluded.items() if count) or "none"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"training-manifest-{description.id}",
        "description": (
            f"The {description.eligible} messages that may be trained on at {description.as_of} under policy "
            f"{description.policy.name!r} ({description.policy.digest}). Messages left out, by reason: {excluded}."
        ),
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "version": "1.0.0",
        "datePublished": description.as_of,
        "license": "https://example.invalid/internal-use-only",
        "url": f"urn:sweeper:manifest:{description.id}",
        "citeAs": f"training manifest {description.id}",
        "rai:dataCollection": "Messages stored by the AI assistant, selected by plan, consent and retention; nothing else.",
        "rai:personalSensitiveInformation": _personal(description),
        "rai:dataUseCases": "Model training by the holder of the consent, until each row's expires_at or its revocation.",
        "rai:dataLimitations": "Only accounts whose consent was in force; messages written under it. Not a sample of all users.",
        "rai:dataReleaseMaintenancePlan": (
            "Rows that lose eligibility are listed by `sweeper manifest recall`; a training run takes an anti-join."
        ),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.name,
                "name": file.name,
                "contentUrl": file.name,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file.sha256,
            }
            for file in description.files
        ],
        "recordSet": [_record_set(description, number) for number in range(len(description.files))],
    }


def _personal(description: Description) -> str:
    if description.filter is None and all(column.name != "text" for column in description.schema_):
        return "Accounts are keyed pseudonyms. The rows hold no text."
    if description.filter is None:
        return "Accounts are keyed pseudonyms. The text is UNFILTERED, as the policy lets it be."
    return (
        f"Accounts are keyed pseudonyms. Text was filtered by {description.filter.name} {description.filter.version}: "
        f"{sum(description.filter.found.values())} findings replaced, {description.filter.not_passed} texts withheld."
    )


def _record_set(description: Description, number: int) -> dict[str, Any]:
    """One file's rows: Croissant reads the columns of one Parquet file at a time."""
    name = f"messages-{number:05}"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/message_id"},
        "field": [_field(name, description.files[number].name, column) for column in description.schema_],
    }


def _field(record_set: str, file: str, column: Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": column.name,
        "description": column.description,
        "dataType": TYPES[column.type],
        "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
    }
