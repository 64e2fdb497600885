"""Everything about one account as a page of HTML, and the answer to what became of what was due."""

from collections.abc import Sequence
from datetime import datetime

from sweeper.postgres.lookup import StoredAccount, TombstoneTotals
from sweeper.report import timeline
from sweeper.report.account import (
    AccountView,
    DueAnswer,
    ManifestFindings,
    Overview,
    PurgedLine,
    RuleTotals,
    StoredLine,
    by_record,
    day,
    reaches,
)
from sweeper.report.page import Block, Code, Commands, Facts, Section, Table, Verdict, page
from sweeper.runs.job import Job

LISTED = 1_000
"""How many records of each kind a page lists."""
RECEIPTS = 20
"""How many commands that write receipts a page shows."""
LIMITS = (
    "What the application deleted itself leaves no tombstone and is not on this page. Backups, archives, replicas and logs are "
    "not either: `sweeper report` names those that this database has. The page holds ids, times and counts, and no content."
)


def account_page(view: AccountView, found: Overview, in_manifests: ManifestFindings) -> str:
    """Return the page about an account; `found` lists at most LISTED records of each kind."""
    stored, tombstones = view.found, sum(totals.purged for totals in view.tombstones)
    facts: list[tuple[str, object]] = [
        *_facts(view.job, view.id),
        ("stored", f"{stored.conversations:,} conversations, {stored.feedback:,} feedback rows"),
        ("purged", purged_words(stored)),
        ("training manifests", manifests_sentence(in_manifests)),
    ]
    sections = (
        Section("Plans and consent", _life(view)),
        Section("What is stored", [*_totals(found.totals), *_stored(found.next_due, _count(found.totals))]),
        Section("Legal holds and erasure orders", [_protections(view)]),
        Section("What was purged", [*_tombstones(view), *_purged(found.last_purged, tombstones)]),
        Section("Training manifests", _manifests(in_manifests)),
        Section("What this page does not show", [LIMITS]),
    )
    return page(f"Account {view.id}", [Facts(facts)], sections)


def answer_page(job: Job, answer: DueAnswer) -> str:
    """Return the page that says what became of everything of an account that was due in a window."""
    nothing: list[Block] = ["Nothing."]
    sections = [Section("What was purged, and why", _purged(answer.purged, len(answer.purged)) or nothing)]
    if answer.stored:
        sections.append(Section("What is still stored", _stored(answer.stored, len(answer.stored))))
    sections.append(Section("What this page does not show", [LIMITS]))
    summary: list[Block] = [Verdict(answer.sentence, answer.is_gone), Facts(_facts(job, answer.account_id))]
    return page(f"What was due of account {answer.account_id}", summary, sections)


def purged_words(found: StoredAccount) -> str:
    """Return how many records of an account were purged, and how many conversations redacted."""
    purged = sum(sum(by_rule.values()) for by_rule in found.purged.values())
    redacted = sum(found.redacted.values())
    return f"{purged:,} records" + (f"; the content of {redacted:,} conversations was redacted" if redacted else "")


def manifests_sentence(found: ManifestFindings) -> str:
    """Return in a sentence whether messages of the account are in training manifests, or that nobody looked."""
    if not found.manifests:
        return "The store has no training manifest."
    count = f"{found.manifests:,} training manifest{'s' * (found.manifests != 1)}"
    if found.not_looked is not None:
        return f"Messages of the account were NOT looked for in {count}: {found.not_looked}."
    unread = sum(each.messages is None for each in found.found)
    holding = sum(bool(each.messages) for each in found.found)
    rest = f"; {unread:,} could not be read" if unread else ""
    return f"{found.messages:,} messages of the account are in {holding:,} of {count}{rest}."


def _facts(job: Job, account_id: str) -> list[tuple[str, object]]:
    return [
        ("account", Code(account_id)),
        ("as of", job.as_of),
        ("store", Code(job.contract.schema)),
        ("policy", f"{job.policy.name} ({job.policy.digest[:12]})"),
    ]


def _life(view: AccountView) -> list[Block]:
    if view.history is None:
        return ["The account has no row in accounts: nothing is known of its plans and its consent."]
    doubts = [f"In doubt ({fault}): an entry cannot be trusted." for fault in sorted(view.history.faults)]
    return [timeline.figure(timeline.of(view.history)), *doubts]


