"""Parses object URIs: strictly to decide what may be removed, leniently to find other references to the same object.

Invariant: all URIs of one object have one canonical form, and an ambiguous URI is refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import product
from urllib.parse import quote, unquote

FILE = "file"
ALIASES: Mapping[str, str] = {
    "local": FILE,
    "s3a": "s3",
    "s3n": "s3",
    "gcs": "gs",
    "az": "abfs",
    "abfss": "abfs",
    "ocilake": "oci",
    "tosfs": "tos",
    "ssh": "sftp",
    "arrow_hdfs": "hdfs",
}
"""Aliases of schemes, as in fsspec's registry and in Hadoop."""
KEYED = frozenset({"s3", "gs", "abfs", "oci", "oss", "tos", "memory"})
"""Object stores: keys are compared byte by byte, so `a//b` and `a/b` are two objects."""
TREES = frozenset({FILE, "sftp", "ftp", "smb", "hdfs", "webhdfs", "dbfs", "webdav"})
"""File systems: `a//b`, `a/./b` and `a/b` are one file."""
NON_CANONICAL = (
    r"^([^a-z]|$|[a-z][a-z0-9+._-]*([^a-z0-9+._:-]|$|:([^/]|$|/([^/]|$))))"  # no scheme, or not in lower case
    r"|^(file|local)://[^/]"  # a relative path
    r"|^[^/]*//[^/]*[A-Z:]|^[^a/][^/]*//[^/]*@"  # a host in capitals, with a port or a user (of Azure, that is the container)
    r"|^([^h]|h[^t]).*[?#]"  # a version to some file systems, dropped by others, usual in http
    r"|//.*//|/[.][.]?/|/([.][.]?)?$"
    r"|::|\\|[\u0001-\u001f\u007f-\u009f]"
    r"|%([cC]2%[89]|25|0|1|2[dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAcCfF]|6[1-9a-fA-F]|7[0-9aAeEfF])"
)
"""Matches URIs that are not canonical, in PostgreSQL as in Python. An alias of the scheme is no match; percent-encoding is one if
it is unnecessary or could hide `..`. A lookahead would double the cost."""
ROUNDS = 8
"""Most levels of nested percent-encoding; a URI with more is refused."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")
_MARKS = frozenset("?#")
_UNENCODED = "/:@!$&'()*+,;="
"""Characters that many encoders leave alone in a path."""


class KeptObject(StrEnum):
    """Why an object was not removed and stays pending. Other errors are recorded by S3's code or by class name."""

    NO_PREFIXES = "no_prefixes"
    OUTSIDE = "outside_prefixes"
    NO_SCHEME = "no_scheme"
    NO_PLACE = "no_place"
    FOLDER = "folder"
    CHAINED = "chained"
    CLIMBS = "climbs"
    ENCODED = "encoded"
    BACKSLASH = "backslash"
    CONTROL = "control_character"
    DOUBLED = "doubled_slash"
    QUERY = "query_or_fragment"
    LINK = "link"
    NO_DIRECTORY = "prefix_directory_missing"
    NO_PARENT = "parent_directory_missing"
    IN_DOUBT = "in_doubt"
    UNSEARCHED = "attachments_unsearched"
    HANGS = "hangs"


WORDS: Mapping[KeptObject, str] = {
    KeptObject.NO_SCHEME: "has no scheme",
    KeptObject.NO_PLACE: "names no place",
    KeptObject.FOLDER: "names a folder",
    KeptObject.CHAINED: "chains protocols",
    KeptObject.CLIMBS: "climbs with `..`",
    KeptObject.ENCODED: "hides dots, slashes or control characters behind percent signs",
    KeptObject.BACKSLASH: "has a backslash",
    KeptObject.CONTROL: "has a control character",
    KeptObject.DOUBLED: "has an empty or a `.` segment",
    KeptObject.QUERY: "has a query or a fragment",
}
"""What is wrong with a URI, in words for messages."""


class UriError(ValueError):
    """The object behind a URI must not be removed; `kept` is the reason."""

    def __init__(self, kept: KeptObject) -> None:
        super().__init__(kept.value)
        self.kept = kept


@dataclass(frozen=True)
class Uri:
    """A canonical URI. `path` is absolute for a file, otherwise `host/path` or `bucket/key`."""

    protocol: str
    path: str

    @property
    def text(self) -> str:
        """The URI as text."""
        return f"{self.protocol}://{self.path}"

    @property
    def host(self) -> str:
        """The host or bucket; empty for a file."""
        return self.path.partition("/")[0]

    def is_below(self, prefix: "Uri") -> bool:
        """True if the URI lies below `prefix`: `s3://a-2/x` is not below `s3://a`."""
        return self.protocol == prefix.protocol and self.path.startswith(f"{prefix.path}/")

    @cached_property
    def spellings(self) -> frozenset[str]:
        """Common spellings: each alias of the scheme, percent-encoded or not. An index can find them."""
        schemes = [self.protocol, *(alias for alias, protocol in ALIASES.items() if protocol == self.protocol)]
        own = {self.path, f"{_bare_host(self.protocol, self.host)}/{self.path.partition('/')[2]}"}
        paths = {encode(path) for path in own for encode in (str, quote, _quoted, unquote)}
        separators = ("://",) if self.protocol == FILE else ("://", ":///")
        return frozenset(map("".join, product(schemes, separators, paths)))


def _quoted(path: str) -> str:
    return quote(path, safe=_UNENCODED)


def parse(text: str) -> Uri:
    """Return the canonical form of an object's URI.

    Raises:
        UriError: the URI is ambiguous, or names no object.
    """
    uri = _read(text)
    if uri.protocol != FILE and "/" not in uri.path:
        raise UriError(KeptObject.NO_PLACE)
    if text.endswith(("/", "/.")):
        raise UriError(KeptObject.FOLDER)
    return uri


