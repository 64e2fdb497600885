"""The morning after: conversations around the present, and what a person reads and types."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from sweeper.policy.instant import rfc3339
from tests.acceptance.commands import Command
from tests.store.operated import MONTH

ALL_IS_WELL = "Nothing is wrong."


def chat(id_: str, idle: timedelta, *, wrote: timedelta | None = None, account: str = "a1") -> dict[str, Any]:
    """A conversation that has been idle for so long by its row; its user wrote so long ago, if anything else is said."""
    now = datetime.now(UTC)
    last = rfc3339(now - idle)
    message = {"id": f"m {id_}", "author": "user", "created_at": rfc3339(now - (wrote or idle))}
    return {"id": id_, "account": account, "created_at": last, "last_activity_at": last, "messages": [message]}


def due(id_: str, **more: Any) -> dict[str, Any]:
    """A conversation that became due an hour ago by its row."""
    return chat(id_, MONTH + timedelta(hours=1), **more)


def advice(status: str) -> list[str]:
    """The lines of `status` that tell what is wrong."""
    return [line for line in status.splitlines() if line.startswith("! ")]


def statement(line: str, verb: str) -> str:
    """The SQL statement that a line tells to run."""
    found = re.search(rf"\b{verb} .*?;", line)
    assert found, line
    return found[0]


def is_well(sweeper: Command) -> bool:
    """Whether status says that nothing is wrong, once a report has counted everything."""
    assert sweeper("report").code == 0
    lines = sweeper("status").out.splitlines()
    return not advice("\n".join(lines)) and lines[-1] == ALL_IS_WELL
