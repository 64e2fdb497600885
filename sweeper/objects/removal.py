"""Removes the objects behind purged attachments after the commit; what is kept or fails stays pending until the next run.

Invariant: an object is removed only after a query showed that no attachment refers to it; in doubt it is kept. Objects that are
removed at the same time, or by one request, are claimed and searched for together, directly before. Attachments with
non-canonical URIs are searched again when the last search is stale, and after each page, to report objects that were referred to
too late. Removal is idempotent.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.errors import LeaseLostError, PausedError
from sweeper.objects import file_systems, threads
from sweeper.objects.file_systems import Remover
from sweeper.objects.prefixes import FoundObject, ObjectPrefixes
from sweeper.objects.threads import NotRemoved, StoppedError
from sweeper.postgres import evidence
from sweeper.postgres.database import Database, sqlstate
from sweeper.postgres.statement import statement
from sweeper.uri import NON_CANONICAL, Candidates, KeptObject, Uri, UriError, try_parse

PAGE = 1_000
"""Objects per page."""
STALE_SECONDS = 0.005
"""Shortest time between two searches for non-canonical URIs."""
STALE_TIMES = 10
"""Shortest time between two searches as a multiple of the duration of the last, which is long if the index is missing."""
RENEW_SECONDS = 2.0
"""Longest time between two renewals of the lease while objects are removed."""
CLAIM_SECONDS = 15.0
"""How much longer a claim lasts than a file system may take."""
ROWS = 1_000
"""Non-canonical URIs fetched at a time."""
CANCELLED = "57014"
"""SQLSTATE of a statement time-out."""
UNSEARCHED = "attachments could not be searched in time; create the index that `sweeper check` names"


class _UnsearchedError(Exception):
    """The search for non-canonical URIs took too long."""


def remove_pending(
    database: Database,
    run_id: int,
    now: datetime,
    renew: Callable[[], None],
    should_stop: Callable[[], bool] = lambda: False,
    kept: Counter[str] | None = None,
) -> int:
    """Try to remove pending objects, each once per run, those with the fewest attempts first, within the limits of [objects].

    Args:
        database: the store's database.
        run_id: the current run.
        now: the instant to record (UTC).
        renew: renews the lease; called before each page and every few seconds.
        should_stop: returns True to stop; called before each removal and while waiting for one.
        kept: counter of kept objects by reason, updated in place.

    Returns:
        The number of objects still pending.
    """
    kept = Counter() if kept is None else kept
    if should_stop():
        return count_pending(database)
    if database.settings.objects.prefixes:
        removal = _Removal(database, run_id, now, renew, should_stop, kept)
        try:
            removal.run()
        except StoppedError:
            pass  # the next run tries those objects again
        finally:
            removal.log_kept()
        return count_pending(database)
    waiting = count_pending(database)
    if waiting:
        kept[KeptObject.NO_PREFIXES] += waiting
        log.get().warning(
            'no object is removed: [objects] prefixes is empty. List where they are, for instance prefixes = ["s3://bucket/"]',
            pending=waiting,
            run=run_id,
        )
    return waiting


def count_pending(database: Database) -> int:
    """Return the number of pending objects of the store."""
    return database.within(lambda connection: pending(connection, database.settings.store.schema_name))


def pending(connection: Connection, store: str) -> int:
    """Return the number of pending objects of a store, in the caller's transaction."""
    count: int = connection.execute(statement("objects_count"), {"store": store}).scalar_one()
    return count


@dataclass
class _Object:
    """A pending object. `outcome` and `error` are kept when a transaction is retried, so that nothing is removed twice."""

    id: int
    found: FoundObject
    spellings: list[str]
    is_doubtful: bool = False
    """True if an attachment may refer to it."""
    outcome: str = ""
    error: str = ""
    is_named: bool = False
    """True if it was removed and an attachment refers, or may refer, to it now."""
    is_reported: bool = False
    """True if an event has recorded that."""

    @classmethod
    def of(cls, id_: int, written: str, found: FoundObject) -> "_Object":
        """Return the object of a row."""
        spellings = {written}.union(*(uri.spellings for uri in found.uris))
        return cls(id_, found, sorted(spellings))

    @property
    def is_open(self) -> bool:
        """True until the object has an outcome or an error."""
        return not self.outcome and not self.error

    def mark_referenced(self, *, is_certain: bool) -> None:
        """Note that an attachment refers to the object, or may refer to it."""
        if self.outcome == "removed":
            self.is_named = True
        elif self.is_open and is_certain:
            self.outcome = "shared"
        elif self.is_open:
            self.is_doubtful = True

    def note(self, answer: str | NotRemoved) -> None:
        """Note what became of the object."""
        if isinstance(answer, NotRemoved):
            self.error = answer.reason
        else:
            self.outcome = answer


