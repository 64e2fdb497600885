"""Removes the objects behind purged attachments after the commit; what is kept or fails stays pending until the next run.

Invariant: before each removal the store is asked whether an attachment names that object; in doubt the object is kept. Odd URIs
are searched again once the last search is stale, and after each page, to report the objects that came to be named too late.
Removal is idempotent.
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
from sweeper.objects import prefixes as places
from sweeper.objects.prefixes import FoundObject, NotRemovedError, ObjectPrefixes, StoppedError
from sweeper.postgres import evidence
from sweeper.postgres.database import Database, sqlstate
from sweeper.postgres.statement import statement
from sweeper.uri import ODD, Candidates, KeptObject, Uri, UriError, try_parse

PAGE = 500
"""Objects per page."""
STALE_SECONDS = 0.005
"""A search for odd URIs is repeated no sooner than this."""
STALE_TIMES = 10
"""Nor sooner than this many times what it took: without its index it takes long."""
RENEW_SECONDS = 2.0
"""How often, at least, the lease is renewed while objects are removed."""
CLAIM_SECONDS = 15.0
"""How much longer a claim lasts than a file system may take."""
ROWS = 1_000
"""Odd URIs fetched at a time."""
CANCELLED = "57014"
"""SQLSTATE of a statement time-out."""
UNSEARCHED = "attachments could not be searched in time; create the index that `sweeper check` names"


class _UnsearchedError(Exception):
    """The search for odd URIs took too long."""


def remove_pending(
    database: Database,
    run_id: int,
    now: datetime,
    renew: Callable[[], None],
    is_over: Callable[[], bool] = lambda: False,
    kept: Counter[str] | None = None,
) -> int:
    """Try to remove pending objects, each once per run, the least tried first, at most [objects] per_run.

    Args:
        database: the store's database.
        run_id: the current run.
        now: the instant to record (UTC).
        renew: renews the lease; called before each page and every few seconds.
        is_over: returns True to stop; called before each object and while waiting for one.
        kept: counter of kept objects by reason, updated in place.

    Returns:
        The number of objects still pending.
    """
    kept = Counter() if kept is None else kept
    if is_over():
        return count_pending(database)
    if database.settings.objects.prefixes:
        removal = _Removal(database, run_id, now, renew, is_over, kept)
        try:
            removal.run()
        except StoppedError:
            pass  # the next run tries that object again
        finally:
            removal.tell()
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
    """How many objects are still to be removed."""
    return database.within(lambda connection: pending(connection, database.settings.store.schema_name))


def pending(connection: Connection, store: str) -> int:
    """How many objects of a store are still to be removed."""
    found: int = connection.execute(statement("objects_count"), {"store": store}).scalar_one()
    return found


@dataclass
class _Object:
    """An object to settle. `outcome` and `error` survive a retried transaction, so that nothing is removed twice."""

    id: int
    found: FoundObject
    spellings: list[str]
    is_doubtful: bool = False
    """Whether an attachment may name it."""
    outcome: str = ""
    error: str = ""
    is_named: bool = False
    """Whether it was removed and an attachment with an odd URI names it, or may, by now."""
    is_told: bool = False
    """Whether the event says so."""

    @classmethod
    def of(cls, id_: int, written: str, found: FoundObject) -> "_Object":
        """The object of a row."""
        spellings = {written}.union(*(uri.spellings for uri in found.uris))
        return cls(id_, found, sorted(spellings))

    @property
    def is_open(self) -> bool:
        """True until it is known what becomes of it."""
        return not self.outcome and not self.error

    def name(self, *, is_certain: bool) -> None:
        """Note that an attachment with an odd URI names it, or may."""
        if self.outcome == "removed":
            self.is_named = True
        elif self.is_open and is_certain:
            self.outcome = "shared"
        elif self.is_open:
            self.is_doubtful = True


class _Page:
    """Objects to settle, and when odd URIs were last compared with them."""

    def __init__(self, objects: Sequence[_Object]) -> None:
        self.objects = objects
        self._by_id = {each.id: each for each in objects}
        self._candidates = Candidates({each.id: each.found.uris for each in objects})
        self._stale_at = 0.0

    def is_stale(self) -> bool:
        """True if odd URIs should be compared again before another object is removed."""
        return time.monotonic() >= self._stale_at

    def compare(self, odd: Iterator[str]) -> None:
        """Mark the objects that odd URIs name or may name."""
        began = time.monotonic()
        for written in odd:
            certain, perhaps = self._candidates.named_by(written)
            for id_ in certain | perhaps:
                self._by_id[id_].name(is_certain=id_ in certain)
        self._stale_at = began + max(STALE_SECONDS, STALE_TIMES * (time.monotonic() - began))


@dataclass
class _Removal:
    database: Database
    run_id: int
    now: datetime
    renew: Callable[[], None]
    is_over: Callable[[], bool]
    kept: Counter[str]
    hanging: set[Uri] = field(default_factory=set)
    after: tuple[int, int] = (-1, 0)
    """Attempts and id of the last object of the last page: the key of the pagination."""
    renewed: float = 0.0

    def run(self) -> None:
        """Settle page after page until nothing is left, the limit is reached or the run is told to stop.

        Raises:
            StoppedError: the run was told to stop while it waited for a file system.
        """
        known: ObjectPrefixes | None = None
        left = self.database.settings.objects.per_run
        while left > 0 and not self.is_over():
            self.renew()
            page = self._page()
            if not page:
                return
            known = known or ObjectPrefixes.look(self.database.settings.objects.prefixes, self.goes_on)
            left -= self._settle_page(page, known, left)

    def goes_on(self) -> bool:
        """False if the run is to stop. Renews the lease when that is due."""
        if time.monotonic() - self.renewed > RENEW_SECONDS:
            self.renew()
            self.renewed = time.monotonic()
        return not self.is_over()

    def tell(self) -> None:
        """Log how many objects were kept, by reason."""
        if self.kept:
            reasons = dict(sorted(self.kept.items()))
            log.get().warning("objects kept; sweeper.object_purges (last_error) says which", **reasons, run=self.run_id)

    def _page(self) -> Sequence[Row[Any]]:
        grace = self.database.settings.objects.grace_seconds
        asked = {
            "run_id": self.run_id,
            "store": self.database.settings.store.schema_name,
            "attempts": self.after[0],
            "after": self.after[1],
            "ended_by": self.now - timedelta(seconds=grace) if grace else None,
            "limit": PAGE,
        }
        return self.database.fetched(statement("objects_pending"), asked)

    def _settle_page(self, rows: Sequence[Row[Any]], known: ObjectPrefixes, most: int) -> int:
        """Settle at most `most` objects of a page; returns how many were tried, not counting those whose file system hangs.

        Raises:
            StoppedError: the run is to stop, or the search for odd URIs took too long.
        """
        objects, refused = self._sorted_out(rows, known, most)
        self._refuse(refused)
        page = _Page(objects)
        try:
            return len(refused) + self._settle_each(page)
        finally:
            self._look_back(page)

    def _settle_each(self, page: _Page) -> int:
        tried = 0
        for number, each in enumerate(page.objects):
            if each.found.place in self.hanging:
                self.kept[KeptObject.HANGS] += 1
            elif not self.goes_on():
                break
            else:
                try:
                    self._settle(each, page)
                except _UnsearchedError:
                    self.kept[KeptObject.UNSEARCHED] += len(page.objects) - number
                    log.get().error(UNSEARCHED)
                    raise StoppedError from None
                tried += 1
        return tried

    def _sorted_out(
        self, page: Sequence[Row[Any]], known: ObjectPrefixes, most: int
    ) -> tuple[list[_Object], dict[int, str]]:
        """Split a page into the objects that may be removed and the reasons against the others by id, `most` of both."""
        objects: list[_Object] = []
        refused: dict[int, str] = {}
        for row in page:
            if len(objects) + len(refused) == most:
                break
            self.after = (row.attempts, row.id)
            try:
                each = _Object.of(row.id, row.uri, known.find(row.uri))
            except UriError as error:
                refused[row.id] = error.kept.value
                continue
            if known.hangs(each.found.place):
                self.hanging.add(each.found.place)
            if each.found.place in self.hanging:
                self.kept[KeptObject.HANGS] += 1
            else:
                objects.append(each)
        return objects, refused

    def _refuse(self, refused: dict[int, str]) -> None:
        if refused:
            self.kept.update(refused.values())
            self.database.within(lambda connection: self._keep(connection, refused))

    def _keep(self, connection: Connection, errors: Mapping[int, str]) -> None:
        """Record why objects were not removed, by id."""
        asked = {"ids": list(errors), "errors": list(map(str, errors.values())), "run_id": self.run_id}
        connection.execute(statement("objects_kept"), asked)

    def _odd(self, connection: Connection, goes_on: Callable[[], bool]) -> Iterator[str]:
        """The odd URIs of attachments.

        Raises:
            StoppedError: `goes_on` returned False.
            _UnsearchedError: the search took too long.
        """
        try:
            rows = connection.execute(statement("objects_odd", odd=ODD), execution_options={"yield_per": ROWS})
            for portion in rows.scalars().partitions():
                if not goes_on():
                    raise StoppedError
                yield from portion
        except DBAPIError as error:
            if sqlstate(error) != CANCELLED or self.database.abandoned.is_set():
                raise
            raise _UnsearchedError from None

    def _look_back(self, page: _Page) -> None:
        """Report the objects of a page that were removed and that an attachment with an odd URI names by now, stopped or not."""
        removed = [each for each in page.objects if each.outcome == "removed" and not each.is_told]
        if not removed or self.database.abandoned.is_set():
            return

        def look(connection: Connection) -> list[_Object]:
            page.compare(self._odd(connection, self._goes_on_regardless))
            named = [each for each in removed if each.is_named]
            for each in named:
                self._report(connection, each)
            return named

        try:
            for each in self.database.within(look):
                _warn(each)
        except _UnsearchedError:
            log.get().error(UNSEARCHED)

    def _goes_on_regardless(self) -> bool:
        """True, even if the run is to stop, is paused or has lost its lease. Renews the lease when that is due."""
        with suppress(LeaseLostError, PausedError):
            self.goes_on()
        return True

    def _settle(self, each: _Object, page: _Page) -> None:
        """Remove one object if no attachment names it, and record the outcome. URIs are never logged.

        Raises:
            StoppedError: the run is to stop.
            _UnsearchedError: the search for odd URIs took too long.
        """
        milliseconds = int((places.HANGS_SECONDS + CLAIM_SECONDS) * 1000)

        def once() -> bool:
            with self.database.transaction(idle_timeout_ms=milliseconds) as connection:
                if each.is_open and page.is_stale():
                    page.compare(
                        self._odd(connection, self.goes_on)
                    )  # before the claim, which asks for plain spellings
                return self._settled(connection, each)

        if self.database.retried(once):
            each.is_told = True
            _warn(each)
        if each.error:
            self.kept[each.error] += 1

    def _settled(self, connection: Connection, each: _Object) -> bool:
        """Claim and settle one object; returns True if it was removed although an attachment names it by now."""
        claimed = connection.execute(
            statement("object_claim"), {"id": each.id, "spellings": each.spellings}
        ).one_or_none()
        if claimed is None:
            return False  # another process has claimed or settled it
        if each.is_open:
            self._decide(each, claimed.named_as)
        if each.error:
            self._keep(connection, {each.id: each.error})
            return False
        return self._record(connection, each)

    def _decide(self, each: _Object, named_as: Sequence[str]) -> None:
        if any(try_parse(written) in each.found.uris for written in named_as):
            each.outcome = "shared"
        elif each.is_doubtful or named_as:
            each.error = KeptObject.IN_DOUBT
        else:
            self._remove(each)

    def _remove(self, each: _Object) -> None:
        try:
            each.outcome = places.remove(each.found, self.goes_on)
        except NotRemovedError as error:
            each.error = error.reason
            if each.error == KeptObject.HANGS:
                self.hanging.add(each.found.place)
            log.get().warning(
                "object not removed; it is tried again in the next run", object=each.id, error=str(error.reason)
            )

    def _record(self, connection: Connection, each: _Object) -> bool:
        done = {"id": each.id, "run_id": self.run_id, "now": self.now, "outcome": each.outcome}
        row = connection.execute(statement("object_done"), {**done, "spellings": each.spellings}).one()
        if each.outcome != "removed" or not row.is_named:
            return False
        self._report(connection, each)
        return True

    def _report(self, connection: Connection, each: _Object) -> None:
        evidence.record(connection, "object_removed_while_named", self.run_id, {"object": each.id})


def _warn(each: _Object) -> None:
    log.get().warning("an object was removed while an attachment came to name it", object=each.id)
