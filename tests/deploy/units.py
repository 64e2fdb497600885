"""systemd units, read as systemd reads them: sections of directives, of which a directive may stand more than once.

Invariant: a directive that is not in the lists below is refused, for systemd only warns of a misspelt one and goes on
without it.
"""

import re
from collections import defaultdict
from pathlib import Path

Unit = dict[str, dict[str, list[str]]]

HARDENING = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "DevicePolicy": "closed",
    "ProtectProc": "invisible",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectControlGroups": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "RemoveIPC": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
}
"""What every service has, with its value."""
KNOWN = {
    "Unit": {"Description", "Wants", "After", "Conflicts", "OnSuccess", "OnFailure"},
    "Install": {"WantedBy"},
    "Timer": {"OnCalendar", "Persistent", "RandomizedDelaySec", "AccuracySec"},
    "Service": {
        *HARDENING, "Type", "ExecStart", "User", "Group", "EnvironmentFile", "UMask", "TimeoutStartSec", "TimeoutStopSec",
        "SyslogIdentifier", "SystemCallFilter", "MemoryMax", "ReadWritePaths", "StateDirectory", "StateDirectoryMode",
        "WorkingDirectory", "Restart", "RestartSec", "RestartPreventExitStatus",
    },
}  # fmt: skip
SECONDS = {"s": 1, "m": 60, "h": 3600}


class UnitError(ValueError):
    """A unit with a section or directive that these tests do not know, or a line that is neither."""


def parse(text: str) -> Unit:
    """The directives of a unit by section and name.

    Raises:
        UnitError: something in it is not known.
    """
    found: Unit = {}
    section = ""
    for line in filter(None, (line.strip() for line in text.splitlines() if not line.startswith("#"))):
        name, is_directive, value = line.partition("=")
        if not is_directive:
            section = line.strip("[]")
            found[section] = defaultdict(list)
        if section not in KNOWN or (is_directive and name not in KNOWN[section]):
            raise UnitError(f"[{section}] {line}: not known")
        if is_directive:
            found[section][name].append(value)
    return found


def read(folder: Path) -> dict[str, Unit]:
    """All units in a folder by file name."""
    return {file.name: parse(file.read_text()) for file in sorted(folder.iterdir())}


def seconds(span: str) -> int:
    """A time span as systemd writes it, in seconds.

    Raises:
        UnitError: it has no unit, or is no time span.
    """
    found = re.fullmatch(r"(\d+)([smh])", span)
    if found is None:
        raise UnitError(f"{span!r} is no time span")
    return int(found[1]) * SECONDS[found[2]]


def faults(unit: Unit) -> list[str]:
    """What a service lacks of what every service of ours must have."""
    service = unit["Service"]
    wrong = [f"{name}={service.get(name)}" for name, value in HARDENING.items() if service.get(name) != [value]]
    wrong += [f"{name} is not sweeper" for name in ("User", "Group") if service.get(name) != ["sweeper"]]
    if service.get("EnvironmentFile") != ["/etc/sweeper/environment"]:
        wrong.append("the secrets come from elsewhere")
    if not all(seconds(span) > 10 for span in service.get("TimeoutStopSec", ["0s"])):
        wrong.append("it is killed before its batch may have ended")
    if any(re.search(r"://|PASSWORD|KEY=", command) for command in service["ExecStart"]):
        wrong.append("a secret is on the command line")
    return wrong
