"""The purge plan that a preview shows and a run executes, and the file that it is written to.

    propose → decide → show, write, refuse, or execute (`sweep.py`)

Invariant: a plan permits a purge and never orders one. Every row is decided again under lock, so a kept key is only a proposal.
"""

import hashlib
import json
import pickle
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any

from sweeper import files
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.files import atomic_write
from sweeper.policy.counts import Counts, Kind
from sweeper.policy.decide import Verdict
from sweeper.policy.facts import Facts
from sweeper.policy.window import Window, slices
from sweeper.postgres import store_counts
from sweeper.postgres.proposals import Page
from sweeper.runs import approval as approvals
from sweeper.runs import guards
from sweeper.runs.approval import Approval
from sweeper.runs.backfill import BackfillScope
from sweeper.runs.job import Job
from sweeper.runs.policy_change import PolicyChange
from sweeper.runs.record_kind import KINDS, RecordKind, conversations, redactions
from sweeper.runs.scan import Seen, scan
from sweeper.runs.throttle import KEPT_BYTES, ProgressListener

FILE_BYTES = 1 << 24
"""The size limit of a plan file."""


@dataclass
class PurgePlan:
    """What a run may purge, or the backfill that `scope` names.

    If the keys of all proposals, compressed, take at most `memory` bytes, the store is asked for them once: what `propose` found
    is decided and executed. If they take more, nothing is kept, and each use of the plan asks the store again.
    """

    job: Job
    scope: BackfillScope | None = None
    memory: int = KEPT_BYTES
    free: int = 0
    """The number of proposals that are not held; set by `propose`, as is `held`."""
    held: int = 0
    counts: Counts = field(default_factory=Counts)
    """The outcome of each proposal; set by `decide`, as is `by_slice`."""
    by_slice: Counter[Window] = field(default_factory=Counter)
    refusals: list[RefusedError] = field(default_factory=list)
    policy_change: PolicyChange | None = None
    """How the policy differs from that of the last run."""
    seconds: float = 0.0
    _kept: dict[Kind, list[bytes]] | None = None

    @cached_property
    def kinds(self) -> tuple[RecordKind[Facts], ...]:
        """What is proposed: conversations and, in a run under a policy that redacts, their content."""
        redacts = self.scope is None and self.job.policy.redacting is not None
        return (conversations(self.job), *((redactions(self.job),) if redacts else ()))

    def propose(self, watch: ProgressListener, seen: Seen = lambda _: None) -> None:
        """Ask the store for all proposals, count them, and keep their keys if they fit in `memory`.

        Args:
            watch: told of each range that is searched, and how many proposals were found before.
            seen: called with the number of proposals on each page.
        """
        searched = count(1)
        kept, room = {kind.name: list[bytes]() for kind in self.kinds}, self.memory
        self.free = self.held = 0
        for kind in self.kinds:
            for page in kind.pages(lambda: watch.proposes(next(searched), self.free + self.held)):
                self.free += len(page.free)
                self.held += len(page.held)
                if room >= 0:
                    kept[kind.name].append(zlib.compress(pickle.dumps(page), level=1))
                    room -= len(kept[kind.name][-1])
                if room < 0:
                    kept.clear()
                seen(len(page.free) + len(page.held))
        self._kept = kept if room >= 0 else None

    def pages(self, kind: RecordKind[Facts]) -> Iterator[Page]:
        """Yield the proposals of a kind page by page: those that were kept, or what the store proposes now."""
        if self._kept is None:
            yield from kind.pages()
        else:
            for page in self._kept.get(kind.name, ()):
                yield pickle.loads(zlib.decompress(page))  # noqa: S301 — bytes of this process

    def decide(self, seen: Seen = lambda _: None) -> None:
        """Decide every proposal without a lock, for the statistics of the plan."""
        self.by_slice.clear()
        self.counts = Counts()
        for kind in self.kinds:
            self.counts.add(scan(kind, self.pages(kind), seen, self._note))

    def weigh(self, approval: Approval | None, seen: Seen) -> int:
        """Check the proposals against `approval`, or against the volume limits if there is none.

        No more can be due than was proposed, so that the proposals are decided only if their number exceeds the limits.

        Returns:
            The number of conversations that are due at most, for purge or redaction.

        Raises:
            RefusedError: more is due than the approval or the limits allow.
        """
        if approval is None and not any(guards.volume(self.job, self.free)):
            return self.free
        self.decide(seen)
        if approval is not None:
            approvals.refuse_more(approval, self.counts.approvable)
        else:
            for refusal in guards.volume(self.job, self.counts.due, self.counts.redacted_by_rule.total()):
                raise refusal
        return self.counts.approvable.total()

    @cached_property
    def approval(self) -> Approval:
        """The approval of this plan; a run under it purges at most as many of each rule."""
        job, scope = self.job, str(self.scope or "")
        store = job.database.within(lambda c: store_counts.identity(c, job.settings.store.schema_name))
        due, redact = dict(self.counts.by_rule), dict(self.counts.redacted_by_rule)
        return Approval(store, job.policy.digest, job.as_of, job.clock.now(), due, scope, redact)

    def as_json(self) -> dict[str, Any]:
        """Return the plan for machines; `digest` is what `--approve` takes."""
        found = {
            "as_of": self.job.as_of,
            "policy": self.job.policy.digest,
            **(vars(self.scope) if self.scope else {}),
            "would_purge": self.counts.due,
            **self.counts.as_json(),
        }
        if self.scope is None:
            found["would_redact"] = self.counts.redacted_by_rule.total()
            found["feedback_would_purge"] = self.counts.feedback_by_rule.total()
        else:
            found["slices"] = [
                {"since": window.since, "until": window.until, "would_purge": self.by_slice[window]}
                for window in self._slices
                if window.since and window.until and self.by_slice[window]
            ]
        found["would_refuse"] = [refusal.guard for refusal in self.refusals]
        found["policy_change"] = self.policy_change
        return {**found, "digest": self.approval.token(), "duration_s": round(self.seconds, 3)}

    def write(self, path: Path) -> None:
        """Write the plan as JSON for a person to review and for `read`.

        Raises:
            ConfigurationError: nothing can be written there.
        """
        due_dates = {kind: self.counts.of(kind) for kind in KINDS}
        found = to_json(
            {
                **_figures(self.approval),
                "schema": self.job.contract.schema,
                "policy_name": self.job.policy.name,
                **self.as_json(),
                "due_dates": {kind: counts.due_dates() for kind, counts in due_dates.items()},
                "refusals": {refusal.guard: str(refusal) for refusal in self.refusals},
            }
        )
        with atomic_write(path) as file:
            file.write(json.dumps({**found, "checksum": _checksum(found)}, indent=2).encode() + b"\n")

    @cached_property
    def _slices(self) -> list[Window]:
        return list(slices(self.scope.since, self.scope.until, self.scope.by)) if self.scope else []

    def _note(self, verdict: Verdict) -> None:
        """Count a conversation to purge in its slice."""
        if self._slices:
            self.by_slice[self._slices[bisect_right(self._slices, verdict.due, key=attrgetter("since")) - 1]] += 1


