"""The command line: reads the clock once, prepares a job, prints what came of it. Data to stdout, logs to stderr.

Exit codes are documented API: 0 done, 1 failed, 2 usage or configuration, 3 refused by a guard, 4 another run holds the lease.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from sweeper import approval as approvals
from sweeper import explain as explanations
from sweeper import log
from sweeper import sweep as sweeps
from sweeper.clock import Clock
from sweeper.core.decide import exists
from sweeper.core.instant import parse, rfc3339
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.job import Job, prepare, unreachable
from sweeper.progress import watched
from sweeper.settings import Settings, load, load_policy
from sweeper.store import census, evidence, protections
from sweeper.store import check as checks
from sweeper.store import database as databases
from sweeper.store import migrate as migrations
from sweeper.survey import everything
from sweeper.tally import Tally

app = typer.Typer(
    help="Data-retention sweeper: purges stored AI-assistant conversations when they are due, and says why.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
hold_app = typer.Typer(help="Legal holds: what is held is never purged.", no_args_is_help=True)
order_app = typer.Typer(help="Erasure orders: a due that no rule can lengthen.", no_args_is_help=True)
app.add_typer(hold_app, name="hold")
app.add_typer(order_app, name="order")

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file; else SWEEPER_CONFIG, else config/sweeper.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="INSTANT", help="Look at the world at this instant, e.g. 2026-01-31T00:00:00Z."),
]
CLOCK = Clock()


class WhatIf(StrEnum):
    """What a user could do at as-of."""

    OPT_OUT = "opt-out"
    DELETE = "delete"


def main() -> NoReturn:
    """Run the command line; every expected failure is one message on stderr and its exit code."""
    log.configure()
    try:
        app()
    except SweeperError as error:
        _fail(error)
    except DBAPIError as error:
        _fail(unreachable(error))
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # whoever read us has gone; nobody is left to tell
        sys.exit(1)
    sys.exit(0)


def _fail(error: SweeperError) -> NoReturn:
    sys.stderr.write(f"sweeper: {error}\n")
    sys.exit(error.exit_code)


@contextmanager
def _settings(config: Path | None) -> Iterator[Settings]:
    """The settings; a database URL of `embedded:DIR` starts the demo's own PostgreSQL for as long as the command runs."""
    settings = load(config)
    folder = settings.database.url.removeprefix("embedded:")
    if folder == settings.database.url:
        yield settings
        return
    from sweeper import embedded  # needed for the demo's data only

    with embedded.server(Path(folder)) as server:
        database = settings.database.model_copy(update={"url": server.url()})
        yield settings.model_copy(update={"database": database})


@contextmanager
def _job(config: Path | None, as_of: str | None) -> Iterator[Job]:
    at = _instant("--as-of", as_of)
    with _settings(config) as settings:
        job = prepare(settings, CLOCK, at)
        try:
            yield job
        finally:
            job.database.engine.dispose()


@contextmanager
def _database(config: Path | None) -> Iterator[databases.Database]:
    with _settings(config) as settings:
        database = databases.connect(settings)
        try:
            yield database
        finally:
            database.engine.dispose()


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{option} {text!r}: {error}. Nothing was done. Write an instant with its offset, for instance 2026-01-31T00:00:00Z."
        ) from None


def _print_json(value: Mapping[str, Any] | list[Any]) -> None:
    sys.stdout.write(json.dumps(value, default=_json_default) + "\n")


def _json_default(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else explanations.shown(value)  # type: ignore[arg-type]  # only instants come here


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, pad_edge=False, header_style="")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


@app.command()
def migrate(config: Config = None, as_json: AsJson = False) -> None:
    """Create or change the sweeper's own tables (schema sweeper); touches nothing else.

    Example: sweeper migrate
    """
    with _database(config) as database:
        before, after = migrations.migrate(database)
    if as_json:
        _print_json({"before": before, "after": after})
    else:
        _print(
            f"sweeper's tables: revision {before or 'none'} → {after}"
            if before != after
            else f"already at revision {after}"
        )