class _Page:
    """A page of pending objects, and the time at which non-canonical URIs were last compared with them."""

    def __init__(self, objects: Sequence[_Object]) -> None:
        self.objects = objects
        self._by_id = {item.id: item for item in objects}
        self._candidates = Candidates({item.id: item.found.uris for item in objects})
        self._stale_at = 0.0

    def is_stale(self) -> bool:
        """Return True if non-canonical URIs must be compared again before more objects are removed."""
        return time.monotonic() >= self._stale_at

    def compare(self, uris: Iterator[str]) -> None:
        """Mark the objects to which non-canonical URIs refer, or may refer."""
        began = time.monotonic()
        for written in uris:
            certain, perhaps = self._candidates.named_by(written)
            for id_ in certain | perhaps:
                self._by_id[id_].mark_referenced(is_certain=id_ in certain)
        self._stale_at = began + max(STALE_SECONDS, STALE_TIMES * (time.monotonic() - began))


@dataclass
class _Removal:
    database: Database
    run_id: int
    now: datetime
    renew: Callable[[], None]
    should_stop: Callable[[], bool]
    kept: Counter[str]
    hanging: set[Uri] = field(default_factory=set)
    cursor: tuple[int, int] = (-1, 0)
    """Attempts and id of the last object of the last page."""
    renewed: float = 0.0
    is_stopped: bool = False
    """True if the run was asked to stop while it waited for a file system."""
    began: float = 0.0

    def run(self) -> None:
        """Process page after page until none is left, a limit is reached or the run must stop.

        Raises:
            StoppedError: the run was asked to stop while it waited for a file system.
        """
        self.began = time.monotonic()
        prefixes: ObjectPrefixes | None = None  # resolving them may wait for file systems, so only if there is work
        remaining = self.database.settings.objects.per_run
        while remaining > 0 and not self.should_stop():
            self.renew()
            page = self._page()
            if not page:
                return
            prefixes = prefixes or ObjectPrefixes.resolve(self.database.settings.objects.prefixes, self.may_continue)
            remaining -= self._settle_page(page, prefixes, remaining)

    def may_continue(self) -> bool:
        """Return False if the run is to stop. Renews the lease if it is time to."""
        if time.monotonic() - self.renewed > RENEW_SECONDS:
            self.renew()
            self.renewed = time.monotonic()
        return not self.should_stop()

    def _is_late(self) -> bool:
        """Return True, and log it, if [objects] budget_seconds is used up."""
        budget = self.database.settings.objects.budget_seconds
        is_late = budget > 0 and time.monotonic() - self.began >= budget
        if is_late:
            log.get().warning(
                "[objects] budget_seconds is used up; later runs remove the other objects", run=self.run_id
            )
        return is_late

    def log_kept(self) -> None:
        """Log how many objects were kept, by reason."""
        if self.kept:
            reasons = dict(sorted(self.kept.items()))
            log.get().warning("objects kept; sweeper.object_purges (last_error) says which", **reasons, run=self.run_id)

    def _page(self) -> Sequence[Row[Any]]:
        grace = self.database.settings.objects.grace_seconds
        parameters = {
            "run_id": self.run_id,
            "store": self.database.settings.store.schema_name,
            "attempts": self.cursor[0],
            "after": self.cursor[1],
            "ended_by": self.now - timedelta(seconds=grace) if grace else None,
            "limit": PAGE,
        }
        return self.database.fetched(statement("objects_pending"), parameters)

    def _settle_page(self, rows: Sequence[Row[Any]], prefixes: ObjectPrefixes, most: int) -> int:
        """Try at most `most` objects of a page and return how many were tried, not counting those whose file system hangs.

        Raises:
            StoppedError: the run is to stop, or the search for non-canonical URIs took too long.
        """
        objects, refused = self._sort(rows, prefixes, most)
        self._refuse(refused)
        page = _Page(objects)
        by_prefix: dict[Uri, list[_Object]] = {}
        for item in objects:
            by_prefix.setdefault(item.found.prefix, []).append(item)
        try:
            return len(refused) + sum(self._settle_below(prefix, below, page) for prefix, below in by_prefix.items())
        except _UnsearchedError:
            self.kept[KeptObject.UNSEARCHED] += sum(item.is_open for item in objects)
            log.get().error(UNSEARCHED)
            raise StoppedError from None
        finally:
            self._report_late_references(page)

    def _settle_below(self, prefix: Uri, objects: Sequence[_Object], page: _Page) -> int:
        """Try the objects of a page below one prefix; return how many were tried, not counting those that wait since it hangs."""
        if file_systems.removes_in_bulk(prefix):
            self._settle_groups(objects, file_systems.MOST_KEYS, file_systems.remove_in_bulk, page)
        left = [item for item in objects if item.is_open]
        self._settle_groups(left, self.database.settings.objects.parallel, file_systems.remove, page)
        waiting = sum(item.is_open for item in left) if prefix in self.hanging else 0
        self.kept.update({KeptObject.HANGS: waiting} if waiting else {})
        return len(objects) - waiting

    def _settle_groups(self, objects: Sequence[_Object], size: int, remover: Remover, page: _Page) -> None:
        """Try objects below one prefix, so many at a time, until its file system hangs.

        Raises:
            StoppedError: the run is to stop, or its time for objects is used up.
        """
        for start in range(0, len(objects), size):
            if objects[0].found.prefix in self.hanging:
                return
            if not self.may_continue() or self._is_late():
                raise StoppedError
            self._settle(objects[start : start + size], remover, page)

    def _sort(
        self, page: Sequence[Row[Any]], prefixes: ObjectPrefixes, most: int
    ) -> tuple[list[_Object], dict[int, str]]:
        """Split a page into removable objects and, by id, the reasons against the others; at most `most` of both together."""
        objects: list[_Object] = []
        refused: dict[int, str] = {}
        for row in page:
            if len(objects) + len(refused) == most:
                break
            self.cursor = (row.attempts, row.id)
            try:
                item = _Object.of(row.id, row.uri, prefixes.find(row.uri))
            except UriError as error:
                refused[row.id] = error.kept.value
                continue
            if prefixes.hangs(item.found.prefix):
                self.hanging.add(item.found.prefix)
            if item.found.prefix in self.hanging:
                self.kept[KeptObject.HANGS] += 1
            else:
                objects.append(item)
        return objects, refused

    def _refuse(self, refused: dict[int, str]) -> None:
        if refused:
            self.kept.update(refused.values())
            self.database.within(lambda connection: self._keep(connection, refused))

    def _keep(self, connection: Connection, errors: Mapping[int, str]) -> None:
        """Record why objects were not removed, by id."""
        if errors:
            parameters = {"ids": list(errors), "errors": list(map(str, errors.values())), "run_id": self.run_id}
            connection.execute(statement("objects_kept"), parameters)

    def _fetch_non_canonical(self, connection: Connection, may_continue: Callable[[], bool]) -> Iterator[str]:
        """Yield the non-canonical URIs of attachments.

        Raises:
            StoppedError: `may_continue` returned False.
            _UnsearchedError: the search took too long.
        """
        try:
            rows = connection.execute(
                statement("objects_non_canonical", pattern=NON_CANONICAL), execution_options={"yield_per": ROWS}
            )
            for portion in rows.scalars().partitions():
                if not may_continue():
                    raise StoppedError
                yield from portion
        except DBAPIError as error:
            if sqlstate(error) != CANCELLED or self.database.stop.is_abandoned:
                raise
            raise _UnsearchedError from None

    def _report_late_references(self, page: _Page) -> None:
        """Report removed objects to which an attachment with a non-canonical URI refers by now, even if the run is to stop."""
        removed = [item for item in page.objects if item.outcome == "removed" and not item.is_reported]
        if not removed or self.database.stop.is_abandoned:
            return

        def report(connection: Connection) -> list[_Object]:
            page.compare(self._fetch_non_canonical(connection, self._renew_only))
            named = [item for item in removed if item.is_named]
            for item in named:
                _record_late_reference(connection, self.run_id, item)
            return named

        try:
            for item in self.database.within(report):
                _warn(item)
        except _UnsearchedError:
            log.get().error(UNSEARCHED)

    def _renew_only(self) -> bool:
        """Return True even if the run is to stop, is paused or has lost its lease. Renews the lease if it is time to."""
        with suppress(LeaseLostError, PausedError):
            self.may_continue()
        return True

    def _settle(self, group: Sequence[_Object], remover: Remover, page: _Page) -> None:
        """Remove objects to which no attachment refers, and record what became of each. URIs are never logged.

        Raises:
            StoppedError: the run is to stop.
            _UnsearchedError: the search for non-canonical URIs took too long.
        """
        timeout_ms = int((threads.HANGS_SECONDS + CLAIM_SECONDS) * 1000)

        def attempt() -> list[_Object]:
            with self.database.transaction(idle_timeout_ms=timeout_ms) as connection:
                if any(item.is_open for item in group) and page.is_stale():
                    # before the claim, after which the common spellings are searched
                    page.compare(self._fetch_non_canonical(connection, self.may_continue))
                return self._claim_and_settle(connection, group, remover)

        for item in self.database.retried(attempt):
            item.is_reported = True
            _warn(item)
        errors = Counter(str(item.error) for item in group if item.error)
        if errors:
            self.kept.update(errors)
            log.get().warning("objects not removed; they are tried again in the next run", errors=dict(errors))
        if self.is_stopped:
            raise StoppedError

    def _claim_and_settle(self, connection: Connection, group: Sequence[_Object], remover: Remover) -> list[_Object]:
        """Claim and settle objects; return those that were removed although an attachment refers to them by now."""
        ids = {"ids": [item.id for item in group]}
        claimed = set(connection.execute(statement("objects_claim"), ids).scalars())
        group = [item for item in group if item.id in claimed]  # another process has claimed or settled the others
        self._remove(connection, [item for item in group if item.is_open], remover)
        self._keep(connection, {item.id: item.error for item in group if item.error})
        return self._record(connection, [item for item in group if item.outcome])

    def _remove(self, connection: Connection, group: Sequence[_Object], remover: Remover) -> None:
        """Remove objects unless an attachment refers, or may refer, to them."""
        _mark_named(connection, group)
        for item in group:
            if item.is_open and item.is_doubtful:
                item.error = KeptObject.IN_DOUBT
        free = [item for item in group if item.is_open]
        if not free or self.is_stopped:
            return
        try:
            for position, answer in remover([item.found for item in free], self.may_continue):
                free[position].note(answer)
        except StoppedError:
            self.is_stopped = True  # what was removed is recorded first
        if any(item.error == KeptObject.HANGS for item in free):
            self.hanging.add(free[0].found.prefix)

    def _record(self, connection: Connection, done: Sequence[_Object]) -> list[_Object]:
        """Record outcomes; return the removed objects to which an attachment refers by now, each with its event."""
        if not done:
            return []
        outcomes = {"ids": [item.id for item in done], "outcomes": [item.outcome for item in done]}
        connection.execute(statement("objects_done"), {**outcomes, "run_id": self.run_id, "now": self.now})
        removed = [item for item in done if item.outcome == "removed" and not item.is_reported]
        _mark_named(connection, removed)
        named = [item for item in removed if item.is_named]
        for item in named:
            _record_late_reference(connection, self.run_id, item)
        return named


def _mark_named(connection: Connection, objects: Sequence[_Object]) -> None:
    """Mark the objects to which attachments refer by a common spelling."""
    by_spelling: dict[str, list[_Object]] = {}
    for item in objects:
        for spelling in item.spellings:
            by_spelling.setdefault(spelling, []).append(item)
    if not by_spelling:
        return
    for written in connection.execute(statement("objects_named"), {"spellings": list(by_spelling)}).scalars():
        uri = try_parse(written)
        # by its collation the database may take other texts for equal: such a one may name any of the objects
        for item in by_spelling.get(written, objects):
            item.mark_referenced(is_certain=uri in item.found.uris)


def _record_late_reference(connection: Connection, run_id: int, item: _Object) -> None:
    evidence.record(connection, "object_removed_while_named", run_id, {"object": item.id})


def _warn(item: _Object) -> None:
    log.get().warning("an object was removed while an attachment came to name it", object=item.id)
