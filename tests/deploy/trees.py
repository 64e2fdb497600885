"""What a kustomization makes, read without kustomize: its resources, the ConfigMaps it generates, the images it sets.

Invariant: it knows no field that the repository does not use, and refuses what it does not know. It leaves names
as they are written; kustomize adds a hash to those of generated ConfigMaps.
"""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
FILE = "kustomization.yaml"
FIELDS = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "images"}


class Strict(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's loaders otherwise keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 — the base class's signature
        """The mapping of a node."""
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a key is given twice{node.start_mark}")
        return super().construct_mapping(node, deep=deep)


def documents(text: str) -> list[Document]:
    """All documents of a YAML text."""
    return [document for document in yaml.load_all(text, Strict) if document]


def read(folder: Path) -> list[Document]:
    """Everything that the kustomization in a folder makes."""
    kustomization = _kustomization(folder)
    made = [each for name in kustomization.get("resources", []) for each in _resource(folder / name)]
    made += [_config_map(folder, each) for each in kustomization.get("configMapGenerator", [])]
    for name in kustomization.get("components", []):
        for image in _kustomization(folder / name).get("images", []):
            _set_image(made, image)
    return made


def containers(document: Document) -> Iterator[Document]:
    """The containers of whatever runs pods."""
    spec = pod_template(document).get("spec", {})
    yield from spec.get("initContainers", [])
    yield from spec.get("containers", [])


def pod_template(document: Document) -> Document:
    """The template that a CronJob, Job or Deployment makes its pods from; {} for what runs nothing."""
    spec: Document = document.get("spec", {})
    found: Document = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return found


def _kustomization(folder: Path) -> Document:
    (found,) = documents((folder / FILE).read_text())
    unknown = set(found) - FIELDS
    assert not unknown, f"{folder / FILE}: {unknown} is nothing that these tests can read"
    return found


def _resource(path: Path) -> list[Document]:
    return read(path) if path.is_dir() else documents(path.read_text())


def _config_map(folder: Path, generator: Document) -> Document:
    data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", [])}
    for name in generator.get("envs", []):
        lines = (folder / name).read_text().splitlines()
        data.update(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def _set_image(made: list[Document], image: Document) -> None:
    for container in (each for document in made for each in containers(document)):
        if container["image"] == image["name"]:
            container["image"] = f"{image['newName']}@{image['digest']}"
