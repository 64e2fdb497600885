"""Approvals: the counts of a preview as a token, with which a person allows a run to exceed the volume limits.

A token binds the store, the policy, the as-of, the counts by rule and, for a backfill, its scope. A run may purge fewer records
than approved and is refused if more are due. A token is valid for 24 hours.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.instant import parse, rfc3339

LAPSES_AFTER = timedelta(hours=24)
REMEDY = "Preview again with --dry-run, and approve what it finds."


@dataclass(frozen=True)
class Approval:
    """The result of a preview; its counts of due conversations by rule are the ceilings of the approved run."""

    store: str
    policy: str
    as_of: datetime
    issued_at: datetime
    due: Mapping[str, int]
    scope: str = ""
    """The backfill that it approves; "" for a run."""

    def less(self, purged: Mapping[str, int]) -> "Approval":
        """Return the approval that remains after runs under it have purged these counts by rule."""
        return replace(self, due={rule: max(count - purged.get(rule, 0), 0) for rule, count in self.due.items()})

    def token(self) -> str:
        """Return the digest, as `run --dry-run` prints it and `run --approve` takes it."""
        said = asdict(self) | {"as_of": rfc3339(self.as_of), "issued_at": rfc3339(self.issued_at)}
        if not self.scope:
            del said["scope"]
        body = (
            base64.urlsafe_b64encode(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
            .decode()
            .rstrip("=")
        )
        return f"{body}.{_checksum(body)}"


def read(token: str) -> Approval:
    """Return the approval that a token carries.

    Raises:
        ConfigurationError: it is no such token, or was cut or mistyped.
    """
    try:
        return decode(token)
    except ValueError:
        raise ConfigurationError(
            "--approve: this is no digest of a dry run, or it was cut. Nothing was done. "
            "Copy the whole `digest` that `sweeper run --dry-run` prints."
        ) from None


def decode(token: str) -> Approval:
    """Return the approval that a token carries, whatever option or file it came in.

    Raises:
        ValueError: it is no such token, or was cut or mistyped.
    """
    body, _, checksum = token.strip().partition(".")
    try:
        if checksum != _checksum(body):
            raise ValueError("checksum")
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return Approval(
            str(said["store"]),
            str(said["policy"]),
            parse(said["as_of"]),
            parse(said["issued_at"]),
            {str(rule): int(count) for rule, count in said["due"].items()},
            str(said.get("scope", "")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ValueError("its digest was cut or mistyped") from None


def check(approval: Approval, store: str, policy: str, now: datetime, scope: str = "") -> None:
    """Refuse an approval that is for something else or has expired.

    Raises:
        RefusedError: naming what differs.
    """
    refuse_other(approval, store, policy, scope)
    refuse_lapsed(approval, now)


def refuse_other(approval: Approval, store: str, policy: str, scope: str) -> None:
    """Refuse an approval that is for something else.

    Raises:
        RefusedError: naming what differs.
    """
    for agrees, approved, own in (
        (approval.store == store, f"store {approval.store}", f"store {store}"),
        (approval.policy == policy, f"policy {approval.policy[:12]}", f"policy {policy[:12]}"),
        (approval.scope == scope, approval.scope or "a run", scope or "a run"),
    ):
        if not agrees:
            raise RefusedError("approval", f"the approval is for {approved}.", f"This is {own}.", REMEDY)


def refuse_lapsed(approval: Approval, now: datetime) -> None:
    """Refuse an approval that is older than 24 hours, or was issued by a clock ahead of this one.

    Raises:
        RefusedError: naming the instants.
    """
    if approval.issued_at > now:
        raise RefusedError(
            "approval",
            f"the approval was given at {rfc3339(approval.issued_at)}, which is later than now.",
            f"Now is {rfc3339(now)}.",
            REMEDY,
        )
    if now - approval.issued_at >= LAPSES_AFTER:
        raise RefusedError(
            "approval", f"the approval of {rfc3339(approval.issued_at)} has lapsed.", "It holds for 24 hours.", REMEDY
        )


def refuse_more(approval: Approval, due: Mapping[str, int]) -> None:
    """Refuse if more is due under any rule than was approved.

    Raises:
        RefusedError: naming each rule with both numbers.
    """
    more = [
        f"{rule}: {count} due, {approval.due.get(rule, 0)} approved and not yet purged"
        for rule, count in sorted(due.items())
        if count > approval.due.get(rule, 0)
    ]
    if more:
        raise RefusedError("approval", f"more is due than was approved ({'; '.join(more)}).", "", REMEDY)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]
