"""The page of `policy diff --html`: what another policy would change, for those who decide about it."""

from collections.abc import Iterator
from importlib import metadata

from sweeper.report import numbers
from sweeper.report.chart import Bar, bars
from sweeper.report.page import Block, Code, Commands, Facts, Section, Table, Verdict, page
from sweeper.report.policy_diff import Move, PolicyDiff, RecordsDiff, TrainingChange

MOVED = ("would live shorter", "would live longer", "same due date")


def page_of(found: PolicyDiff) -> str:
    """Return the page as HTML."""
    return page(
        "What the new policy would change",
        list(_summary(found)),
        list(_sections(found)),
        footer=f"sweeper {metadata.version('sweeper')}",
    )


def _summary(found: PolicyDiff) -> Iterator[Block]:
    total = found.conversations.total
    yield Verdict(_verdict(found, total), is_good=not (total.shorter or found.feedback.total.shorter))
    yield Facts(
        [
            ("Store", numbers.store_name(found.job.settings)),
            ("As of", found.job.as_of),
            ("Old policy", found.old.name),
            ("Digest of the old policy", Code(found.old.digest)),
            ("New policy", found.new.name),
            ("Digest of the new policy", Code(found.new.digest)),
            ("Conversations", total.records),
        ]
    )
    yield "Every record was decided under both policies, in one snapshot of the store. Nothing was changed."


def _verdict(found: PolicyDiff, total: Move) -> str:
    if not found.differences:
        return "Both are the same policy: nothing would change."
    feedback = found.feedback.total
    if not (total.shorter or total.longer or feedback.shorter or feedback.longer):
        return "On this store no due date would change."
    return (
        f"Of {total.records:,} conversations, {total.shorter:,} would live shorter and {total.longer:,} longer; "
        f"{total.due_at_once:,} would become due at once."
    )


def _sections(found: PolicyDiff) -> Iterator[Section]:
    rows = [(each.part, each.text, each.shortens) for each in found.differences]
    if rows:
        headers = ("rule or table", "difference", "may shorten retention or admit to training")
        yield Section("What differs", [Table("Differences between the two policies", headers, rows)])
    yield Section("Conversations", list(_records("conversations", found.conversations)))
    if found.redactions is not None:
        yield Section("Redactions", list(_records("conversations' contents", found.redactions)))
    if found.feedback.moves:
        yield Section("Feedback", list(_records("feedback rows", found.feedback)))
    if found.accounts:
        accounts = [(Code(each.account_id or ""), *list(vars(each).values())[1:]) for each in found.accounts]
        names = ("account", "conversations", "would live shorter", "would live longer", "due at once")
        caption = "Accounts with the most conversations whose due date changes"
        yield Section("Accounts", [Table(caption, names, accounts)])
    if found.training is not None:
        yield Section("Training", [_training(found.training)])
    yield Section("How to go on", list(_advice(found)))


def _records(what: str, found: RecordsDiff) -> Iterator[Block]:
    total = found.total
    yield (
        f"Of the {total.shorter:,} {what} that would live shorter, {total.due_at_once:,} would be due at once, "
        f"{total.due_in_7_days:,} within 7 days and {total.due_in_30_days:,} within 30 days. {total.not_due_any_more:,} are due "
        "now and would not be. What a legal hold keeps is not counted as due."
    )
    changed = [move for move in found.moves if move.changes]
    if changed:
        finding = f"{total.shorter:,} {what} would live shorter and {total.longer:,} longer, by old and new rule"
        yield bars(finding, [_bar(move) for move in changed], series=MOVED, x=what)
    headers = ("old rule", "new rule", what, "would live shorter", "longer", "due at once", "in 7 days", "in 30 days")
    rows = [
        (
            move.old_rule,
            move.new_rule,
            *(move.records, move.shorter, move.longer),
            *(move.due_at_once, move.due_in_7_days, move.due_in_30_days),
        )
        for move in found.moves
    ]
    yield Table(f"{what.capitalize()} by old and new rule", headers, rows)
    examples = [
        (Code(each.id), which, one.rule, one.due_at or "never", one.because)
        for each in found.examples
        for which, one in (("old", each.old), ("new", each.new))
    ]
    if examples:
        yield Table(f"Examples of {what} that change", ("id", "policy", "rule", "due", "because"), examples)


def _bar(move: Move) -> Bar:
    name = move.new_rule if move.old_rule == move.new_rule else f"{move.old_rule} → {move.new_rule}"
    return Bar(name, (move.shorter, move.longer, move.records - move.shorter - move.longer))


def _training(change: TrainingChange) -> Table:
    rows = [
        ("become eligible", change.enter, change.enter_conversations),
        ("cease to be eligible", change.leave, change.leave_conversations),
        ("stay eligible", change.both, None),
    ]
    return Table("Messages that may be trained on", ("", "messages", "in conversations"), rows)


def _advice(found: PolicyDiff) -> Iterator[Block]:
    yield "If this is right, put the new policy in the place of the old one, look at a preview, and accept it once:"
    yield Commands(["sweeper run --dry-run", f"sweeper run --accept-policy {found.new.digest[:12]}"])
    yield "Why one of the examples is due is said by:"
    yield Commands(["sweeper explain ID"])