@app.command()
def run(
    config: Config = None,
    as_json: AsJson = False,
    as_of: AsOf = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preview: write nothing, print the digest to approve.")
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option("--approve", metavar="DIGEST", help="Run what a dry run found, even beyond the volume limits."),
    ] = None,
    accept_history: Annotated[
        bool, typer.Option("--accept-history", help="Go on although plan or consent history is missing or became less.")
    ] = False,
) -> None:
    """One sweep: purge what is due, record it, report it.

    Example: sweeper run --dry-run
    """
    if approve is not None and (as_of is not None or dry_run):
        raise ConfigurationError("--approve brings its own as-of: nothing was done. Leave out --as-of and --dry-run.")
    approval = approvals.read(approve) if approve is not None else None
    with _job(config, rfc3339(approval.as_of) if approval else as_of) as job:
        if dry_run:
            _preview(job, as_json=as_json)
            return
        if approval is not None:
            with job.database.transaction() as connection:
                store = census.identity(connection, job.settings.store.schema_name)
            approvals.check(approval, store, job.policy.digest, job.clock.now())
        with _stop_on_signal() as stopping, watched(stopping) as watch:
            result = sweeps.sweep(job, approval=approval, accept_history=accept_history, watch=watch)
    if as_json:
        _print_json(result.as_json())
    else:
        _print_result(result)
    if result.outcome != "completed":
        raise typer.Exit(1)


def _preview(job: Job, *, as_json: bool) -> None:
    with watched(lambda: False) as watch:
        preview = sweeps.preview(job, watch)
    if as_json:
        _print_json(preview.as_json())
        return
    _print(
        f"Preview at {rfc3339(job.as_of)}, policy {job.policy.name!r} ({job.policy.digest[:12]}). Nothing was written."
    )
    _print(f"Would purge {preview.tally.due} conversations and {preview.tally.feedback_by_rule.total()} feedback rows.")
    _print_tally(preview.tally, "would purge", dict(preview.tally.by_rule), dict(preview.tally.feedback_by_rule))
    for refusal in preview.refusals:
        _print(f"A run would refuse ({refusal.guard}): {refusal}")
    _print(f"digest: {preview.approval.token()}")


def _print_result(result: sweeps.Result) -> None:
    found = result.as_json()
    _print(
        f"Run {result.run_id} {result.outcome}: {found['purged']} conversations and {found['feedback_purged']} feedback rows "
        f"purged at {found['as_of']} in {found['duration_s']} s."
    )
    _print_tally(result.tally, "purged", result.purged["conversation"], result.purged["feedback"])
    if result.objects_pending:
        _print(
            f"{result.objects_pending} objects of purged attachments could not be removed yet; the next run tries again."
        )
    if result.tally.failed:
        _print(f"{result.tally.failed} records could not be purged; the log on stderr names each with its reason.")


def _print_tally(tally: Tally, verb: str, conversations: Mapping[str, int], feedback: Mapping[str, int]) -> None:
    rows: list[tuple[object, ...]] = [(verb, rule, count) for rule, count in sorted(conversations.items())]
    rows += [(f"{verb} (feedback)", rule, count) for rule, count in sorted(feedback.items())]
    if tally.held + tally.feedback_held:
        rows.append(("held", "due, but under legal hold", tally.held + tally.feedback_held))
    rows += [("spared", reason, count) for reason, count in sorted(tally.spared.items())]
    rows += [("unclassified", reason, count) for reason, count in sorted(tally.unclassified.items())]
    rows += [("anomaly", reason, count) for reason, count in sorted(tally.anomalies.items())]
    if rows:
        _print_table(("", "", "count"), rows)


