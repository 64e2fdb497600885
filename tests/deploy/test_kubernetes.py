"""The Kubernetes manifests as they are written: valid in old and new clusters, safe, and understood by the program."""

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sweeper.settings import Settings
from tests.deploy import rules, schemas, trees, wanted
from tests.deploy.trees import OVERLAYS, ROOT, Document
from tests.deploy.wanted import MISSING

READ = {folder.name: trees.read(folder) for folder in sorted(OVERLAYS.iterdir())}
KINDS = {"daily": "CronJob", "backfill": "Job", "serve": "Deployment"}
BASE = {"ConfigMap", "NetworkPolicy", "ServiceAccount"}
TEMPLATE = {
    "CronJob": "spec.jobTemplate.spec.template.spec",
    "Job": "spec.template.spec",
    "Deployment": "spec.template.spec",
}


def broken(overlay: str, kind: str, path: str, value: Any) -> list[Document]:
    """The manifests of an overlay with another value, or none, at one place of the last object of a kind."""
    documents = copy.deepcopy(READ[overlay])
    document = [each for each in documents if each["kind"] == kind][-1]
    *above, last = path.split(".")
    for key in above:
        document = document[int(key)] if isinstance(document, list) else document.setdefault(key, {})
    key = int(last) if isinstance(document, list) else last
    if value is MISSING:
        del document[key]
    else:
        document[key] = value
    return documents


# As they are


def test_overlays() -> None:
    """There is one overlay for each way to run, and each holds only what it needs."""
    assert {name: {each["kind"] for each in made} for name, made in READ.items()} == {
        "daily": {*BASE, "CronJob"},
        "backfill": {*BASE, "Job"},
        "serve": {*BASE, "Deployment", "Service"},
    }


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("overlay", READ)
def test_schema(overlay: str, version: str) -> None:
    """The oldest and the newest supported Kubernetes know every field, and each has the type it should have."""
    assert [said for each in READ[overlay] if (said := schemas.complaint(each, version))] == []


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_example_of_secret(version: str) -> None:
    """The example of the secret is valid and holds no value."""
    assert [schemas.complaint(each, version) for each in rules.EXAMPLE] == [""]
    assert {value for each in rules.EXAMPLE for value in each["stringData"].values()} == {""}


def test_versions() -> None:
    """A newer kubernetes-validate makes somebody look which versions are supported."""
    assert kubernetes_validate.latest_version().startswith(f"{schemas.NEWEST}.")


@pytest.mark.parametrize("overlay", READ)
def test_rules(overlay: str) -> None:
    """Nothing is wrong with what the schemas let pass."""
    found = rules.faults(READ[overlay])
    found.pop("arguments", None)
    assert found == {}


@pytest.mark.parametrize("overlay", READ)
def test_arguments(overlay: str) -> None:
    """The program takes what the pod's container passes to it."""
    assert list(rules.arguments(rules.World(READ[overlay]))) == []


def test_settings_are_the_shipped_ones() -> None:
    """The pods read the policy and the settings that lie in config/."""
    (made,) = trees.read(ROOT / "config")
    assert made["data"] == {name: (ROOT / "config" / name).read_text() for name in ("policy.toml", "sweeper.toml")}


def test_one_night_everywhere() -> None:
    """The CronJob sweeps when the daemon would."""
    (job,) = (each for each in READ["daily"] if each["kind"] == "CronJob")
    assert job["spec"]["schedule"] == Settings().schedule.sweep


# That each check can fail


def test_schema_refuses_unknown_fields_and_types() -> None:
    """The strict schema sees a field that does not exist and a text instead of a number."""
    for path, value in (("spec.concurrencyPolice", "Forbid"), ("spec.startingDeadlineSeconds", "soon")):
        documents = broken("daily", "CronJob", path, value)
        assert all(any(schemas.complaint(each, version) for each in documents) for version in schemas.VERSIONS)


def test_schema_lets_misspelt_words_pass() -> None:
    """What our own rules are for: the schemas take any word and any cron string."""
    for path, value in (("spec.concurrencyPolicy", "Forbidden"), ("spec.schedule", "every night")):
        documents = broken("daily", "CronJob", path, value)
        assert not any(schemas.complaint(each, version) for each in documents for version in schemas.VERSIONS)


