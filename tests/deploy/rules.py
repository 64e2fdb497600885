"""Our own checks of Kubernetes manifests that belong together. Each rule takes them all and yields what is wrong, in words."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any
from zoneinfo import available_timezones

from tests.deploy import commands, crontab, trees, wanted
from tests.deploy.trees import ROOT, Document
from tests.deploy.wanted import MISSING, Wanted, at

SECRET_NAMES = {"SWEEPER_DATABASE_URL", "SWEEPER_SIGNING_KEY", "SWEEPER_PSEUDONYM_KEY"}
EXAMPLE = trees.documents((ROOT / "deploy" / "kubernetes" / "secret.example.yaml").read_text())
"""The secrets that a cluster is asked to hold."""
REFERENCE = re.compile(r"\$\(([A-Z_]+)\)")


@dataclass(frozen=True)
class Pod:
    """What a CronJob, Job or Deployment runs."""

    kind: str
    labels: Mapping[str, str]
    spec: Document

    @property
    def container(self) -> Document:
        """Its one container."""
        (found,) = self.spec["containers"]
        return dict(found)


@dataclass(frozen=True)
class World:
    """Manifests that are applied together."""

    documents: list[Document]

    @cached_property
    def pods(self) -> list[Pod]:
        """All that runs."""
        templates = [(document["kind"], trees.pod_template(document)) for document in self.documents]
        return [
            Pod(kind, at(template, "metadata.labels"), template["spec"]) for kind, template in templates if template
        ]

    def of(self, kind: str) -> list[Document]:
        """All documents of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def keys(self, kind: str) -> dict[str, dict[str, str]]:
        """By name, what ConfigMaps hold, or what Secrets are expected to hold."""
        found = self.of(kind) if kind == "ConfigMap" else EXAMPLE
        return {each["metadata"]["name"]: each.get("data") or each.get("stringData") or {} for each in found}

    def environment(self, pod: Pod) -> dict[str, str | None]:
        """What a container finds in its environment; None stands for what is secret."""
        maps = self.keys("ConfigMap")
        found: dict[str, str | None] = {}
        for source in pod.container.get("envFrom", []):
            found |= maps.get(source["configMapRef"]["name"], {})
        return found | {each["name"]: each.get("value") for each in pod.container.get("env", [])}


Rule = Callable[[World], Iterator[str]]


def faults(documents: list[Document]) -> dict[str, list[str]]:
    """What is wrong with manifests, by the name of the rule that says so; {} if nothing is."""
    world = World(documents)
    found = {rule.__name__: list(rule(world)) for rule in RULES}
    return {name: texts for name, texts in found.items() if texts}


def one_workload(world: World) -> Iterator[str]:
    """Exactly one thing runs, with one container, and no object is there twice."""
    if len(world.pods) != 1:
        yield f"{len(world.pods)} things run"
    for pod in world.pods:
        if len(pod.spec["containers"]) != 1 or "initContainers" in pod.spec:
            yield f"{pod.kind}: not exactly one container"
    names = Counter((each["kind"], each["metadata"]["name"]) for each in world.documents)
    yield from (f"{name} is there twice" for name, count in names.items() if count > 1)


def tables(world: World) -> Iterator[str]:
    """Whatever runs has what the tables want."""
    for document in world.documents:
        yield from _unmet(document, wanted.WORKLOAD.get(document["kind"], ()))
    for pod in world.pods:
        yield from _unmet(pod.spec, wanted.POD)
        yield from _unmet(pod.container, wanted.CONTAINER)


def _unmet(document: Document, rows: tuple[Wanted, ...]) -> Iterator[str]:
    for row in rows:
        found = at(document, row.path)
        if not row.holds(found):
            yield f"{row.path}: {'missing' if found is MISSING else repr(found)}"


