"""The job: one store, one policy and one as-of, prepared once and passed to all that works on it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import aware, rfc3339
from sweeper.policy.schema import Policy
from sweeper.policy.window import EVERYTHING, Window
from sweeper.postgres import contract as contracts
from sweeper.postgres import database as databases
from sweeper.postgres import migrate
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database, DatabaseError
from sweeper.postgres.facts import FactsReader
from sweeper.postgres.proposals import Selector
from sweeper.settings import Settings, load_policy


@dataclass(frozen=True)
class Job:
    """What a sweep, a preview or an explanation works on; `window` limits it to a range of due dates.

    `further_reason` is called between steps. It returns a reason to stop other than a stop request, or "".
    """

    database: Database
    contract: Contract
    policy: Policy
    clock: Clock
    as_of: datetime
    window: Window = EVERYTHING
    further_reason: Callable[[], str] = lambda: ""

    def stop_reason(self) -> str:
        """Return why the work must stop, or "" to continue."""
        return self.database.stop.reason or self.further_reason()

    @property
    def settings(self) -> Settings:
        """The settings of the database connection."""
        return self.database.settings

    @property
    def is_present(self) -> bool:
        """True if as-of is now, within the clock tolerance; a later instant in the store then comes from a wrong clock."""
        return self.clock.now() - self.as_of <= timedelta(seconds=self.settings.guards.clock_tolerance_seconds)

    @property
    def reader(self) -> FactsReader:
        """A reader of the facts that this policy needs."""
        return FactsReader(self.contract, self.policy, self.as_of)

    @property
    def selector(self) -> Selector:
        """A selector of the records that may be due at as-of."""
        return Selector(self.database, self.contract, self.policy, self.as_of, self.window)

    @property
    def redaction_selector(self) -> Selector | None:
        """A selector of the conversations whose content may be due at as-of; None if no rule redacts."""
        if self.policy.redacting is None:
            return None
        return Selector(self.database, self.contract, self.policy.redacting, self.as_of, with_content=True)


def prepare(settings: Settings, clock: Clock, as_of: datetime | None = None, *, is_patient: bool = False) -> Job:
    """Return a job on the store of the settings; as-of defaults to now.

    With `is_patient` a server that does not answer yet is waited for, as one that goes away later always is.

    Raises:
        ConfigurationError: settings, policy or store cannot be used, or as-of is not plausible.
        DatabaseError: the database cannot be reached.
    """
    policy = load_policy(settings)
    at = _plausible(policy, as_of or clock.now())
    database = databases.connect(settings)
    if is_patient:
        database.expected.set()
    try:
        return Job(database, read_contract(database, policy), policy, clock, at)
    except SweeperError:
        database.engine.dispose()
        raise


def on(database: Database, policy: Policy, clock: Clock, as_of: datetime | None = None) -> Job:
    """Return a job under a policy that may be another one than that of the settings.

    Raises:
        ConfigurationError: the store cannot be used with this policy, or as-of is not plausible.
    """
    at = _plausible(policy, as_of or clock.now())
    return Job(database, read_contract(database, policy), policy, clock, at)


def _plausible(policy: Policy, as_of: datetime) -> datetime:
    at = aware(as_of)
    if not policy.plausible.holds(at):
        raise ConfigurationError(
            f"{untrusted_as_of(policy, at)} Nothing was done. Give an --as-of in that range, or fix the clock."
        )
    return at


def untrusted_as_of(policy: Policy, as_of: datetime) -> str:
    """Return the message for an as-of outside the policy's plausible range."""
    since, before = policy.plausible.since, policy.plausible.before
    return f"as-of {rfc3339(as_of)} is not believed: plausible is from {rfc3339(since)} to before {rfc3339(before)}."


def read_contract(database: Database, policy: Policy) -> Contract:
    """Read the store's contract after checking that the sweeper's own tables have the right revision."""
    try:
        migrate.refuse_other(migrate.revision(database))
        with database.transaction() as connection:
            return contracts.read(connection, database.settings, policy)
    except DBAPIError as error:
        raise unreachable(error) from None


def unreachable(error: DBAPIError) -> DatabaseError:
    """Return an error with a remedy for a database that does not answer or denies permission."""
    if databases.sqlstate(error) == "42501":  # insufficient_privilege
        way_out = (
            "This role may not; deploy/postgres/roles.sql says which may: the job purges, officers hold, auditors read."
        )
    elif databases.sqlstate(error) in ("22021", "22P05"):  # character_not_in_repertoire, untranslatable_character
        way_out = "The text does not fit the database's encoding: fix what is stored, or write it in other characters."
    else:
        way_out = "Check SWEEPER_DATABASE_URL, that the server runs and what the role may do (`sweeper check`)."
    return DatabaseError(
        f"database: {databases.reason(error)}. What was committed before stands; nothing else was done.", remedy=way_out
    )
