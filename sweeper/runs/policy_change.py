"""A policy other than that of the last run: what differs, whether a run may work under it, and who has accepted it.

Invariant: a change of the policy is accepted once, by a person or by [guards] policy, and the acceptance is an event.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper import log
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy import schema as policies
from sweeper.policy.difference import Difference, differences
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence
from sweeper.postgres.database import Database
from sweeper.postgres.evidence import LastPolicy
from sweeper.runs.job import Job

SHORTEST = 12
"""The fewest characters of a digest that accept a policy; as many as the program prints."""
TOLD = 3
"""How many differences a refusal tells."""
REMEDY = "Look at `sweeper policy diff`; if it is right, run once with --accept-policy {}."


@dataclass(frozen=True)
class PolicyChange:
    """The change from the policy of the last run that completed or purged anything to that of this job.

    `differences` is None if no run has recorded what the former policy says. `accepted`: by an earlier run.
    """

    former: str
    former_name: str
    new: Policy
    differences: Sequence[Difference] | None
    accepted: bool

    @property
    def only_lengthens(self) -> bool:
        """True if it can be seen from the two policies that no record's retention becomes shorter."""
        return self.differences is not None and not any(each.shortens for each in self.differences)

    def __str__(self) -> str:
        """Say what differs, the differences that shorten first."""
        text = (
            f"policy {self.new.name!r} ({self.new.digest[:SHORTEST]}) is not that of the last run, "
            f"{self.former_name!r} ({self.former[:SHORTEST]})"
        )
        if self.differences is None:
            return f"{text}; no run has recorded what that one says."
        shown = sorted(self.differences, key=lambda each: not each.shortens)
        more = f"; and {len(shown) - TOLD} more differences" if len(shown) > TOLD else ""
        return f"{text}. What differs: {'; '.join(map(str, shown[:TOLD]))}{more}."

    def as_json(self) -> dict[str, Any]:
        """Return the change for machines."""
        return {
            "former": self.former,
            "former_name": self.former_name,
            "digest": self.new.digest,
            "differences": self.differences,
            "only_lengthens": self.only_lengthens,
            "accepted": self.accepted,
        }


def find(job: Job) -> PolicyChange | None:
    """Return how the policy differs from that of the last run; None if it does not, or there was no run."""
    found = last(job.database, job.policy)
    if found is None or found.digest == job.policy.digest:
        return None
    former = recorded(job.database, found.digest)
    differing = differences(former, job.policy) if former is not None else None
    return PolicyChange(found.digest, found.name, job.policy, differing, found.accepted)


def last(database: Database, policy: Policy) -> LastPolicy | None:
    """Return which policy the last run that completed or purged anything had, and whether `policy` was accepted since."""
    store = database.settings.store.schema_name
    return database.within(lambda c: evidence.last_policy(c, store, policy.digest))


def recorded(database: Database, digest: str) -> Policy | None:
    """Return a policy that a run has recorded; None if none has, or this version of the program reads it differently."""
    text = database.within(lambda c: evidence.recorded_policy(c, digest))
    policy = policies.restore(text) if text is not None else None
    return policy if policy is not None and policy.digest == digest else None


def read(digest: str | None) -> str | None:
    """Return what `--accept-policy` names: a digest or at least its first characters.

    Raises:
        ConfigurationError: it is neither.
    """
    if digest is not None and not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", digest):
        raise ConfigurationError(
            f"--accept-policy {digest!r} is no digest of a policy. Nothing was done. Give what `sweeper policy check FILE` "
            f"prints, or at least its first {SHORTEST} characters."
        )
    return digest


def refusals(job: Job, change: PolicyChange | None, accept: str | None) -> Iterator[RefusedError]:
    """Yield a refusal if the policy has changed and neither `accept`, an earlier run nor the settings accept it.

    A digest that is given and is not that of the policy refuses in any case: another file than the reviewed one is in use.
    """
    ours = job.policy.digest
    if accept is not None and not ours.startswith(accept):
        yield RefusedError(
            "policy",
            f"--accept-policy accepts {accept}, and this is policy {job.policy.name!r} ({ours[:SHORTEST]}).",
            "",
            f"Use the policy file that was reviewed, or review this one (`sweeper policy diff`) and accept {ours[:SHORTEST]}.",
        )
    elif change is not None and accept is None and not _passes(job, change):
        yield RefusedError("policy", str(change), _limit(job), REMEDY.format(ours[:SHORTEST]))


def record(job: Job, run_id: int, change: PolicyChange | None, accept: str | None) -> None:
    """Record what the policy says, and that a changed one was accepted, so that the next run needs no acceptance."""

    def write(connection: Any) -> None:
        evidence.record_policy(connection, run_id, job.policy)
        if change is not None and not change.accepted:
            details: dict[str, Any] = {
                "store": job.contract.schema,
                "former": change.former,
                "digest": change.new.digest,
            }
            why = "--accept-policy" if accept is not None else f"[guards] policy = {job.settings.guards.policy}"
            details |= {"name": change.new.name, "accepted_by": why, "only_lengthens": change.only_lengthens}
            evidence.record(connection, "policy_accepted", run_id, details)

    job.database.within(write)
    if change is not None:
        log.get().warning(
            "the policy has changed since the last run",
            former=change.former[:SHORTEST],
            policy=change.new.digest[:SHORTEST],
            only_lengthens=change.only_lengthens,
            run=run_id,
        )


def _passes(job: Job, change: PolicyChange) -> bool:
    allowed = job.settings.guards.policy
    return change.accepted or allowed == "off" or (allowed == "shortening" and change.only_lengthens)


def _limit(job: Job) -> str:
    if job.settings.guards.policy == "shortening":
        return "Only a change that can be seen to lengthen goes on by itself ([guards] policy)."
    return "A person accepts each change ([guards] policy)."
