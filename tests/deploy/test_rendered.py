"""The overlays as kubectl renders them: what is applied to a cluster is what the other tests have looked at."""

import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.deploy import rules, schemas, trees
from tests.deploy.trees import OVERLAYS, ROOT, Document

pytestmark = pytest.mark.system
NAMES = [folder.name for folder in sorted(OVERLAYS.iterdir())]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Document]]:
    """What `kubectl kustomize` makes of each overlay, without any option."""
    return {name: trees.documents(kustomize(name)) for name in NAMES}


def kustomize(name: str) -> str:
    """The text that kubectl renders; it needs no cluster."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.fail(
            "kubectl is not installed, so no overlay was rendered: install version 1.27 or newer", pytrace=False
        )
    done = subprocess.run([program, "kustomize", OVERLAYS / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # it warns of fields that have had their day
    return done.stdout


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_schema(name: str, version: str, rendered: dict[str, list[Document]]) -> None:
    """Every rendered document is valid in the oldest and the newest supported Kubernetes."""
    assert [said for each in rendered[name] if (said := schemas.complaint(each, version))] == []


@pytest.mark.parametrize("name", NAMES)
def test_rules(name: str, rendered: dict[str, list[Document]]) -> None:
    """Our own rules find nothing wrong with what is rendered; the names with a hash fit one another."""
    assert rules.faults(rendered[name]) == {}


@pytest.mark.parametrize("name", NAMES)
def test_rendered_is_what_was_read(name: str, rendered: dict[str, list[Document]]) -> None:
    """The tests that read the files themselves have seen what kubectl makes of them, but for the hashes."""
    read = trees.read(OVERLAYS / name)
    generated = {each["metadata"]["name"] for each in read if each["kind"] == "ConfigMap"}
    assert _sorted(_without_hash(rendered[name], generated)) == _sorted(read)


def test_changed_settings_begin_a_new_pod(rendered: dict[str, list[Document]]) -> None:
    """A ConfigMap's name follows its content: whoever applies changed settings gets pods that have read them."""
    for name in NAMES:
        maps = [each["metadata"]["name"] for each in rendered[name] if each["kind"] == "ConfigMap"]
        assert maps
        assert all(re.fullmatch(r"[a-z-]+-[a-z0-9]{10}", each) for each in maps)


def test_policy_is_whole(rendered: dict[str, list[Document]]) -> None:
    """The policy comes through letter by letter."""
    text = (ROOT / "config" / "policy.toml").read_text()
    assert any(each.get("data", {}).get("policy.toml") == text for each in rendered["daily"])


def _without_hash(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_hash(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_hash(each, names) for each in value]
    bare = re.sub(r"-[a-z0-9]{10}$", "", value) if isinstance(value, str) else value
    return bare if bare in names else value


def _sorted(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda each: (each["kind"], each["metadata"]["name"]))
