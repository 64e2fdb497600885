"""Objects go in bulk from S3; what is refused, unanswered or named stays, and nothing is lost."""

import time
from collections.abc import Iterator
from itertools import cycle
from threading import Event
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from sweeper.objects import file_systems, removal, threads
from sweeper.policy.schema import Policy
from sweeper.runs.throttle import StopReason
from sweeper.uri import parse_prefix
from tests.processes import until
from tests.store.buckets import Bucket, serving
from tests.store.stores import Store
from tests.store.test_objects import attach_all, keep, stale, state, told_of
from tests.store.test_races import Killed, fill, swept

WAYS = {
    "s3://bucket/{0}": "shared",
    "s3a://bucket/{0}": "shared",
    "S3://bucket/{0}": "shared",
    "s3://bucket/{0}?versionId=1": None,
    "bucket/{0}": None,
}
"""Spellings of an object, and its outcome if an attachment has one before its removal; None: it is kept in doubt."""
LISTED = {"prefixes": ["s3://bucket"]}


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[Bucket, dict[str, str]]]:
    """A server of this module."""
    bucket = Bucket()
    with serving(bucket) as options:
        yield bucket, options


@pytest.fixture
def bucket(s3: tuple[Bucket, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The bucket behind s3://bucket/, empty."""
    bucket, options = s3
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    bucket.reset()
    yield bucket
    bucket.let_go.set()


def stored(store: Store, bucket: Bucket, count: int) -> tuple[list[str], str]:
    """Store objects that a conversation which is due names; returns their keys, and a conversation that is kept."""
    due, kept = fill(store, 2)
    keep(store, kept)
    keys = [f"{number:04} ü+*" for number in range(count)]
    bucket.put(keys)
    attach_all(store, due, [f"s3://bucket/{key}" for key in keys])
    return keys, kept


def outcomes(store: Store) -> dict[str, tuple[str | None, int, str | None]]:
    """Outcome, attempts and last error by key."""
    return {uri.removeprefix("s3://bucket/"): found for uri, found in state(store).items()}


def test_bucket_that_refuses_half(store: Store, policy: Policy, bucket: Bucket) -> None:
    """What S3 refuses stays pending with S3's reason, everything else goes by a thousand a request, and the rest later."""
    keys, _ = stored(store, bucket, 1_100)
    refused = set(keys[::2])
    bucket.refused = refused.__contains__
    result = swept(store, policy, objects=LISTED).as_json()
    assert (result["outcome"], result["objects_pending"]) == ("completed", len(refused))
    assert result["objects_kept"] == {"AccessDenied": len(refused)}
    assert bucket.keys == refused
    expected = {key: (None, 1, "AccessDenied") if key in refused else ("removed", 1, None) for key in keys}
    assert outcomes(store) == expected
    assert ([len(each) for each in bucket.bulk], bucket.single) == ([1_000, 100], [])
    bucket.refused = set().__contains__
    assert swept(store, policy, objects=LISTED).objects_pending == 0
    assert bucket.keys == set()
    assert outcomes(store) == {key: ("removed", 2 if key in refused else 1, None) for key in keys}


@pytest.mark.parametrize("has_bulk", [True, False])
def test_request_without_an_answer_for_a_key(store: Store, policy: Policy, bucket: Bucket, *, has_bulk: bool) -> None:
    """A key that the answer does not mention is not done: it is removed singly, as are all if the request fails."""
    keys, _ = stored(store, bucket, 12)
    bucket.has_bulk, bucket.ignored, bucket.refused = has_bulk, set(keys[6:]).__contains__, set(keys[9:]).__contains__
    assert swept(store, policy, objects=LISTED).as_json()["objects_kept"] == {"PermissionError": 3}
    assert set(bucket.single) == set(keys[6:] if has_bulk else keys)
    assert bucket.keys == set(keys[9:])
    refused = dict.fromkeys(keys[9:], (None, 1, "PermissionError"))
    assert outcomes(store) == {**dict.fromkeys(keys, ("removed", 1, None)), **refused}


def test_bucket_that_hangs_and_comes_back(
    store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a bucket hangs nothing counts as removed, the request is given up for good, and the next run removes all."""
    keys, _ = stored(store, bucket, 20)
    bucket.let_go.clear()
    with monkeypatch.context() as patched:
        patched.setattr(threads, "HANGS_SECONDS", 0.3)
        result = swept(store, policy, objects=LISTED).as_json()
    assert (result["outcome"], result["objects_kept"]) == ("completed", {"hangs": 20})
    until(lambda: not threads.is_waiting(parse_prefix("s3://bucket")))  # although the server has not answered
    assert bucket.keys == set(keys)
    assert set(outcomes(store).values()) == {(None, 1, "hangs")}
    bucket.let_go.set()
    assert swept(store, policy, objects=LISTED).objects_pending == 0
    assert (bucket.keys, len(bucket.bulk), bucket.single) == (set(), 2, [])


def test_named_again_between_two_requests(
    store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that are attached anew, in any spelling, while a request is answered: those of the next one stay."""
    stale(monkeypatch, 0.0)
    monkeypatch.setattr(file_systems, "MOST_KEYS", 4)
    keys, kept = stored(store, bucket, 16)
    again = [way.format(key) for key, way in zip(keys, cycle(WAYS), strict=False)]
    bucket.told.append(lambda _: attach_all(store, kept, again) if len(bucket.bulk) == 1 else None)
    swept(store, policy, objects=LISTED)
    first = bucket.bulk[0]
    assert (sorted(first), len(bucket.bulk), bucket.keys) == (keys[:4], 1, set(keys[4:]))
    found = outcomes(store)
    expected = dict(zip(keys, cycle(WAYS.values()), strict=False))
    assert {key: found[key][0] for key in keys} == {**expected, **dict.fromkeys(first, "removed")}
    assert told_of(store) == {f"s3://bucket/{key}" for key in first}


def test_killed_between_the_answer_and_its_record(
    store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after S3 removed objects and before that was recorded: the next one asks again, without harm."""
    stored(store, bucket, 20)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(removal._Removal, "_record", die)
        with pytest.raises(Killed):
            swept(store, policy, objects=LISTED, lease={"seconds": 1})
    assert (bucket.keys, set(outcomes(store).values())) == (set(), {(None, 0, None)})
    assert swept(store, policy, objects=LISTED, lease={"seconds": 1}).objects_pending == 0
    assert set(outcomes(store).values()) == {("removed", 1, None)}


def test_lease_is_renewed_during_a_request(
    store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While S3 takes its time, the lease is kept."""
    monkeypatch.setattr(removal, "RENEW_SECONDS", 0.0)
    stored(store, bucket, 4)
    lease = "SELECT expires_at FROM sweeper.lease"

    def wait(_: list[str]) -> None:
        before = store.execute(lease)
        until(lambda: store.execute(lease) != before)

    bucket.told.append(wait)
    assert swept(store, policy, objects=LISTED).objects_pending == 0
    assert len(bucket.bulk) == 1


def test_asked_to_stop_during_a_request(
    store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a request removes while the run is asked to stop is recorded, and no other request begins."""
    monkeypatch.setattr(file_systems, "MOST_KEYS", 4)
    monkeypatch.setattr(threads, "STOP_SECONDS", 20.0)
    stored(store, bucket, 8)
    is_asked, may_answer = Event(), Event()

    def reason() -> str:
        if is_asked.is_set():
            may_answer.set()
        return StopReason.SIGNAL if is_asked.is_set() else ""

    bucket.told += [lambda _: is_asked.set(), lambda _: may_answer.wait(20.0)]
    result = swept(store, policy, further_reason=reason, objects=LISTED)
    assert (result.outcome, result.objects_pending, len(bucket.keys), len(bucket.bulk)) == ("stopped", 4, 4, 1)


def test_budget_of_time(store: Store, policy: Policy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the time is used up no further request begins, and the next run goes on."""
    monkeypatch.setattr(file_systems, "MOST_KEYS", 4)
    stored(store, bucket, 8)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 100.0 * len(bucket.bulk))
    monkeypatch.setattr(removal, "time", clock)
    for left in (4, 0):
        result = swept(store, policy, objects={**LISTED, "budget_seconds": 60.0})
        assert (result.outcome, result.objects_pending, len(bucket.keys)) == ("completed", left, left)
