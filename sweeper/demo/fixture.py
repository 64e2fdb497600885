"""The demo's stage: a PostgreSQL of its own with the made-up world in it, and settings that every command on it shares.

The law of this file: what can be refused is refused before anything is loaded, and a world is loaded whole or not at all.
"""

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psycopg
from sqlalchemy import text

import sweeper
from sweeper import console, embedded
from sweeper.clock import Clock
from sweeper.demo import world as worlds
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.schema import Policy
from sweeper.postgres import database as databases
from sweeper.postgres import migrate
from sweeper.postgres.database import Database
from sweeper.runs.job import read_contract
from sweeper.settings import DEFAULT_FILE, PolicyFile, Settings, load, load_policy

PACKAGE = Path(sweeper.__file__).parent
OBJECTS = "objects"
TRIAL = "trial"
"""A database that is gone before the world is loaded into the other one."""


@dataclass(frozen=True)
class DemoFixture:
    """The world as loaded, and the settings and policy with which it is swept."""

    settings: Settings
    policy: Policy
    world: worlds.World
    folder: Path
    """Where the demo may write: the directory that is kept, or one that goes with the server."""


@contextmanager
def set_up(config: Path | None, clock: Clock, seed: int, keep: Path | None) -> Iterator[DemoFixture]:
    """The stage for as long as the demo lasts; commands run meanwhile use it, whatever the environment named before.

    Raises:
        ConfigurationError: the settings, the policy or the directory cannot be used; nothing was loaded.
    """
    settings = _settings(config)
    policy = load_policy(settings)
    _require_dataset()
    with _ended_by_sigterm(), embedded.server(keep) as server:
        _try(server, settings, policy)
        folder = keep or server.home
        settings = _on(settings, server.url(), worlds.place(folder / OBJECTS))
        world = _load(settings, clock, seed, folder)
        with _environment(config, settings):
            yield DemoFixture(settings, policy, world, folder)


def shipped_policy() -> Path:
    """The policy that comes with the program: in the installed package, or beside it in a checkout."""
    installed = PACKAGE / "config" / "policy.toml"
    return installed if installed.is_file() else PACKAGE.parent / "config" / "policy.toml"


def _settings(config: Path | None) -> Settings:
    """The settings; where nobody has named a policy and none lies where it would, the shipped one."""
    settings = load(config)
    named = config or os.environ.get("SWEEPER_CONFIG") or os.environ.get("SWEEPER_POLICY_FILE")
    if named or DEFAULT_FILE.is_file() or settings.policy.file.is_file():
        return settings
    return settings.model_copy(update={"policy": PolicyFile(file=shipped_policy())})


def _require_dataset() -> None:
    if importlib.util.find_spec("chitchat_dataset") is None:
        raise ConfigurationError(
            "chitchat-dataset, the real conversations, is not installed: nothing was loaded. "
            "pip install '.[demo]' in the program's checkout"
        )


def _on(settings: Settings, url: str, *places: str) -> Settings:
    """The settings for another database, of which objects are removed below some places only."""
    database = settings.database.model_copy(update={"url": url})
    objects = settings.objects.model_copy(update={"prefixes": places})
    return settings.model_copy(update={"database": database, "objects": objects})


def _try(server: embedded.Server, settings: Settings, policy: Policy) -> None:
    """Try policy and settings on an empty store in a database of its own.

    Raises:
        ConfigurationError: a store like the demo's cannot be swept with them.
    """
    with psycopg.connect(_libpq(server.url()), autocommit=True) as administrator:
        administrator.execute(f"DROP DATABASE IF EXISTS {TRIAL} WITH (FORCE)")
        administrator.execute(f"CREATE DATABASE {TRIAL}")
        database = databases.connect(_on(settings, server.url(TRIAL)))
        try:
            with psycopg.connect(_libpq(server.url(TRIAL))) as connection:
                worlds.create(connection, settings.store.schema_name)
            migrate.migrate(database)
            read_contract(database, policy)
        except SweeperError as error:
            raise ConfigurationError(
                f"the demo's store cannot be swept with this policy and these settings: nothing was loaded. {error} "
                "Or run the demo without --config and without SWEEPER_ variables."
            ) from None
        finally:
            database.engine.dispose()
            administrator.execute(f"DROP DATABASE {TRIAL} WITH (FORCE)")


def _load(settings: Settings, clock: Clock, seed: int, folder: Path) -> worlds.World:
    """Make the reference store and load the real conversations with made-up plans and consent histories."""
    database = databases.connect(settings)
    try:
        _refuse_second(database, folder)
        migrate.migrate(database)
    finally:
        database.engine.dispose()
    world = worlds.build(seed, clock.now(), folder / OBJECTS)
    with psycopg.connect(_libpq(settings.database.url)) as connection, connection.transaction():
        worlds.load(connection, world, settings.store.schema_name)
        _protect(connection, world)
    return world


def _refuse_second(database: Database, folder: Path) -> None:
    schema = database.settings.store.schema_name
    with database.transaction() as connection:
        if connection.execute(text("SELECT to_regnamespace(quote_ident(:s)) IS NOT NULL"), {"s": schema}).scalar_one():
            raise ConfigurationError(
                f"{folder} already holds a demo: nothing was loaded. Name another directory, or try the commands on it with "
                f"SWEEPER_DATABASE_URL=embedded:{folder}"
            )


def _protect(connection: psycopg.Connection[Any], world: worlds.World) -> None:
    """Place the world's holds and orders."""
    for hold in world.holds:
        connection.execute(
            "INSERT INTO sweeper.legal_holds (matter, account_id, conversation_id, placed_at, released_at) "
            "VALUES (%(matter)s, %(account_id)s, %(conversation_id)s, %(placed_at)s, %(released_at)s)",
            vars(hold),
        )
    for order in world.orders:
        connection.execute(
            "INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at) "
            "VALUES (%(reference)s, %(account_id)s, %(conversation_id)s, %(recorded_at)s, %(due_at)s)",
            vars(order),
        )


@contextmanager
def _environment(config: Path | None, settings: Settings) -> Iterator[None]:
    """What the commands of the demo read: its database, its settings file, its policy and where its objects are."""
    before = dict(os.environ)
    os.environ["SWEEPER_DATABASE_URL"] = settings.database.url
    os.environ["SWEEPER_OBJECT_PREFIXES"] = json.dumps(settings.objects.prefixes, ensure_ascii=False)
    os.environ["SWEEPER_POLICY_FILE"] = str(settings.policy.file.resolve())
    if config is not None:
        os.environ["SWEEPER_CONFIG"] = str(config)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as an error would, so that its server stops and its data go."""

    def end(_: int, __: FrameType | None) -> NoReturn:
        console.warn("the demo was asked to stop; its server is stopped.")
        raise SystemExit(SweeperError.exit_code)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _libpq(url: str) -> str:
    return url.replace("+psycopg", "", 1)
