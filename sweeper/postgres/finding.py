"""What `sweeper check` says about one subject."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is: a fault stops or endangers a sweep, a warning makes it slow or needs a look."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class CheckFinding:
    """What was found about one subject, and what fixes it (empty where nothing needs to be fixed)."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