def read(path: Path) -> Approval:
    """Return the approval that a plan file carries.

    Raises:
        ConfigurationError: it cannot be read, is no plan file, or was edited.
    """
    try:
        found = json.loads(files.read_text(path, FILE_BYTES), object_pairs_hook=_unambiguous)
        checksum, approval = found.pop("checksum"), approvals.decode(found["digest"])
        figures = to_json(_figures(approval))
    except (files.UnreadableError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"--plan {path}: this is no plan of a dry run, or it was truncated ({error}). Nothing was done. "
            "Write one with --dry-run --out FILE."
        ) from None
    edited = [
        f"{name} is {found.get(name)}, its digest says {is_}" for name, is_ in figures.items() if found.get(name) != is_
    ]
    if not edited and checksum != _checksum(found):
        edited = [f"its checksum is {checksum}, its content has {_checksum(found)}"]
    if edited:
        raise ConfigurationError(
            f"--plan {path}: the plan was edited after it was written: {'; '.join(edited)}. Nothing was done. "
            "Preview again with --dry-run --out FILE, and execute that plan as it is."
        )
    return approval


def _figures(approval: Approval) -> dict[str, Any]:
    """Return the figures that a plan file and its digest have in common."""
    return {
        "store": approval.store,
        "policy": approval.policy,
        "as_of": approval.as_of,
        "issued_at": approval.issued_at,
        "lapses_at": approval.issued_at + approvals.LAPSES_AFTER,
        **(vars(BackfillScope.parse(approval.scope)) if approval.scope else {}),
        "would_purge": sum(approval.due.values()),
        "by_rule": Counter(approval.due),
        **(
            {"would_redact": sum(approval.redact.values()), "redacted_by_rule": Counter(approval.redact)}
            if approval.redact
            else {}
        ),
    }


def _checksum(found: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; if a name occurs twice, a person and a parser may read different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in it")
    return found
