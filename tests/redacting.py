"""Rules that redact, beside those of the shipped policy; `tests/model.py` knows them, too."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from sweeper import toml
from sweeper.policy import schema as policies
from sweeper.policy.schema import Policy
from tests.store.stores import POLICY

COLUMNS = {"redact": [{"table": "messages", "columns": ["body"]}]}


def redacting(*rules: dict[str, Any], purging: dict[str, Any] | None = None, only: str = "") -> Policy:
    """The shipped policy, or `only` one rule of it, with rules that redact, and perhaps one more that purges."""
    raw = deepcopy(toml.parse(Path(POLICY).read_text()))
    raw["rules"] = [rule for rule in raw["rules"] if only in ("", rule["name"])]
    raw["rules"] += [{"because": "…", **rule, "action": "redact"} for rule in rules]
    raw["rules"] += [{"because": "…", **purging}] if purging is not None else []
    return policies.checked(raw)


def _due(period: str) -> list[dict[str, str]]:
    return [{"anchor": "last_activity", "period": period}]


def _consent(epoch: str) -> dict[str, Any]:
    return {"consent": {"purpose": "model_improvement", "epoch": epoch}}


RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "incognito_content",
        "when": {"incognito": True},
        "due": _due("1 day"),
        "stands_unclassified": True,
    },
    {"name": "consented_content", "when": _consent("open"), "due": _due("2 years")},
    {"name": "other_content", "when": _consent("none"), "due": _due("10 days")},
)
