"""Sets up the demo: a private PostgreSQL server with the demo's world, and settings shared by the commands that run on it.

Invariant: unusable settings are refused before anything is loaded, and the world is loaded completely or not at all.
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

from sweeper import console, embedded, files
from sweeper.clock import Clock
from sweeper.demo import world as worlds
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.schema import Policy
from sweeper.postgres import database as databases
from sweeper.postgres import migrate
from sweeper.postgres.database import Database
from sweeper.runs.job import read_contract
from sweeper.settings import DEFAULT_FILE, PolicyFile, Settings, load, load_policy

OBJECTS = "objects"
TRIAL = "trial"
"""A temporary database, dropped before the world is loaded."""


@dataclass(frozen=True)
class DemoFixture:
    """The loaded world, and the settings and policy for the runs on it."""

    settings: Settings
    policy: Policy
    world: worlds.World
    folder: Path
    """The directory for files: the one that is kept, or one that is removed with the server."""


@contextmanager
def set_up(config: Path | None, clock: Clock, seed: int, keep: Path | None) -> Iterator[DemoFixture]:
    """Context manager for the demo; commands that run within it use its settings instead of those of the environment.

    Raises:
        ConfigurationError: the settings, the policy or the directory cannot be used; nothing was loaded.
    """
    settings = _settings(config)
    policy = load_policy(settings)
    _require_dataset()
    with _stop_on_sigterm(), embedded.server(keep) as server:
        _check(server, settings, policy)
        folder = keep or server.home
        settings = _with_database(settings, server.url(), worlds.object_prefix(folder / OBJECTS))
        world = _load(settings, clock, seed, folder)
        with _environment(config, settings):
            yield DemoFixture(settings, policy, world, folder)


def _settings(config: Path | None) -> Settings:
    """Return the settings, with the shipped policy if none is named and the default file does not exist."""
    settings = load(config)
    named = config or os.environ.get("SWEEPER_CONFIG") or os.environ.get("SWEEPER_POLICY_FILE")
    if named or DEFAULT_FILE.is_file() or settings.policy.file.is_file():
        return settings
    return settings.model_copy(update={"policy": PolicyFile(file=files.shipped("policy.toml"))})


def _require_dataset() -> None:
    if importlib.util.find_spec("chitchat_dataset") is None:
        raise ConfigurationError(
            "chitchat-dataset, the real conversations, is not installed: nothing was loaded. "
            "pip install '.[demo]' in the program's checkout"
        )


def _with_database(settings: Settings, url: str, *prefixes: str) -> Settings:
    """Return the settings for another database, with `prefixes` as [objects] prefixes."""
    database = settings.database.model_copy(update={"url": url})
    objects = settings.objects.model_copy(update={"prefixes": prefixes})
    return settings.model_copy(update={"database": database, "objects": objects})


def _check(server: embedded.Server, settings: Settings, policy: Policy) -> None:
    """Check policy and settings against an empty store in a temporary database.

    Raises:
        ConfigurationError: they do not fit the demo's store.
    """
    with psycopg.connect(_libpq(server.url()), autocommit=True) as administrator:
        administrator.execute(f"DROP DATABASE IF EXISTS {TRIAL} WITH (FORCE)")
        administrator.execute(f"CREATE DATABASE {TRIAL}")
        database = databases.connect(_with_database(settings, server.url(TRIAL)))
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
    """Create the reference store and load the world into it."""
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
    """Insert the world's holds and orders."""
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
    """Set the environment variables for the demo's commands: database, settings file, policy and object prefixes."""
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
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo like an error, so that its server is stopped and its data are removed."""

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
