"""`account`: everything about one account, and whether all of it that was due is gone.

`explain` of an account prints the short form of it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Window

if TYPE_CHECKING:
    from sweeper.policy.evaluate import Evaluation
    from sweeper.policy.facts import Facts
    from sweeper.postgres.lookup import StoredAccount
    from sweeper.report.account import (
        AccountView,
        ManifestFindings,
        PurgedLine,
        StoredLine,
    )
    from sweeper.runs.job import Job

MOST = 20
"""How many conversations `explain` lists."""


def account(
    account_id: Annotated[str, typer.Argument(metavar="ID", help="Id of an account.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write it to this file, as a page to pass on.")
    ] = None,
    purged: Annotated[
        bool,
        typer.Option("--purged", help="Say whether everything that was due is gone, and why. If not, exit with 1."),
    ] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="With --purged: the first due date, or an instant.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="DATE", help="With --purged: the last due date; or an instant, exclusive."),
    ] = None,
) -> None:
    """Tell everything about one account, for an access request.

    Or for a complaint: what is stored and when it is due, plans and consent over time, holds and orders, what was purged, and the
    training manifests that have messages of it.

    Example: sweeper account 06164d11-6113-5000-b6a7-99f977e937e4 --purged --since 2026-03-01 --until 2026-03-31
    """
    if not purged and (since or until):
        raise ConfigurationError("account: --since and --until work with --purged. Nothing was read. Add it.")
    at = context.instant("--as-of", as_of)
    with _page(html) as page, context.prepared(config, at) as job:
        id_ = context.text_argument("account", account_id)
        if purged:
            is_gone = _answer(job, id_, _window(since, until, min(job.as_of, job.clock.now())), output, page)
        else:
            is_gone = True
            _everything(job, id_, output, page)
    if html is not None and not output.is_data:
        console.say(f"The page is in {html}.")
    if not is_gone:
        raise typer.Exit(1)


@contextmanager
def _page(path: Path | None) -> Iterator[BinaryIO | None]:
    """Yield the file of the page, if one is wanted; a file that cannot be written is refused before the work begins."""
    from sweeper import files

    if path is None:
        yield None
        return
    with files.atomic_write(path) as file:
        yield file


def _printing(html: BinaryIO | None) -> AbstractContextManager[None]:
    """Return what surrounds the printing: the page is written even if stdout fails."""
    return nullcontext() if html is None else console.afterwards()


def _window(since: str | None, until: str | None, now: datetime) -> Window:
    """Return the window of due dates; a date as its end includes that day.

    Raises:
        ConfigurationError: it is empty, or reaches into the future.
    """
    begin, end = context.moment("--since", since), context.moment("--until", until)
    just_after = now + timedelta(microseconds=1)  # what is due now is due
    for option, found in (("--since", begin), ("--until", end)):
        if found is not None and found > now:
            raise ConfigurationError(
                f"{option} {rfc3339(found)} is in the future: what is not due yet cannot be shown to be gone. Nothing was read. "
                f"Give at most {rfc3339(now)}; without --purged, `sweeper account` says what is due when."
            )
    if end is not None and context.is_date(until):
        end = min(end + timedelta(days=1), just_after)
    if begin is not None and end is not None and begin >= end:
        raise ConfigurationError(
            f"--since {rfc3339(begin)} is not before the end that --until gives, {rfc3339(end)}: no due date lies between them. "
            "Nothing was read. Give the earlier one as --since."
        )
    return Window(begin, end or just_after)


def _everything(job: "Job", id_: str, output: OutputFormat, html: BinaryIO | None) -> None:
    """Print everything about an account, or write it as a page."""
    from sweeper.cli import account_text, progress
    from sweeper.report import account as accounts
    from sweeper.report import account_page

    with progress.steps() as step:
        in_manifests = accounts.in_manifests(job, id_, partial(step, "training manifests"))
    with accounts.opened(job, id_) as view:
        if not in_manifests.messages:
            _refuse_unknown(view, account_page.manifests_sentence(in_manifests))
        if html is not None or not output.is_data:
            with progress.steps() as step:
                most = account_text.MOST if html is None else account_page.LISTED
                found = accounts.overview(view, most, partial(step, "records of the account"))
        if html is not None:
            html.write(account_page.account_page(view, found, in_manifests).encode())
        with _printing(html):
            if output.is_data:
                _print_data(view, in_manifests, output)
            else:
                account_text.say_everything(view, found, in_manifests)


def _answer(job: "Job", id_: str, window: Window, output: OutputFormat, html: BinaryIO | None) -> bool:
    """Print what became of what was due, and return whether all of it is gone."""
    from sweeper.cli import account_text, progress
    from sweeper.report import account as accounts
    from sweeper.report import account_page

    with accounts.opened(job, id_) as view:
        _refuse_unknown(view, "Training manifests were not looked at.")
        with progress.steps() as step:
            answer = accounts.answer(view, window, partial(step, "records of the account"))
    if html is not None:
        html.write(account_page.answer_page(job, answer).encode())
    with _printing(html):
        if output is OutputFormat.CSV:
            _print_csv(answer.stored, answer.purged)
        elif output.is_data:
            console.print_data(answer, output)
        else:
            account_text.say_answer(answer)
    return answer.is_gone


def _print_data(view: "AccountView", in_manifests: "ManifestFindings", output: OutputFormat) -> None:
    """Print everything; CSV has the records alone, which are rows with the same columns."""
    from sweeper.cli import progress
    from sweeper.report import account as accounts

    is_free = not sys.stdout.isatty()  # else the rows that are printed would run through the bar
    with progress.steps() if is_free else nullcontext(lambda _, __: None) as step:
        tally = accounts.Tally()
        stored = tally.counted(view.stored(partial(step, "records of the account")))
        if output is OutputFormat.CSV:
            _print_csv(stored, view.purged())
            return
        lists = {"stored": stored, "purged": view.purged()}
        console.print_document(_head(view, in_manifests), lists, lambda: {"stored_by_rule": tally.totals}, output)


def _head(view: "AccountView", in_manifests: "ManifestFindings") -> dict[str, Any]:
    """Return what a document says before its long lists."""
    from sweeper.report import timeline

    job, found, known = view.job, view.found, view.history
    return {
        "account_id": view.id,
        "store": job.contract.schema,
        "as_of": job.as_of,
        "policy": {"name": job.policy.name, "digest": job.policy.digest},
        "has_row": found.is_stored,
        "conversations": found.conversations,
        "feedback": found.feedback,
        "timeline": timeline.of(known).lanes if known else [],
        "in_doubt": sorted(known.faults) if known else [],
        "holds": view.holds(),
        "orders": view.orders(),
        "purged_by_rule": view.tombstones,
        "manifests": in_manifests,
    }


def _print_csv(stored: Iterable["StoredLine"], purged: Iterable["PurgedLine"]) -> None:
    """Print stored and purged records as rows with the same columns."""
    from sweeper.report.account import PurgedLine, StoredLine

    columns = dict.fromkeys(each.name for kind in (StoredLine, PurgedLine) for each in fields(kind))
    printer = console.RowPrinter(OutputFormat.CSV)
    for state, rows in (("stored", stored), ("purged", purged)):
        for row in rows:
            printer.print({"state": state, **columns, **to_json(row)})


# --- explain ----------------------------------------------------------------------------------------------------------


def explain_account(job: "Job", account_id: str, *, output: OutputFormat) -> None:
    """Print what is stored of an account, what of it was purged, and its first conversations.

    Raises:
        SweeperError: nothing of such an account is stored, and no tombstone of this store names it.
    """
    from sweeper.report import account as accounts

    with accounts.opened(job, account_id) as view:
        _refuse_unknown(view)
        _print_short(view, output)


def explain_other(job: "Job", id_: str, *, supposed: bool, output: OutputFormat) -> None:
    """Print in short what is known of the account with that id.

    Raises:
        SweeperError: it is no account; the error says what it is, or where it was looked for.
    """
    from sweeper.postgres import lookup
    from sweeper.report import account as accounts

    with accounts.opened(job, id_) as view:
        if view.found.is_known and supposed:
            raise SweeperError(
                f"{id_} is an account, and --what-if works with a conversation. Ask `sweeper explain {id_}`."
            )
        if view.found.is_known:
            _print_short(view, output)
            return
    named = lookup.other(job.database, job.contract, id_)
    if named is None:
        context.known_id(
            job.database, job.contract.type("conversations"), id_, "conversation"
        )  # refuse what cannot be one
    raise SweeperError(
        named
        or _unknown(
            job,
            f"id {id_}",
            "no conversation, account, message, feedback row or manifest of it has this id, and no tombstone names it",
        )
    )


def _refuse_unknown(view: "AccountView", looked: str = "") -> None:
    """Raise if nothing of the account is stored and no tombstone names it; `looked` says where else somebody looked."""
    if view.found.is_known:
        return
    job, id_ = view.job, view.key.given
    if view.key.account is None:  # refuse what cannot be one
        context.known_id(job.database, job.contract.type("accounts"), id_, "account")
    raise SweeperError(_unknown(job, f"account {id_}", "no row of the store and no tombstone of it names it", looked))


def _unknown(job: "Job", what: str, why: str, looked: str = "") -> str:
    return (
        f"{what} is not known in store {job.contract.schema}: {why}. {looked and f'{looked} '}Whether it was ever stored "
        "cannot be told: what the application deletes leaves no tombstone, and a purged message leaves only that of its "
        "conversation. Nothing to explain. Check the id."
    )


def _print_short(view: "AccountView", output: OutputFormat) -> None:
    from sweeper.policy import explain as explanations

    found, listed = view.found, list(islice(view.conversations(), MOST))
    if output.is_data:
        lines = [explanations.line(facts, evaluation.verdict) for facts, evaluation in listed]
        console.print_data({**_as_json(found), "listed": lines}, output)
        return
    console.say(
        f"Account {found.id}: {'stored' if found.is_stored else 'it has no row in accounts'}.",
        f"  conversations: {found.conversations:,} stored; {_purged(found, 'conversation')}",
        f"  feedback rows: {found.feedback:,} stored; {_purged(found, 'feedback')}",
        f"  legal holds in force that name it: {found.holds} (`sweeper hold list`); erasure orders: {found.orders} "
        "(`sweeper order list`)",
    )
    if found.redacted:
        rules = ", ".join(f"{count} {rule}" for rule, count in found.redacted.items())
        console.say(f"  conversations whose content was redacted: {sum(found.redacted.values())} ({rules})")
    if found.last_purged_at is not None:
        console.say(f"  last purge: {rfc3339(found.last_purged_at)}")
    console.say(*(line(facts, evaluation) for facts, evaluation in listed))
    if found.conversations > len(listed):
        console.say(f"... {found.conversations - len(listed):,} more.")
    console.note(f"`sweeper account {found.id}` tells everything about it.")
    if listed:
        console.note("`sweeper explain ID` explains one of its conversations.")


def line(facts: "Facts", evaluation: "Evaluation") -> str:
    """Return one conversation as a line: id, what a run would do, rule, due date."""
    from sweeper.policy import explain as explanations

    told = to_json(explanations.line(facts, evaluation.verdict))
    shown = _shown(evaluation)
    return f"{told['conversation_id']}  {shown:<5}  {told['rule'] or 'no rule':<17}  {told['due_at'] or 'no due date'}"


def _shown(evaluation: "Evaluation") -> str:
    """Return in one word what a run would do with a conversation."""
    if evaluation.verdict.held:
        return "held"
    return {"purge": "purge", "spared": "spare"}.get(evaluation.outcome, "keep")


def _purged(found: "StoredAccount", record: str) -> str:
    by_rule = found.purged.get(record, {})
    rules = ", ".join(f"{count:,} {rule}" for rule, count in by_rule.items())
    return f"{sum(by_rule.values()):,} purged{f' ({rules})' if rules else ''}"


def _as_json(found: "StoredAccount") -> dict[str, Any]:
    return {
        "account_id": found.id,
        "stored": found.is_stored,
        "conversations": found.conversations,
        "feedback": found.feedback,
        "holds": found.holds,
        "orders": found.orders,
        "purged": {record: found.purged.get(record, {}) for record in ("conversation", "feedback")},
        "redacted": found.redacted,
        "last_purged_at": found.last_purged_at,
    }
