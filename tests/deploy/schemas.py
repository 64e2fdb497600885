"""The Kubernetes versions that the manifests are held against, and the strict check by their schemas."""

import kubernetes_validate

from tests.deploy.trees import Document

OLDEST, NEWEST = "1.35", "1.37"
"""The oldest version that upstream still supports, and the newest that the package ships. Upstream supports a version for about
14 months: 1.34 ended on 2026-10-27, 1.35 ends on 2027-02-28, then 1.36 is the oldest."""
VERSIONS = (OLDEST, NEWEST)


def complaint(document: Document, version: str) -> str:
    """What the schema of a version says against a document, unknown fields included; "" if nothing."""
    try:
        used = kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']} {'.'.join(map(str, error.path))}: {error.message}"
    assert used == version, f"there is no schema of {version}; {used} was taken"
    return ""
