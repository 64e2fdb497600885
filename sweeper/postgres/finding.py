"""The findings that `sweeper check` prints."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is: a fault stops or endangers a sweep; a warning makes it slow or needs a decision."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class CheckFinding:
    """What was found about one subject, and what fixes it (empty if nothing needs fixing)."""

    level: Level
    subject: str
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The finding as one line."""
        return f"{self.subject}: {self.text}" + (f" → {self.remedy}" if self.remedy else "")
