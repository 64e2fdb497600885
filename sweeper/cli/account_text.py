"""What `account` says to people: everything about one account, and what became of what was due."""

from collections.abc import Iterable, Sequence

from sweeper import console
from sweeper.policy.instant import rfc3339
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
)
from sweeper.report.account_page import dated, manifest_rows, manifests_sentence, protections, purged_words

MOST = 20
"""How many records of each kind are listed."""
LIMITS = (
    "The due dates are those of the tombstones and, for what is stored, of the policy now. What the application deleted itself "
    "leaves no tombstone. Training manifests were not looked at: `sweeper account ID` does that."
)


def say_everything(view: AccountView, found: Overview, in_manifests: ManifestFindings) -> None:
    """Say everything about an account."""
    job = view.job
    console.say(
        f"Account {view.id}, store {job.contract.schema}, at {rfc3339(job.as_of)}, policy {job.policy.name} "
        f"({job.policy.digest[:12]})"
    )
    _heading("Plans and consent")
    if view.history is None:
        console.say("It has no row in accounts: nothing is known of its plans and consent.")
    else:
        line = timeline.of(view.history)
        console.say(*timeline.drawn(line))
        console.say("", *line.listed(MOST))
        console.say(*(f"In doubt ({fault}): an entry cannot be trusted." for fault in sorted(view.history.faults)))
    _heading(f"Stored: {view.found.conversations:,} conversations, {view.found.feedback:,} feedback rows")
    _print_stored(found.totals, found.next_due[:MOST])
    _heading("Legal holds and erasure orders that reach it")
    _print_protections(view)
    _heading(f"Purged: {purged_words(view.found)}")
    _print_tombstones(view, found.last_purged[:MOST])
    _heading("Training manifests")
    _print_manifests(in_manifests)


def _heading(text: str) -> None:
    console.say("", text)


def _say_more(count: int) -> None:
    """Say how many records are not listed, if any."""
    if count > 0:
        console.say(f"... and {count:,} more: --json lists all.")


def _print_stored(totals: Sequence[RuleTotals], lines: Sequence[StoredLine]) -> None:
    if not totals:
        console.say("Nothing.")
        return
    for kind, some in by_record(totals).items():
        console.print_table(
            (kind, "stored", "due now", "held", "skipped", "doubt", "first due", "last due"),
            [dated(each)[1:] for each in some],
        )
    console.say("", "Due first:")
    _print_lines(lines)
    _say_more(sum(each.stored for each in totals) - len(lines))


def _print_lines(lines: Iterable[StoredLine]) -> None:
    for kind, some in by_record(lines).items():
        console.print_table(
            (kind, "rule", "due", "why"),
            [(each.id, each.rule or "no rule", day(each.due_at), each.why) for each in some],
        )


def _print_protections(view: AccountView) -> None:
    rows = protections(view)
    if not rows:
        console.say("None.")
        return
    console.print_table(("", "name", "reaches", "recorded", "due", "released or withdrawn"), rows[:MOST])
    _say_more(len(rows) - MOST)


def _print_tombstones(view: AccountView, lines: Sequence[PurgedLine]) -> None:
    totals = view.tombstones
    if not totals:
        console.say("No tombstone names the account. What the application deletes itself leaves none.")
        return
    for kind, some in by_record(totals).items():
        console.print_table(
            (kind, "purged", "first due", "last due", "first purge", "last purge"),
            [dated(each)[1:] for each in some],
        )
    console.say("", "Purged last:")
    _print_purged(lines)
    _say_more(sum(each.purged for each in totals) - len(lines))


def _print_purged(lines: Sequence[PurgedLine]) -> None:
    for kind, some in by_record(lines).items():
        console.print_table(
            (kind, "rule", "due", "purged", "run"),
            [(each.id, each.rule, day(each.due_at), day(each.purged_at), each.run) for each in some],
        )
    receipts = [each.receipt for each in lines if each.receipt]
    if receipts:
        console.say("", "A receipt proves a purge without the database:", *(f"  {each}" for each in receipts))
    if any(each.receipt is None and each.record == "conversation" for each in lines):
        console.say(
            "There is no receipt yet of what no signed checkpoint covers. `sweeper audit checkpoint` takes one, if there is a "
            "signing key."
        )


def _print_manifests(found: ManifestFindings) -> None:
    console.say(manifests_sentence(found))
    if not found.found:
        return
    console.print_table(
        ("manifest", "state", "as of", "messages", "left since", "recalled"),
        manifest_rows(found),
    )
    console.say(*(f"{each.manifest} was NOT read: {each.not_read}" for each in found.found if each.not_read))
    rows = sum(each.rows for each in found.found)
    console.say(f"{rows:,} rows were read and compared with the account's pseudonym.")


def say_answer(answer: DueAnswer) -> None:
    """Say what became of everything that was due in a time."""
    console.say(answer.sentence)
    if answer.purged:
        _heading("Purged")
        _print_purged(answer.purged)
        _print_reasons(answer.purged)
    if answer.stored:
        _heading("Still stored")
        _print_lines(answer.stored)
    console.say("", LIMITS)


def _print_reasons(lines: Sequence[PurgedLine]) -> None:
    """Say why each rule applied, in the words of the policy that decided."""
    console.say("", "Why")
    for rule, policy, because in sorted({(each.rule, each.policy, each.because or "") for each in lines}):
        under = (
            because or f"decided under another version of the policy, with digest {policy[:12]}, which has its reason"
        )
        console.say(f"  {rule}: {under}.")
