"""Removes objects through their file systems: some at the same time, or many by one request to S3.

Invariant: an object counts as removed only if the answer says so of this object.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import fsspec
from fsspec.exceptions import FSTimeoutError

from sweeper import log
from sweeper.objects import local_files, threads
from sweeper.objects.prefixes import FoundObject
from sweeper.objects.threads import NotRemoved
from sweeper.uri import FILE, KeptObject, Uri

Answers = Iterator[tuple[int, str | NotRemoved]]
"""The position of each object and `removed`, `absent` if it did not exist, or why it may still be there."""
Remover = Callable[[Sequence[FoundObject], Callable[[], bool]], Answers]
MOST_KEYS = 1_000
"""The most keys that S3 accepts in one request."""
CODE = re.compile(r"[A-Za-z0-9]{1,60}")
"""What an error code of S3 looks like; a server's answer is not recorded otherwise."""


def removes_in_bulk(prefix: Uri) -> bool:
    """Return True if one request removes many objects below a prefix."""
    return prefix.protocol == "s3"


def remove(objects: Sequence[FoundObject], may_continue: Callable[[], bool]) -> Answers:
    """Remove objects below one prefix at the same time, each in a thread of its own.

    Args:
        objects: the objects.
        may_continue: polled while waiting for the file system; False ends the wait.

    Raises:
        StoppedError: `may_continue` returned False, and there is no answer for an object yet.
        Exception: any error that `may_continue` raises.
    """
    return threads.run(objects[0].prefix, [partial(_remove, found) for found in objects], may_continue)


def remove_in_bulk(objects: Sequence[FoundObject], may_continue: Callable[[], bool]) -> Answers:
    """Remove up to `MOST_KEYS` objects below one prefix by one request, otherwise as `remove` does.

    An object that the answer does not mention is left out, and so are all if the request fails as a whole.
    """
    uris = [found.uri.text for found in objects]
    for _, answer in threads.run(objects[0].prefix, [partial(_remove_keys, uris)], may_continue):
        if not isinstance(answer, NotRemoved):
            yield from ((position, answer[uri]) for position, uri in enumerate(uris) if uri in answer)
        elif answer.reason == KeptObject.HANGS:
            yield from ((position, answer) for position in range(len(uris)))
        else:
            log.get().warning("a request to remove many objects failed; they are removed singly", error=answer.reason)


def _remove(found: FoundObject, confirm: Callable[[], bool]) -> str:
    try:
        if found.uri.protocol == FILE:
            local_files.remove(found.prefix.path, found.uri.path, confirm)
        else:
            filesystem, path = fsspec.core.url_to_fs(found.uri.text)
            if confirm():
                filesystem.rm_file(path)
    except FileNotFoundError:
        return "absent"
    return "removed"


def _remove_keys(uris: Sequence[str], confirm: Callable[[], bool]) -> dict[str, str | NotRemoved]:
    """Remove objects of one bucket and return what S3 answers, by URI.

    s3fs's own `rm` drops the errors of single keys, and takes `*` in a key for a pattern.
    """
    filesystem, _ = fsspec.core.url_to_fs(uris[0])
    places = {uri: filesystem.split_path(uri)[:2] for uri in uris}
    ((bucket,), keys) = {bucket for bucket, _ in places.values()}, {key: None for _, key in places.values()}
    request = {"Objects": [{"Key": key} for key in keys], "Quiet": False}
    if not confirm():
        return {}
    try:
        # the time-out cancels the request: none of its retries removes what is attached anew later
        answer = filesystem.call_s3("delete_objects", Bucket=bucket, Delete=request, timeout=threads.HANGS_SECONDS)
    except FSTimeoutError:
        return dict.fromkeys(uris, NotRemoved(KeptObject.HANGS))
    by_key: dict[str, str | NotRemoved] = {each["Key"]: "removed" for each in answer.get("Deleted", ())}
    by_key |= {each["Key"]: _error(each.get("Code", "")) for each in answer.get("Errors", ()) if "Key" in each}
    return {uri: by_key[key] for uri, (_, key) in places.items() if key in by_key}


def _error(code: str) -> str | NotRemoved:
    if code == "NoSuchKey":
        return "absent"
    return NotRemoved(code if CODE.fullmatch(code) else OSError.__name__)
