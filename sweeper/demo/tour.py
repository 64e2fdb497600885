"""The demo: real conversations in a PostgreSQL of its own, and the program's own commands tried on them, one by one."""

import contextlib
import os
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import typer
from sqlalchemy import text

from sweeper import embedded, log
from sweeper.clock import Clock
from sweeper.demo import world as worlds
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.job import Job, prepare
from sweeper.settings import Settings
from sweeper.store import database as databases
from sweeper.store import migrate
from sweeper.store.database import Database
from sweeper.survey import everything

RULES = (
    "zero_retention",
    "deleted",
    "account_closed",
    "incognito",
    "commercial",
    "partner",
    "consent_ended",
    "training_allowed",
    "standard",
    "flagged",
    "erasure_order",
    "unclassified",
)
OBJECTS = "objects"


@dataclass(frozen=True)
class Examples:
    """One conversation per rule that the sweep keeps, one that it purges, and how many there are of both."""

    kept: dict[str, str]
    purged: dict[str, str]
    counts: dict[str, tuple[int, int]]


def show(settings: Settings, clock: Clock, seed: int, keep: Path | None) -> None:
    """Run the demo; with `keep`, its data stays in that directory.

    Raises:
        ConfigurationError: the directory already holds a demo.
    """
    log.configure(quiet=True)
    with _folder(keep) as folder, embedded.server(folder if keep else None) as server:
        database = settings.database.model_copy(update={"url": server.url()})
        shown = settings.model_copy(update={"database": database})
        _load(shown, clock, seed, folder)
        os.environ["SWEEPER_DATABASE_URL"] = server.url()
        _show_sweep(shown, clock)
        _say_goodbye(keep)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the objects behind attachments lie: in the kept directory, or in one that goes with the demo."""
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="sweeper-demo-") as folder:
        yield Path(folder)


def _load(settings: Settings, clock: Clock, seed: int, folder: Path) -> None:
    """Make the reference store and load the real conversations with made-up plans and consent histories."""
    _heading("A store with real conversations")
    database = databases.connect(settings)
    try:
        _refuse_second(database, folder)
        world = worlds.build(seed, clock.now(), folder / OBJECTS)
        with psycopg.connect(settings.database.url.replace("+psycopg", "")) as connection:
            worlds.load(connection, world)
        migrate.migrate(database)
        _protect(database, world)
    finally:
        database.engine.dispose()
    _explain(
        f"Loaded {len(world.conversations):,} real conversations of {len(world.accounts):,} people with "
        f"{len(world.messages):,} messages, as one block shifted to end shortly before now. Plans, consent, deletions and "
        f"flags are made up from seed {seed}, so that every rule of the policy has somebody to purge or keep. "
        f"{len(world.holds)} legal holds and {len(world.orders)} erasure orders are in force or were."
    )


def _refuse_second(database: Database, folder: Path) -> None:
    with database.transaction() as connection:
        if connection.execute(text("SELECT to_regnamespace('store') IS NOT NULL")).scalar_one():
            raise ConfigurationError(
                f"{folder} already holds a demo: nothing was loaded. Name another directory, or try the commands on it with "
                f"SWEEPER_DATABASE_URL=embedded:{folder}"
            )


def _protect(database: Database, world: worlds.World) -> None:
    with database.transaction() as connection:
        for hold in world.holds:
            connection.execute(
                text(
                    "INSERT INTO sweeper.legal_holds (matter, account_id, conversation_id, placed_at, released_at) "
                    "VALUES (:matter, :account_id, :conversation_id, :placed_at, :released_at)"
                ),
                vars(hold),
            )
        for order in world.orders:
            connection.execute(
                text(
                    "INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at) "
                    "VALUES (:reference, :account_id, :conversation_id, :recorded_at, :due_at)"
                ),
                vars(order),
            )


def _show_sweep(settings: Settings, clock: Clock) -> None:
    job = prepare(settings, clock)
    try:
        examples = _examples(job)
    finally:
        job.database.engine.dispose()
    _heading("1. Preview: what would go, and why")
    _explain("A dry run writes nothing. It counts what is due by rule and prints a digest that could be approved.")
    _command("run", "--dry-run")
    _heading("2. Sweep: purge with evidence")
    _explain("Batches are locked, decided again on the locked rows, deleted, and recorded in the same transaction.")
    _command("run")
    _heading("3. Sweep again: nothing is left to do")
    _command("run")
    _heading("4. Every rule, and one conversation that it keeps, explained")
    _show_counts(examples)
    for rule in RULES:
        if rule in examples.kept:
            _command("explain", examples.kept[rule])
    _heading("5. And what became of one that was purged")
    _command("explain", next(iter(examples.purged.values())))


def _examples(job: Job) -> Examples:
    kept: dict[str, str] = {}
    purged: dict[str, str] = {}
    counts: dict[str, tuple[int, int]] = {}
    for explained in everything(job):
        rule, id_ = str(explained.verdict.rule), explained.facts.conversation.id
        gone, stays = counts.get(rule, (0, 0))
        if explained.verdict.purge:
            counts[rule] = (gone + 1, stays)
            purged.setdefault(rule, id_)
        else:
            counts[rule] = (gone, stays + 1)
            if explained.facts.messages <= FEW_MESSAGES:
                kept.setdefault(rule, id_)
    return Examples(kept, purged, counts)


FEW_MESSAGES = 8
"""An example with few messages reads better."""


def _show_counts(examples: Examples) -> None:
    _say(f"{'rule':<18}{'purged':>8}{'kept':>8}")
    for rule in RULES:
        gone, stays = examples.counts.get(rule, (0, 0))
        _say(f"{rule:<18}{gone:>8,}{stays:>8,}")


def _command(*arguments: str) -> None:
    """Show a command and run it, as if typed."""
    from sweeper.cli import app  # the command line imports this module

    _say(f"\n$ sweeper {' '.join(arguments)}")
    sys.stdout.flush()
    try:
        with contextlib.suppress(typer.Exit):
            app(list(arguments), standalone_mode=False)
    except SweeperError as error:
        _say(f"sweeper: {error}")


def _say_goodbye(keep: Path | None) -> None:
    _heading("Done")
    if keep is None:
        _explain("The server is stopped and its data are gone. To keep them and try commands: sweeper demo --keep DIR")
        return
    _explain(f"The server is stopped; the data stay in {keep}. A command starts the server for as long as it runs:")
    _say(f"  export SWEEPER_DATABASE_URL=embedded:{keep.resolve()}")
    _say("  sweeper explain --all | head")


def _heading(title: str) -> None:
    _say(f"\n{title}\n{'=' * len(title)}")


def _explain(words: str) -> None:
    _say(textwrap.fill(words, width=100))


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
