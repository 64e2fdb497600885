"""What every adapter has."""

import pytest

from sweeper import applications
from tests.apps.application import VERSIONS

TESTED = sorted(VERSIONS.keys() - {"date"})


@pytest.mark.parametrize("name", TESTED)
def test_version_is_the_tested_one(name: str) -> None:
    """An adapter says which version it was tested with, and so does its page."""
    shipped = applications.load(name)
    requirements = [*VERSIONS[name].get("requirements", []), *VERSIONS[name].get("alone", [])]
    assert f"{shipped.package}=={shipped.version}" in requirements
    assert shipped.shape in (applications.FOLDER / name / "page.md").read_text()