ROWS = [
    (overlay, kind, f"{prefix}{row.path}", row.broken)
    for overlay, kind in KINDS.items()
    for prefix, rows in (
        ("", wanted.WORKLOAD[kind]),
        (f"{TEMPLATE[kind]}.", wanted.POD),
        (f"{TEMPLATE[kind]}.containers.0.", wanted.CONTAINER),
    )
    for row in rows
]


@pytest.mark.parametrize(("overlay", "kind", "path", "value"), ROWS)
def test_every_row_of_the_tables_is_missed(overlay: str, kind: str, path: str, value: Any) -> None:
    """Without what a row of the tables wants, that row says so and no other."""
    (said,) = rules.faults(broken(overlay, kind, path, value))["tables"]
    assert path.endswith(said.partition(":")[0])


WORDS = [
    (overlay, each["kind"], ".".join(map(str, path)), value)
    for overlay, made in READ.items()
    for each in {each["kind"]: each for each in made}.values()
    for path, value in wanted.walk(each)
    if wanted.allowed(path)
]


@pytest.mark.parametrize(("overlay", "kind", "path", "value"), WORDS)
def test_every_misspelt_word_is_seen(overlay: str, kind: str, path: str, value: str) -> None:
    """A word of an enumeration with a letter too many is a fault."""
    assert path in rules.faults(broken(overlay, kind, path, f"{value}e"))["enumerations"][0]


def test_all_enumerations_are_used() -> None:
    """The list of enumerations has no line that nothing in the manifests meets."""
    ends = {end for end in wanted.ENUMERATIONS for *_, path, _ in WORDS if f".{_plain(path)}".endswith(f".{end}")}
    assert ends == set(wanted.ENUMERATIONS)


def _plain(path: str) -> str:
    return ".".join(key for key in path.split(".") if not key.isdecimal())


