"""What every adapter has."""

import tomllib

import pytest

from tests.apps.application import ADAPTERS, VERSIONS

TESTED = sorted(VERSIONS.keys() - {"date"})


@pytest.mark.parametrize("name", TESTED)
def test_version_is_the_tested_one(name: str) -> None:
    """An adapter says which version it was tested with, and so does its page."""
    shipped = tomllib.loads((ADAPTERS / name / "app.toml").read_text())
    requirements = [*VERSIONS[name].get("requirements", []), *VERSIONS[name].get("alone", [])]
    assert f"{shipped['package']}=={shipped['version']}" in requirements
    assert f"{shipped['package']} {shipped['version']}" in (ADAPTERS / name / "page.md").read_text()