def parse_prefix(text: str) -> Uri:
    """Return the canonical form of a prefix below which objects may be removed, with or without a trailing slash.

    Raises:
        UriError: as for `parse`, or the prefix covers a whole protocol: `s3://`, `file:///`.
    """
    uri = _read(text)
    path = uri.path.removesuffix("/")
    if not path:
        raise UriError(KeptObject.NO_PLACE)
    return Uri(uri.protocol, path)


def try_parse(text: str) -> Uri | None:
    """Return the canonical form of an object's URI, or None if `parse` raises."""
    try:
        return parse(text)
    except UriError:
        return None


def _read(text: str) -> Uri:
    for kept, applies in (
        (KeptObject.CONTROL, CONTROL.search(text) is not None),
        (KeptObject.BACKSLASH, "\\" in text),
        (KeptObject.CHAINED, "::" in text or text.count("://") > 1),
        (KeptObject.NO_SCHEME, _SCHEME.match(text) is None),
        (KeptObject.CLIMBS, ".." in text.split("/")),
        (KeptObject.ENCODED, _hides(text)),
    ):
        if applies:
            raise UriError(kept)
    scheme, _, rest = text.partition("://")
    protocol = _protocol(scheme)
    if protocol != FILE and not _MARKS.isdisjoint(rest):
        raise UriError(KeptObject.QUERY)  # s3fs, for one, removes the object before `?versionId=`
    return Uri(protocol, _path(protocol, rest))


def _protocol(scheme: str) -> str:
    return ALIASES.get(scheme.lower(), scheme.lower())


def _path(protocol: str, rest: str) -> str:
    if not rest or rest.startswith("/") != (protocol == FILE):
        raise UriError(KeptObject.NO_PLACE)
    if protocol in KEYED:
        return rest
    segments = [segment for segment in rest.split("/") if segment not in ("", ".")]
    tidy = ("/" if protocol == FILE else "") + "/".join(segments)
    if protocol not in TREES and rest.removesuffix("/") != tidy:
        raise UriError(KeptObject.DOUBLED)
    return tidy


def _hides(text: str) -> bool:
    """Return True if percent-encoding hides a dot, a separator or a control character, or is nested too deeply."""
    decoded = _decoded(text)
    return (
        unquote(decoded) != decoded
        or decoded.count(".") != text.count(".")
        or ".." in decoded.split("/")
        or "\\" in decoded
        or CONTROL.search(decoded) is not None
    )


def _decoded(text: str) -> str:
    for _ in range(ROUNDS):
        if (text := unquote(before := text)) == before:
            break
    return text


class Candidates:
    """Objects about to be removed, which are looked up by the URIs of attachments."""

    def __init__(self, objects: Mapping[int, Iterable[Uri]]) -> None:
        """`objects` maps an id to the canonical URIs of the object."""
        self._exact: dict[Uri, set[int]] = {}
        self._loose: dict[str, set[int]] = {}
        self._by_name: dict[str, set[str]] = {}
        for id_, uris in objects.items():
            for uri in uris:
                loose, _ = _loosely(uri.text)
                self._exact.setdefault(uri, set()).add(id_)
                self._loose.setdefault(loose, set()).add(id_)
                self._by_name.setdefault(loose.rpartition("/")[2], set()).add(loose)

    def named_by(self, text: str) -> tuple[set[int], set[int]]:
        """Return the ids of the objects that a URI certainly names, and of those that it names if it is read leniently."""
        uri = try_parse(text)
        certain = self._exact.get(uri, set()) if uri else set()
        if uri and "%" not in text and not re.search("[A-Z:@]", uri.host):
            return certain, set()
        return certain, {id_ for loose in self._read(text) for id_ in self._loose[loose]}

    def _read(self, text: str) -> Iterator[str]:
        parts = text.split("::")
        for part in {*parts, *(re.split("[?#]", part, maxsplit=1)[0] for part in parts)}:
            loose, is_relative = _loosely(part)
            if loose in self._loose:
                yield loose
            if is_relative:
                same = self._by_name.get(loose.rpartition("/")[2], ())
                yield from (other for other in same if other.endswith(f"/{loose}"))


def _loosely(text: str) -> tuple[str, bool]:
    """Normalise a URI or path as the most lenient reader would, without its scheme; True if it may be a relative path.

    A path after `..` may be in any directory, since the segment before it may be a symbolic link.
    """
    decoded = CONTROL.sub("", _decoded(text)).replace("\\", "/").strip()
    scheme, colon, path = decoded.rpartition(":/")
    host, _, rest = path.removeprefix("/").partition("/")
    is_on_file_host = _is_file(scheme) and path.startswith("/") and host not in ("", "localhost")
    if colon and path.startswith("/") and not is_on_file_host:
        path = f"{_bare_host(scheme, host)}/{rest}"
    segments = path.split("/")
    climbs = ".." in segments
    if climbs:
        segments = segments[-segments[::-1].index("..") :] if segments[-1] != ".." else []
    loose = "/".join(segment for segment in segments if segment not in ("", "."))
    return loose, bool(loose) and (climbs or is_on_file_host or not (colon or path.startswith("/")))


def _is_file(scheme: str) -> bool:
    return _protocol(scheme.rpartition("/")[2]) == FILE


def _bare_host(scheme: str, host: str) -> str:
    """Return the host in lower case without user and port; for Azure the container, which precedes the host."""
    if _is_file(scheme):
        return ""
    user, _, bare = host.rpartition("@")
    return (user or bare if _protocol(scheme) == "abfs" else bare).partition(":")[0].lower()