POD = TEMPLATE["CronJob"]
ONE = f"{POD}.containers.0"
BROKEN = {
    "unknown word": ("daily", "CronJob", "spec.podManagement", "Parallel", "enumerations"),
    "a second container": ("serve", "Deployment", "spec.template.spec.initContainers", [], "one_workload"),
    "an object twice": ("serve", "NetworkPolicy", "metadata.name", "sweeper", "one_workload"),
    "cron string": ("daily", "CronJob", "spec.schedule", "17 25 * * *", "schedules"),
    "cron macro": ("daily", "CronJob", "spec.schedule", "@daily", "schedules"),
    "zone in the cron string": ("daily", "CronJob", "spec.schedule", "TZ=UTC 17 2 * * *", "schedules"),
    "zone": ("daily", "CronJob", "spec.timeZone", "Etc/UCT0", "schedules"),
    "misspelt variable": ("daily", "CronJob", f"{ONE}.env.0.name", "SWEEPER_CONFIGURATION", "environments"),
    "variable twice": ("daily", "CronJob", f"{ONE}.env.0.name", "SWEEPER_DATABASE_URL", "environments"),
    "variable nobody uses": ("backfill", "ConfigMap", "data.BACKFILL_RATE", "5", "environments"),
    "secret written down": (
        "daily",
        "CronJob",
        f"{ONE}.env.2",
        {"name": "SWEEPER_DATABASE_URL", "value": "x"},
        "secrets",
    ),
    "password in the settings": ("daily", "ConfigMap", "data.x", "postgresql://a:b@c/d", "secrets"),
    "unknown command": ("daily", "CronJob", f"{ONE}.args", ["runs"], "arguments"),
    "unknown option": ("daily", "CronJob", f"{ONE}.args", ["run", "--aprove=x"], "arguments"),
    "value that is no number": ("daily", "CronJob", f"{ONE}.args", ["demo", "--seed=x"], "arguments"),
    "no command": ("daily", "CronJob", f"{ONE}.args", ["--help"], "arguments"),
    "variable set nowhere": ("daily", "CronJob", f"{ONE}.args", ["run", "--approve=$(NOWHERE)"], "arguments"),
    "no account": ("daily", "ServiceAccount", "metadata.name", "other", "references"),
    "no ConfigMap": ("daily", "ConfigMap", "metadata.name", "other", "references"),
    "no Secret": ("daily", "CronJob", f"{ONE}.env.2.valueFrom.secretKeyRef.name", "other", "references"),
    "no key in the Secret": ("daily", "CronJob", f"{ONE}.env.2.valueFrom.secretKeyRef.key", "url", "references"),
    "no file in the Secret": ("daily", "CronJob", f"{POD}.volumes.1.secret.items.0.key", "key", "references"),
    "mount without volume": ("daily", "CronJob", f"{POD}.volumes.0", MISSING, "mounts"),
    "volume without mount": ("daily", "CronJob", f"{ONE}.volumeMounts.0.name", "tmp", "mounts"),
    "nothing to write to": ("daily", "CronJob", f"{ONE}.volumeMounts.2.readOnly", True, "mounts"),
    "writable settings": ("daily", "CronJob", f"{ONE}.volumeMounts.0.readOnly", MISSING, "mounts"),
    "file elsewhere": ("daily", "CronJob", f"{ONE}.volumeMounts.1.mountPath", "/keys", "files"),
    "settings without a file": ("daily", "ConfigMap", "data", {"policy.toml": ""}, "files"),
    "selector of the Deployment": ("serve", "Deployment", "spec.selector.matchLabels", {"a": "b"}, "selectors"),
    "selector of the Service": ("serve", "Service", "spec.selector", {"a": "b"}, "selectors"),
    "selector of the policy": ("daily", "NetworkPolicy", "spec.podSelector.matchLabels", {"a": "b"}, "selectors"),
    "port of the Service": ("serve", "Service", "spec.ports.0.targetPort", "http", "ports"),
    "port of the policy": ("serve", "NetworkPolicy", "spec.ingress.0.ports.0.port", "http", "ports"),
    "port of a probe": (
        "serve",
        "Deployment",
        f"{TEMPLATE['Deployment']}.containers.0.livenessProbe.httpGet.port",
        "http",
        "ports",
    ),
    "port of the program": (
        "serve",
        "Deployment",
        f"{TEMPLATE['Deployment']}.containers.0.ports.0.containerPort",
        9465,
        "ports",
    ),
    "open for whatever comes": ("daily", "NetworkPolicy", "spec.ingress", [{}], "fenced"),
    "open for somebody": ("daily", "NetworkPolicy", "spec.ingress", [{"from": [{}], "ports": [{"port": 1}]}], "fenced"),
    "out at any port": ("daily", "NetworkPolicy", "spec.egress.1.ports", MISSING, "fenced"),
    "out to anywhere": ("daily", "NetworkPolicy", "spec.egress.1.to", MISSING, "fenced"),
    "only one way closed": ("daily", "NetworkPolicy", "spec.policyTypes", ["Ingress"], "fenced"),
}


@pytest.mark.parametrize(("overlay", "kind", "path", "value", "rule"), BROKEN.values(), ids=BROKEN)
def test_broken_copies_are_seen(overlay: str, kind: str, path: str, value: Any, rule: str) -> None:
    """A copy of the manifests with one thing broken is told by the rule that is for it, and only by the break."""
    assert set(rules.faults(broken(overlay, kind, path, value)).get(rule, [])) - set(
        rules.faults(READ[overlay]).get(rule, [])
    )


def test_every_rule_has_a_broken_copy() -> None:
    """There is no rule that was never seen to fail."""
    shown = {rule for *_, rule in BROKEN.values()}
    assert shown | {"tables"} == {rule.__name__ for rule in rules.RULES}


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    """A key that stands twice in a file is refused rather than one of its values taken."""
    (tmp_path / "a.yaml").write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(yaml.YAMLError, match="given twice"):
        trees.documents((tmp_path / "a.yaml").read_text())


def test_unknown_field_of_a_kustomization_is_refused(tmp_path: Path) -> None:
    """What the tests cannot read of a kustomization makes them fail rather than overlook it."""
    (tmp_path / trees.FILE).write_text("kind: Kustomization\npatches: []\n")
    with pytest.raises(AssertionError, match="patches"):
        trees.read(tmp_path)