def _count(totals: Sequence[RuleTotals]) -> int:
    return sum(each.stored for each in totals)


def _totals(totals: Sequence[RuleTotals]) -> list[Block]:
    if not totals:
        return ["Nothing is stored."]
    headers = ("record", "rule", "stored", "due now", "held", "skipped", "in doubt", "first due", "last due")
    return [Table("Stored records by the rule that decides; dates in UTC", headers, [dated(each) for each in totals])]


def dated(totals: RuleTotals | TombstoneTotals) -> tuple[object, ...]:
    """Return the values of totals, of instants the date in UTC."""
    return tuple(day(value) if isinstance(value, datetime) else value for value in vars(totals).values())


def _stored(lines: Sequence[StoredLine], count: int) -> list[Block]:
    if not lines:
        return []
    headers = ("id", "rule", "due (UTC)", "why it is stored")
    tables = [
        Table(f"Stored: {kind}, due first", headers, [(Code(e.id), e.rule, day(e.due_at), e.why) for e in some])
        for kind, some in by_record(lines[:LISTED]).items()
    ]
    return [*tables, *_more(count, min(LISTED, len(lines)))]


def _more(count: int, shown: int) -> list[Block]:
    return [f"{count - shown:,} more are not listed here: --json lists all."] if count > shown else []


def protections(view: AccountView) -> list[tuple[object, ...]]:
    """Return the holds and orders that reach an account as rows: what, name, what it reaches, recorded, due, ended."""
    return [
        *(("hold", h["matter"], reaches(h), h["placed_at"], None, h["released_at"]) for h in view.holds()),
        *(
            ("order", o["reference"], reaches(o), o["recorded_at"], o["due_at"], o["withdrawn_at"])
            for o in view.orders()
        ),
    ]


def manifest_rows(found: ManifestFindings) -> list[tuple[object, ...]]:
    """Return manifests as rows: id, state, as of, messages, how many left, last recall; no numbers if it was not read."""
    return [
        (
            each.manifest,
            "retired" if each.retired_at else each.state,
            each.as_of,
            each.messages,
            None if each.messages is None else each.revoked.total(),
            each.recalled_at,
        )
        for each in found.found
    ]


def _protections(view: AccountView) -> Block:
    rows = protections(view)
    if not rows:
        return "No legal hold and no erasure order reaches the account or its conversations."
    headers = ("kind", "name", "reaches", "recorded", "due", "released or withdrawn")
    return Table("Legal holds and erasure orders that reach it, ended ones too", headers, rows)


def _tombstones(view: AccountView) -> list[Block]:
    if not view.tombstones:
        return ["No tombstone names the account."]
    headers = ("record", "rule", "purged", "first due", "last due", "first purge", "last purge")
    return [Table("Purged records by rule; dates in UTC", headers, [dated(each) for each in view.tombstones])]


def _purged(lines: Sequence[PurgedLine], count: int) -> list[Block]:
    if not lines:
        return []
    shown = lines[:LISTED]
    headers = ("id", "rule", "due (UTC)", "purged (UTC)", "run", "leaf")
    tables = [
        Table(
            f"Purged: {kind}",
            headers,
            [(Code(e.id), e.rule, day(e.due_at), day(e.purged_at), e.run, e.leaf) for e in some],
        )
        for kind, some in by_record(shown).items()
    ]
    why = sorted({(each.rule, each.policy[:12], each.because or "see that version of the policy") for each in lines})
    receipts = [each.receipt for each in shown if each.receipt][:RECEIPTS]
    blocks: list[Block] = [*tables, *_more(count, len(shown))]
    blocks.append(Table("Why they were due", ("rule", "policy", "reason"), why))
    if receipts:
        blocks += ["A receipt proves one purge without the database:", Commands(receipts)]
    return blocks


def _manifests(found: ManifestFindings) -> list[Block]:
    blocks: list[Block] = [manifests_sentence(found)]
    if found.found:
        headers = ("manifest", "state", "as of", "messages", "left since", "recalled")
        rows = [(Code(id_), *rest) for id_, *rest in manifest_rows(found)]
        blocks.append(Table("Messages of the account in training manifests", headers, rows))
        blocks += [f"Manifest {each.manifest} was not read: {each.not_read}" for each in found.found if each.not_read]
    return blocks