@contextmanager
def _stop_on_signal() -> Iterator[Any]:
    """Ask the sweep to stop after the batch at work when SIGINT or SIGTERM comes."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def explain(
    conversation_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The conversation.")] = None,
    config: Config = None,
    as_json: AsJson = False,
    as_of: AsOf = None,
    everything_: Annotated[bool, typer.Option("--all", help="Every conversation, one line each.")] = False,
    what_if: Annotated[
        WhatIf | None, typer.Option("--what-if", help="Suppose that the user does this at as-of.")
    ] = None,
) -> None:
    """Why a conversation is kept or purged: facts, rule, exact due, what would change it, what may be trained on.

    Example: sweeper explain 5f0c1a52-8f0f-5a58-9d3e-6f3c6b7a1a11 --what-if opt-out
    """
    if (conversation_id is None) == (not everything_):
        raise ConfigurationError("explain takes either one ID or --all. Nothing was read.")
    with _job(config, as_of) as job:
        if conversation_id is None:
            _explain_all(job, as_json=as_json)
        else:
            _explain_one(job, conversation_id, what_if, as_json=as_json)


def _explain_one(job: Job, conversation_id: str, what_if: WhatIf | None, *, as_json: bool) -> None:
    id_ = protections.canonical(job.database, job.contract.type("conversations"), conversation_id, "conversation")
    with job.database.transaction() as connection:
        facts = job.reader.conversations(connection, [id_ or ""]).get(id_ or "")
        messages = job.reader.messages(connection, id_ or "")
    if facts is None:
        raise SweeperError(f"there is no conversation {conversation_id}. Nothing to explain. {_buried(job, id_ or '')}")
    if not exists(facts.conversation, job.policy, job.as_of):
        raise SweeperError(
            f"conversation {conversation_id} begins after as-of {rfc3339(job.as_of)}: it does not exist there yet. "
            "Nothing to explain. Give a later --as-of."
        )
    if what_if is not None:
        facts = explanations.suppose(facts, job.policy, job.as_of, what_if.value)
    explanation = explanations.Explanation(
        facts, job.policy, job.as_of, messages, what_if.value if what_if is not None else None
    )
    if as_json:
        _print_json(explanation.as_json())
    else:
        _print(explanation.as_text())


def _buried(job: Job, id_: str) -> str:
    with job.database.transaction() as connection:
        stone = evidence.tombstone_of(connection, job.settings.store.schema_name, id_)
    if stone is None:
        return "No tombstone names it either: it was never here, or something else deleted it."
    return (
        f"It was purged at {rfc3339(stone['purged_at'])} by run {stone['run_id']}, rule {stone['rule']}, "
        f"due {rfc3339(stone['due_at'])}, as-of {rfc3339(stone['as_of'])}."
    )


def _explain_all(job: Job, *, as_json: bool) -> None:
    ahead = 0

    def count_ahead(_: int) -> None:
        nonlocal ahead
        ahead += 1

    anomalies: dict[str, int] = {}
    for explained in everything(job, count_ahead):
        found = explanations.line(explained.facts, explained.verdict)
        if as_json:
            _print_json(found)
        else:
            state = "purge" if found["purge"] else "held" if found["held"] else "keep"
            _print(
                f"{found['conversation_id']}  {state:<5}  {found['rule'] or 'no rule':<17}  {found['due_at'] or 'no due'}"
            )
        for anomaly in explained.anomalies:
            anomalies[anomaly.value] = anomalies.get(anomaly.value, 0) + 1
    if ahead:
        anomalies["created_after_as_of"] = ahead
    if anomalies:
        log.get().warning("anomalies", **anomalies)


@hold_app.command("place")
def hold_place(
    matter: Annotated[str, typer.Argument(help="What the hold is for, e.g. a case number.")],
    config: Config = None,
    as_json: AsJson = False,
    account: Annotated[str | None, typer.Option("--account", help="Hold everything of this account.")] = None,
    conversation: Annotated[str | None, typer.Option("--conversation", help="Hold this conversation.")] = None,
    everything_: Annotated[bool, typer.Option("--everything", help="Hold everything there is.")] = False,
) -> None:
    """Place a legal hold. When this returns, no purge violates it.

    Example: sweeper hold place CASE-2026-7 --account 5f0c1a52-8f0f-5a58-9d3e-6f3c6b7a1a11
    """
    if everything_ == (account is not None or conversation is not None):
        raise ConfigurationError(
            "hold place: name --account, --conversation or both, or else --everything. Nothing was held."
        )
    with _job(config, None) as job:
        account_id, conversation_id = _canonical(job, account, conversation)
        hold = protections.place_hold(job.database, matter, account_id, conversation_id, job.as_of)
    _print_rows([hold], as_json=as_json, one=True)


@hold_app.command("release")
def hold_release(
    matter: Annotated[str | None, typer.Argument(help="Release all holds of this matter.")] = None,
    config: Config = None,
    as_json: AsJson = False,
    hold_id: Annotated[int | None, typer.Option("--id", help="Release this one hold.")] = None,
) -> None:
    """Release legal holds. What only they kept is purged by the next run.

    Example: sweeper hold release CASE-2026-7
    """
    if (matter is None) == (hold_id is None):
        raise ConfigurationError("hold release: name a matter or --id. Nothing was released.")
    with _job(config, None) as job:
        released = protections.release_holds(job.database, matter, hold_id, job.as_of)
    if not released:
        raise SweeperError(f"no hold in force for {matter or hold_id}. Nothing was released. See `sweeper hold list`.")
    _print_rows(released, as_json=as_json)


@hold_app.command("list")
def hold_list(
    config: Config = None,
    as_json: AsJson = False,
    released: Annotated[bool, typer.Option("--all", help="Also those that are released.")] = False,
) -> None:
    """List legal holds.

    Example: sweeper hold list --all
    """
    with _job(config, None) as job:
        _print_rows(protections.list_holds(job.database, released=released), as_json=as_json)


@order_app.command("add")
def order_add(
    reference: Annotated[str, typer.Argument(help="The order's reference.")],
    config: Config = None,
    as_json: AsJson = False,
    account: Annotated[str | None, typer.Option("--account", help="Everything of this account created so far.")] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", help="This conversation (with --account: of it).")
    ] = None,
    due: Annotated[str | None, typer.Option("--due", metavar="INSTANT", help="By when it must be gone.")] = None,
) -> None:
    """Record an erasure order. Without --due it stops training at once and moves no due.

    Example: sweeper order add DSR-118 --account 5f0c1a52-8f0f-5a58-9d3e-6f3c6b7a1a11 --due 2026-12-24T00:00:00Z
    """
    if account is None and conversation is None:
        raise ConfigurationError(
            "order add: name --account, --conversation or both; an order of neither names nothing."
        )
    due_at = _instant("--due", due)
    with _job(config, None) as job:
        account_id, conversation_id = _canonical(job, account, conversation)
        order = protections.add_order(job.database, reference, account_id, conversation_id, job.as_of, due_at)
    _print_rows([order], as_json=as_json, one=True)


@order_app.command("list")
def order_list(config: Config = None, as_json: AsJson = False) -> None:
    """List erasure orders.

    Example: sweeper order list --json
    """
    with _job(config, None) as job:
        _print_rows(protections.list_orders(job.database), as_json=as_json)


def _canonical(job: Job, account: str | None, conversation: str | None) -> tuple[str | None, str | None]:
    """The ids as the store writes them."""
    return (
        protections.canonical(job.database, job.contract.type("accounts"), account, "--account"),
        protections.canonical(job.database, job.contract.type("conversations"), conversation, "--conversation"),
    )


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        _print_json(rows[0] if one else rows)
    elif rows:
        shown = [
            [explanations.shown(v) if isinstance(v, datetime) else "" if v is None else v for v in r.values()]
            for r in rows
        ]
        _print_table(rows[0], shown)
    else:
        _print("none")


@app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Check connection, privileges, contract, indexes, delete hazards, clock and policy; each fault with its remedy.

    Example: sweeper check
    """
    with _settings(config) as settings:
        policy = load_policy(settings)
        database = databases.connect(settings)
        try:
            findings = checks.check(database, policy, CLOCK)
        finally:
            database.engine.dispose()
    if as_json:
        _print_json(
            [{"level": f.level.value, "subject": f.subject, "text": f.text, "remedy": f.remedy} for f in findings]
        )
    else:
        for finding in findings:
            _print(f"{finding.level.value.upper():<8} {finding.subject}: {finding.text}")
            if finding.remedy:
                _print(f"         → {finding.remedy}")
    if any(finding.level is checks.Level.FAULT for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    config: Config = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the data here, to try commands on.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which plans and consent histories are made up.")] = 1,
) -> None:
    """Show everything on 7,168 real conversations in a PostgreSQL of its own; nothing of yours is touched.

    Example: sweeper demo --keep /tmp/sweeper-demo
    """
    from sweeper.demo import tour  # the demo's packages are an extra

    tour.show(load(config), CLOCK, seed, keep)


if __name__ == "__main__":
    main()