def enumerations(world: World) -> Iterator[str]:
    """Every word of an enumeration is one of its words, and none is overlooked."""
    for document in world.documents:
        for path, value in wanted.walk({key: part for key, part in document.items() if key != "data"}):
            words = wanted.allowed(path)
            dotted = ".".join(map(str, path))
            if words is not None and value not in words:
                yield f"{dotted}: {value!r} is none of {sorted(words)}"
            looks_like_one = isinstance(value, str) and re.fullmatch(r"[A-Z][A-Za-z]+", value)
            if words is None and looks_like_one and not wanted.FREE & set(path):
                yield f"{dotted}: {value!r} is of no enumeration that we know"


def schedules(world: World) -> Iterator[str]:
    """A cron string has five fields that mean something, and its zone exists."""
    for document in world.of("CronJob"):
        try:
            crontab.parse(document["spec"]["schedule"])
        except crontab.CronError as error:
            yield str(error)
        if document["spec"].get("timeZone", "Etc/UTC") not in available_timezones():
            yield f"no zone {document['spec']['timeZone']}"


def environments(world: World) -> Iterator[str]:
    """The program knows each variable or the arguments use it, and none is set twice."""
    for pod in world.pods:
        used = set(REFERENCE.findall(" ".join(pod.container["args"])))
        for name in world.environment(pod):
            if name not in commands.known_names() | used:
                yield f"{pod.kind}: neither the program nor its arguments use {name}"
        names = Counter(each["name"] for each in pod.container.get("env", []))
        yield from (f"{pod.kind}: {name} is set twice" for name, count in names.items() if count > 1)


def secrets(world: World) -> Iterator[str]:
    """No secret is written down: each comes by reference, and no text holds a password."""
    yield from (f"Secret {each['metadata']['name']} is among the manifests" for each in world.of("Secret"))
    for pod in world.pods:
        for name, value in world.environment(pod).items():
            if name in SECRET_NAMES and value is not None:
                yield f"{name} is written down"
    for path, value in wanted.walk(world.documents):
        if isinstance(value, str) and re.search(r"://[^/\s:@]+:[^/\s@]+@|PRIVATE KEY", value):
            yield f"{'.'.join(map(str, path))} holds a secret"


def arguments(world: World) -> Iterator[str]:
    """The program's own parser takes the arguments, once Kubernetes has put in the variables."""
    for pod in world.pods:
        environment = world.environment(pod)
        words = [_filled(each, environment) for each in pod.container["args"]]
        missing = REFERENCE.findall(" ".join(words))
        if missing:
            yield f"{pod.kind}: {missing} are set nowhere"
        if said := commands.refusal(words):
            yield f"{pod.kind}: sweeper {' '.join(words)}: {said}"


def _filled(word: str, environment: Mapping[str, str | None]) -> str:
    return REFERENCE.sub(lambda found: environment.get(found[1]) or found[0], word)


def references(world: World) -> Iterator[str]:
    """Every ConfigMap, Secret, key and ServiceAccount that is referred to is there."""
    accounts = {each["metadata"]["name"] for each in world.of("ServiceAccount")}
    for pod in world.pods:
        if pod.spec.get("serviceAccountName") not in accounts:
            yield f"{pod.kind}: no ServiceAccount {pod.spec.get('serviceAccountName')}"
        for kind, name, keys in _referred(pod):
            there = world.keys(kind)
            if name not in there:
                yield f"{pod.kind}: no {kind} {name}"
            yield from (f"{pod.kind}: no {key} in {kind} {name}" for key in keys if key not in there.get(name, {key}))


def _referred(pod: Pod) -> Iterator[tuple[str, str, list[str]]]:
    """Kind, name and keys of what a pod takes from elsewhere."""
    for each in pod.container.get("envFrom", []):
        yield "ConfigMap", each["configMapRef"]["name"], []
    for each in pod.container.get("env", []):
        for reference, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if (source := at(each, f"valueFrom.{reference}")) is not MISSING:
                yield kind, source["name"], [source["key"]]
    for volume in pod.spec.get("volumes", []):
        for field, kind, name in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
            if (source := volume.get(field)) is not None:
                yield kind, source[name], [item["key"] for item in source.get("items", [])]


