"""Approvals: a dry run prints its findings as a token, and a run that is given the token may exceed the volume limits.

A token binds the store, the policy, as-of, the due counts by rule and, for a backfill, its scope. The run may purge fewer records
than approved but not more. A token expires after 24 hours.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.instant import parse, rfc3339

LAPSES_AFTER = timedelta(hours=24)
REMEDY = "Preview again with --dry-run, and approve what it finds."


@dataclass(frozen=True)
class Approval:
    """The findings of one preview: the most conversations that a run may purge (`due`) and redact (`redact`), by rule."""

    store: str
    policy: str
    as_of: datetime
    issued_at: datetime
    due: Mapping[str, int]
    scope: str = ""
    """The backfill that it is for, as text; empty for a run."""
    redact: Mapping[str, int] = field(default_factory=dict)

    def remaining(self, purged: Mapping[str, int]) -> "Approval":
        """Return the approval reduced by the conversations that earlier runs have purged or redacted under it, by rule."""

        def left(counts: Mapping[str, int]) -> dict[str, int]:
            return {rule: max(count - purged.get(rule, 0), 0) for rule, count in counts.items()}

        return replace(self, due=left(self.due), redact=left(self.redact))

    def token(self) -> str:
        """Return the digest that `run --dry-run` prints and `run --approve` takes."""
        fields = to_json(self)
        for name in ("scope", "redact"):
            if not fields[name]:
                del fields[name]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        body = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{body}.{_checksum(body)}"


def read(token: str) -> Approval:
    """Return the approval that the token of `--approve` carries.

    Raises:
        ConfigurationError: the text is no token, or was truncated or mistyped.
    """
    try:
        return decode(token)
    except ValueError:
        raise ConfigurationError(
            "--approve: this is no digest of a dry run, or it was truncated. Nothing was done. "
            "Copy the whole `digest` that `sweeper run --dry-run` prints."
        ) from None


def decode(token: str) -> Approval:
    """Return the approval that a token carries, from an option or a plan file.

    Raises:
        ValueError: the text is no token, or was truncated or mistyped.
    """
    body, _, checksum = token.strip().partition(".")
    try:
        if checksum != _checksum(body):
            raise ValueError("checksum")
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return Approval(
            str(fields["store"]),
            str(fields["policy"]),
            parse(fields["as_of"]),
            parse(fields["issued_at"]),
            {str(rule): int(count) for rule, count in fields["due"].items()},
            str(fields.get("scope", "")),
            {str(rule): int(count) for rule, count in fields.get("redact", {}).items()},
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ValueError("its digest was truncated or mistyped") from None


def check(approval: Approval, store: str, policy: str, now: datetime, scope: str = "") -> None:
    """Refuse an approval that is for another store, policy or scope, or has expired.

    Raises:
        RefusedError: naming what differs.
    """
    refuse_other(approval, store, policy, scope)
    refuse_lapsed(approval, now)


def refuse_other(approval: Approval, store: str, policy: str, scope: str) -> None:
    """Refuse an approval that is for another store, policy or scope.

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
    """Refuse an approval that is older than 24 hours, or was issued in the future by this clock.

    Raises:
        RefusedError: with both instants.
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
    """Refuse if more is due under any rule, for purge or redaction, than was approved.

    Raises:
        RefusedError: with both numbers for each such rule.
    """
    approved = Counter(approval.due) + Counter(approval.redact)  # a floor may name both
    more = [
        f"{rule}: {count} due, {approved[rule]} approved and not yet {'redacted' if rule in approval.redact else 'purged'}"
        for rule, count in sorted(due.items())
        if count > approved[rule]
    ]
    if more:
        raise RefusedError("approval", f"more is due than was approved ({'; '.join(more)}).", "", REMEDY)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]
