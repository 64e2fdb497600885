"""What must stand in every manifest that runs the sweeper, as tables: where, what is allowed, and an example of what is not.

Invariant: Kubernetes' own schema says nothing of what is here. It takes any string for an enumeration and knows no
safety.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MISSING: Any = object()
"""Stands for a value that is not there."""
DAY = 86_400
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Wanted:
    """At a dotted path stands what `holds`; `broken` is a value, or MISSING, for which it does not hold."""

    path: str
    holds: Callable[[Any], bool]
    broken: Any = MISSING


def just(path: str, value: Any, broken: Any = MISSING) -> Wanted:
    """Exactly this value, of this type: 1 is not true."""
    return Wanted(path, lambda found: type(found) is type(value) and found == value, broken)


def absent(path: str, broken: Any) -> Wanted:
    """Nothing at all."""
    return Wanted(path, lambda found: found is MISSING, broken)


def within(path: str, low: int, high: int, broken: Any = MISSING) -> Wanted:
    """A whole number between these, both allowed."""
    return Wanted(path, lambda found: type(found) is int and low <= found <= high, broken)


def matching(path: str, pattern: str, broken: Any = MISSING) -> Wanted:
    """A text that matches as a whole."""
    return Wanted(path, lambda found: isinstance(found, str) and re.fullmatch(pattern, found) is not None, broken)


WORKLOAD = {
    "CronJob": (
        just("spec.concurrencyPolicy", "Forbid", "Allow"),
        just("spec.timeZone", "Etc/UTC"),
        absent("spec.suspend", broken=True),
        within("spec.startingDeadlineSeconds", 600, DAY // 2, 5),
        within("spec.successfulJobsHistoryLimit", 1, 10, 0),
        within("spec.failedJobsHistoryLimit", 1, 10, 0),
        within("spec.jobTemplate.spec.activeDeadlineSeconds", 3600, DAY - 3600),
        within("spec.jobTemplate.spec.backoffLimit", 0, 0, 6),
        just("spec.jobTemplate.spec.template.spec.restartPolicy", "Never", "OnFailure"),
        matching("spec.jobTemplate.spec.podFailurePolicy.rules.0.action", "Ignore"),
    ),
    "Job": (
        within("spec.activeDeadlineSeconds", 7 * DAY, 60 * DAY),
        within("spec.ttlSecondsAfterFinished", DAY, 30 * DAY, 0),
        within("spec.backoffLimit", 0, 6),
        just("spec.template.spec.restartPolicy", "Never", "OnFailure"),
        just("spec.podFailurePolicy.rules.0.onExitCodes.values", [2, 3], [2]),
    ),
    "Deployment": (
        just("spec.replicas", 1, 2),
        just("spec.strategy.type", "Recreate", "RollingUpdate"),
        absent("spec.template.spec.restartPolicy", "Never"),
        just("spec.template.spec.containers.0.livenessProbe.httpGet.path", "/healthz", "/readyz"),
        just("spec.template.spec.containers.0.readinessProbe.httpGet.path", "/readyz", "/healthz"),
    ),
}
"""By kind, for the object itself."""

POD = (
    just("automountServiceAccountToken", value=False),
    just("enableServiceLinks", value=False),
    just("serviceAccountName", "sweeper"),
    within("terminationGracePeriodSeconds", 11, 300, 10),
    absent("hostNetwork", broken=True),
    absent("hostPID", broken=True),
    absent("hostIPC", broken=True),
    just("securityContext.runAsNonRoot", value=True, broken=False),
    within("securityContext.runAsUser", 1000, 65533, 0),
    within("securityContext.runAsGroup", 1000, 65533, 0),
    within("securityContext.fsGroup", 1000, 65533, 0),
    just("securityContext.seccompProfile.type", "RuntimeDefault", "Unconfined"),
)
"""For a pod's spec."""

CONTAINER = (
    matching("image", r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}", "sweeper:latest"),
    just("imagePullPolicy", "IfNotPresent"),
    absent("command", ["/bin/sh"]),
    absent("securityContext.privileged", broken=True),
    absent("securityContext.runAsUser", 0),
    absent("securityContext.runAsNonRoot", broken=False),
    absent("securityContext.seccompProfile", {"type": "Unconfined"}),
    absent("securityContext.capabilities.add", ["NET_ADMIN"]),
    just("securityContext.capabilities.drop", ["ALL"], ["NET_RAW"]),
    just("securityContext.allowPrivilegeEscalation", value=False, broken=True),
    just("securityContext.readOnlyRootFilesystem", value=True, broken=False),
    matching("resources.requests.cpu", r"\d+m?"),
    matching("resources.requests.memory", r"\d+Mi"),
    matching("resources.limits.cpu", r"\d+m?"),
    matching("resources.limits.memory", r"\d+Mi"),
)
"""For every container."""

ENUMERATIONS = {
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "seccompProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "strategy.type": {"Recreate", "RollingUpdate"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "rules.action": {"Ignore", "FailJob", "FailIndex", "Count"},
    "onExitCodes.operator": {"In", "NotIn"},
    "onPodConditions.type": {"DisruptionTarget"},
    "onPodConditions.status": {"True", "False", "Unknown"},
    "capabilities.drop": {"ALL"},
    "spec.type": {"ClusterIP"},
}
"""By the end of the path, what may stand there."""

FREE = {"kind", "value", "args"}
"""Keys below which a word that begins with a capital letter is no enumeration."""


def at(document: Any, path: str) -> Any:
    """What stands at a dotted path, or MISSING."""
    for key in path.split("."):
        if isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        elif isinstance(document, dict) and key in document:
            document = document[key]
        else:
            return MISSING
    return document


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every single value with its path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for key, each in inner:
        yield from walk(each, (*path, key))


def allowed(path: Path) -> set[str] | None:
    """What an enumeration at this path may say; None where there is none that we know."""
    dotted = "." + ".".join(key for key in path if isinstance(key, str))
    return next((words for end, words in ENUMERATIONS.items() if dotted.endswith(f".{end}")), None)