def mounts(world: World) -> Iterator[str]:
    """Every mount has its volume, every volume is mounted once; /tmp can be written to, and nothing else."""
    for pod in world.pods:
        volumes = {each["name"]: each for each in pod.spec.get("volumes", [])}
        mounted = pod.container.get("volumeMounts", [])
        names = Counter(each["name"] for each in mounted)
        yield from (f"{pod.kind}: mount {name} has no volume" for name in names if name not in volumes)
        yield from (f"{pod.kind}: volume {name} is not mounted once" for name in volumes if names[name] != 1)
        writable = {each["mountPath"] for each in mounted if not each.get("readOnly")}
        if writable != {"/tmp"} or not any("emptyDir" in each for each in volumes.values()):  # noqa: S108 — the pod's own
            yield f"{pod.kind}: {sorted(writable)} can be written to"


def files(world: World) -> Iterator[str]:
    """A file that a variable names lies in a volume that has it."""
    for pod in world.pods:
        there = set(_mounted_files(world, pod))
        for name, value in world.environment(pod).items():
            if value and value.startswith("/") and value not in there:
                yield f"{pod.kind}: {name} names {value}, which no volume holds"


def _mounted_files(world: World, pod: Pod) -> Iterator[str]:
    paths = {each["name"]: each["mountPath"] for each in pod.container.get("volumeMounts", [])}
    for volume in pod.spec.get("volumes", []):
        source = volume.get("configMap") or volume.get("secret") or {}
        names = [item["path"] for item in source.get("items", [])] or world.keys("ConfigMap").get(
            source.get("name", ""), {}
        )
        yield from (f"{paths.get(volume['name'])}/{name}" for name in names)


def selectors(world: World) -> Iterator[str]:
    """Whatever selects pods finds the ones that are there."""
    chosen = [("Deployment", "spec.selector.matchLabels"), ("Service", "spec.selector")]
    chosen += [("NetworkPolicy", "spec.podSelector.matchLabels")]
    for kind, path in chosen:
        for document in world.of(kind):
            labels: Any = at(document, path)
            if labels is MISSING or not any(labels.items() <= pod.labels.items() for pod in world.pods):
                yield f"{kind} {document['metadata']['name']} selects no pod"


def ports(world: World) -> Iterator[str]:
    """Every port that is spoken of by name is one of the container's, and the program listens on it."""
    named = {each["name"]: each["containerPort"] for pod in world.pods for each in pod.container.get("ports", [])}
    for document in world.documents:
        for path, value in wanted.walk(document):
            if path[-1] in ("port", "targetPort") and isinstance(value, str) and value not in named:
                yield f"{document['kind']} {'.'.join(map(str, path))}: no port {value}"
    listened = {int(each.rpartition(":")[2]) for pod in world.pods for each in _listening(pod)}
    if listened != set(named.values()):
        yield f"it listens on {listened}, the container names {set(named.values())}"


def _listening(pod: Pod) -> list[str]:
    words = pod.container["args"]
    return [value for option, value in pairwise(words) if option == "--listen"]


def fenced(world: World) -> Iterator[str]:
    """A NetworkPolicy for all of the sweeper's pods names what they may reach, never anything at any port."""
    whole = [each for each in world.of("NetworkPolicy") if set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}]
    if len(whole) != 1 or "ingress" in whole[0]["spec"]:
        yield "no NetworkPolicy that closes both directions"
    for document in world.of("NetworkPolicy"):
        spec = document["spec"]
        for way in (*spec.get("egress", []), *spec.get("ingress", [])):
            if not way.get("ports") or not (way.get("to") or way.get("from")):
                yield f"NetworkPolicy {document['metadata']['name']} lets through whatever comes"


RULES: tuple[Rule, ...] = (
    one_workload,
    tables,
    enumerations,
    schedules,
    environments,
    secrets,
    arguments,
    references,
    mounts,
    files,
    selectors,
    ports,
    fenced,
)
