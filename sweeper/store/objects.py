"""Removes the objects behind purged attachments after the commit; what is kept or fails stays pending until the next run.

Invariant: before each removal the store is asked whether an attachment names that object; in doubt the object is kept.
Removal is idempotent.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.core.uri import ODD, Candidates, Kept, Uri, UriError, try_parse
from sweeper.store import evidence, places
from sweeper.store.database import Database, passes, sqlstate
from sweeper.store.places import Found, NotRemovedError, Places, StoppedError
from sweeper.store.statement import statement

PAGE = 500
"""Objects per search for odd URIs."""
RENEW_SECONDS = 2.0
"""How often, at least, the lease is renewed while objects are removed."""
CLAIM_SECONDS = 15.0
"""How much longer a claim lasts than a file system may take."""
ROWS = 1_000
"""Odd URIs fetched at a time."""
CANCELLED = "57014"
"""SQLSTATE of a statement time-out."""


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
        kept[Kept.NO_PREFIXES] += waiting
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
    found: Found
    spellings: list[str]
    is_doubtful: bool = False
    """Whether an attachment may name it."""
    outcome: str = ""
    error: str = ""

    @classmethod
    def of(cls, id_: int, written: str, found: Found) -> "_Object":
        """The object of a row."""
        spellings = {written}.union(*(uri.spellings for uri in found.uris))
        return cls(id_, found, sorted(spellings))


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
        known: Places | None = None
        left = self.database.settings.objects.per_run
        while left > 0 and not self.is_over():
            self.renew()
            page = self._page()
            if not page:
                return
            known = known or Places.look(self.database.settings.objects.prefixes, self.goes_on)
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

    def _settle_page(self, page: Sequence[Row[Any]], known: Places, most: int) -> int:
        """Settle at most `most` objects of a page; returns how many were tried, not counting those whose file system hangs."""
        objects, refused = self._sorted_out(page, known, most)
        self._refuse(refused)
        self._compare(objects)
        tried = len(refused)
        for each in objects:
            if each.found.place in self.hanging:
                self.kept[Kept.HANGS] += 1
            elif not self.goes_on():
                break
            else:
                self._settle(each)
                tried += 1
        return tried

    def _sorted_out(self, page: Sequence[Row[Any]], known: Places, most: int) -> tuple[list[_Object], dict[int, str]]:
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
                self.kept[Kept.HANGS] += 1
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

    def _compare(self, objects: Sequence[_Object]) -> None:
        """Mark the objects that attachments with odd URIs name or may name.

        Raises:
            StoppedError: the run is to stop, or the search took too long.
        """
        if not objects:
            return
        try:
            self.database.retried(lambda: self._mark(objects), worth_it=lambda e: passes(e) and not _is_cancelled(e))
        except DBAPIError as error:
            if not _is_cancelled(error) or self.database.abandoned.is_set():
                raise
            self.kept[Kept.UNSEARCHED] += len(objects)
            log.get().error("attachments could not be searched in time; create the index that `sweeper check` names")
            raise StoppedError from None

    def _mark(self, objects: Sequence[_Object]) -> None:
        candidates = Candidates({each.id: each.found.uris for each in objects})
        by_id = {each.id: each for each in objects}
        for written in self._odd():
            certain, perhaps = candidates.named_by(written)
            for id_ in certain:
                by_id[id_].outcome = "shared"
            for id_ in perhaps:
                by_id[id_].is_doubtful = True

    def _odd(self) -> Iterator[str]:
        """The odd URIs of attachments."""
        with self.database.transaction() as connection:
            rows = connection.execution_options(yield_per=ROWS).execute(statement("objects_odd", odd=ODD))
            for portion in rows.scalars().partitions():
                if not self.goes_on():
                    raise StoppedError
                yield from portion

    def _settle(self, each: _Object) -> None:
        """Remove one object if no attachment names it, and record the outcome. URIs are never logged."""
        milliseconds = int((places.HANGS_SECONDS + CLAIM_SECONDS) * 1000)

        def once() -> bool:
            with self.database.transaction(idle_timeout_ms=milliseconds) as connection:
                return self._settled(connection, each)

        if self.database.retried(once):
            log.get().warning("an object was removed while an attachment came to name it", object=each.id)
        if each.error:
            self.kept[each.error] += 1

    def _settled(self, connection: Connection, each: _Object) -> bool:
        """Claim and settle one object; returns True if it was removed although an attachment names it by now."""
        claimed = connection.execute(
            statement("object_claim"), {"id": each.id, "spellings": each.spellings}
        ).one_or_none()
        if claimed is None:
            return False  # another process has claimed or settled it
        if not each.outcome and not each.error:
            self._decide(each, claimed.named_as)
        if each.error:
            self._keep(connection, {each.id: each.error})
            return False
        return self._record(connection, each)

    def _decide(self, each: _Object, named_as: Sequence[str]) -> None:
        if any(try_parse(written) in each.found.uris for written in named_as):
            each.outcome = "shared"
        elif each.is_doubtful or named_as:
            each.error = Kept.IN_DOUBT
        else:
            self._remove(each)

    def _remove(self, each: _Object) -> None:
        try:
            each.outcome = places.remove(each.found, self.goes_on)
        except NotRemovedError as error:
            each.error = error.reason
            if each.error == Kept.HANGS:
                self.hanging.add(each.found.place)
            log.get().warning(
                "object not removed; it is tried again in the next run", object=each.id, error=str(error.reason)
            )

    def _record(self, connection: Connection, each: _Object) -> bool:
        done = {"id": each.id, "run_id": self.run_id, "now": self.now, "outcome": each.outcome}
        row = connection.execute(statement("object_done"), {**done, "spellings": each.spellings}).one()
        if each.outcome != "removed" or not row.is_named:
            return False
        evidence.record(connection, "object_removed_while_named", self.run_id, {"object": each.id})
        return True


def _is_cancelled(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and sqlstate(error) == CANCELLED
