"""Guards: checks that refuse a run. Each is a named setting, on by default, and reports what was found, the limit and the remedy.

Invariant: a guard that cannot decide refuses.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from sweeper.errors import RefusedError
from sweeper.policy.instant import rfc3339
from sweeper.postgres import evidence, fence, store_counts
from sweeper.postgres.store_counts import Histories
from sweeper.runs import policy_change
from sweeper.runs.job import Job, untrusted_as_of
from sweeper.runs.policy_change import PolicyChange

HISTORY_REMEDY = (
    "Finish the import; if the loss is right, run once with --accept-history, or set [guards] history = false."
)


def before(
    job: Job,
    histories: Histories,
    change: PolicyChange | None,
    *,
    accept_history: bool = False,
    accept_policy: str | None = None,
) -> Iterator[RefusedError]:
    """Yield the refusals that are known before anything is proposed; a run raises the first, a preview lists all."""
    guards, now = job.settings.guards, job.clock.now()
    database_now = job.database.within(job.clock.database_now)
    last = job.database.within(lambda c: evidence.last_completed(c, job.settings.store.schema_name))
    if guards.future_as_of and job.as_of > now:
        yield RefusedError(
            "future_as_of",
            f"as-of {rfc3339(job.as_of)} is later than now: what is not due yet would be purged.",
            f"Now is {rfc3339(now)}.",
            "Give an --as-of that is not in the future; --dry-run may look ahead.",
        )
    if guards.earlier_as_of and not job.policy.plausible.holds(job.as_of):
        yield RefusedError(
            "earlier_as_of",
            untrusted_as_of(job.policy, job.as_of),
            "",
            "Fix the clock, or give an --as-of in that range.",
        )
    elif guards.earlier_as_of and last.as_of is not None and job.as_of < last.as_of:
        yield RefusedError(
            "earlier_as_of",
            f"as-of {rfc3339(job.as_of)} is earlier than that of the last completed run: a clock may have been set back.",
            f"That of the last completed run is {rfc3339(last.as_of)}.",
            "Fix the clock, give a later --as-of (under --approve: preview again), or set [guards] earlier_as_of = false.",
        )
    apart = abs((now - database_now).total_seconds())
    if guards.clock and apart > guards.clock_tolerance_seconds:
        yield RefusedError(
            "clock",
            f"this machine's clock ({rfc3339(now)}) and the database's ({rfc3339(database_now)}) are {apart:.0f} s apart.",
            f"The limit is {guards.clock_tolerance_seconds} s.",
            "Fix the wrong clock, or raise [guards] clock_tolerance_seconds.",
        )
    if guards.fence and not job.database.within(fence.is_installed):
        yield RefusedError(
            "fence",
            "the row trigger `fence` on sweeper.legal_holds is missing or switched off: a legal hold placed by SQL or by "
            "replication might be overlooked.",
            "0 such triggers fire, 1 must.",
            "ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER fence; or set [guards] fence = false.",
        )
    yield from policy_change.refusals(job, change, accept_policy)
    if guards.history and not accept_history:
        yield from _history(job, histories, last)


def volume(job: Job, due: int, to_redact: int = 0) -> Iterator[RefusedError]:
    """Yield a refusal if so many conversations to purge and to redact are too many for a run without an approval."""
    guards = job.settings.guards
    if not guards.volume or due + to_redact == 0:
        return
    lately = _purged_lately(job)
    together = due + to_redact + lately.total()
    if together <= guards.max_count:
        return
    few_enough = int(together / guards.max_share) + 1 - lately["conversation"]
    stored = job.database.within(lambda c: store_counts.conversations(c, max(few_enough, 0))) + lately["conversation"]
    share = together / max(stored, 1)
    if share > guards.max_share:
        redactions = f", {to_redact} to be redacted" if to_redact else ""
        redacted = f" and {lately['redaction']} redacted" if lately["redaction"] else ""
        yield RefusedError(
            "volume",
            f"{due} conversations are due in this run{redactions} and {lately['conversation']} were purged{redacted} within the "
            f"last {guards.window_hours} hours: {share:.1%} of {stored}.",
            f"The limits are {guards.max_share:.0%} and {guards.max_count}.",
            "Look at `sweeper run --dry-run`; if it is right, run `sweeper run --approve DIGEST` with the digest it prints, "
            "or raise [guards] max_share or max_count.",
        )


def limit(job: Job, due: int) -> int | None:
    """Return how many conversations a run may purge or redact if `due` were due at its start; None if the guard is off."""
    guards = job.settings.guards
    return max(guards.max_count - _purged_lately(job).total(), due) if guards.volume else None


def more_than_weighed(allowed: int, purged: int) -> RefusedError:
    """Return the refusal of a run in which more is due than when it began."""
    return RefusedError(
        "volume",
        f"more than {allowed} conversations are due: facts have changed since the run began.",
        f"When this run was weighed, {allowed} was the most.",
        "Find out what made more due (`sweeper run --dry-run`), and run again.",
        f"{purged} were purged, with evidence; no more was.",
    )


def _purged_lately(job: Job) -> Counter[str]:
    """Return how many conversations were purged and redacted without an approval within [guards] window_hours."""
    now = job.clock.now()
    since = now - timedelta(hours=job.settings.guards.window_hours)
    return job.database.within(lambda c: evidence.purged_lately(c, job.settings.store.schema_name, since, now))


def _history(job: Job, now: Histories, last: evidence.LastCompleted) -> Iterator[RefusedError]:
    """Yield a refusal if a history is empty or has shrunk: a failed import must not read as "nobody consented"."""
    if not now.conversations:
        return
    used = (
        ("plan_changes", job.policy.uses_plans, now.plan_changes, last.plan_changes),
        ("consent_events", job.policy.uses_consent, now.consent_events, last.consent_events),
    )
    for relation, is_used, count, before_ in used:
        if is_used and count == 0:
            yield RefusedError(
                "history",
                f"{relation} is empty while conversations exist and the policy uses it: 0 rows.",
                "At least 1 is needed.",
                HISTORY_REMEDY,
            )
        elif is_used and before_ is not None and count < before_:
            yield RefusedError(
                "history",
                f"{relation} has {count} rows.",
                f"The last completed run saw {before_}.",
                HISTORY_REMEDY,
            )
