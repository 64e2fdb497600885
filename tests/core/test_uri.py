"""Parsing of object URIs, and the lookup of the objects to which the URIs of attachments refer."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.uri import ALIASES, NON_CANONICAL, WORDS, Candidates, KeptObject, Uri, UriError, parse, parse_prefix

CANONICAL = {
    "file:///a/b.png": "file:///a/b.png",
    "file:///a//b///c": "file:///a/b/c",
    "file:////a/./b": "file:///a/b",
    "FILE:///a/b": "file:///a/b",
    "local:///a/b": "file:///a/b",
    "file:///a/..b/.c/d...": "file:///a/..b/.c/d...",
    "file:///ümlaut 20#?.png": "file:///ümlaut 20#?.png",
    "file:///a%20b%2Fc": "file:///a%20b%2Fc",
    "s3a://b/k": "s3://b/k",
    "S3N://b/k": "s3://b/k",
    "s3://b/a//c/./d": "s3://b/a//c/./d",
    "gcs://b/k": "gs://b/k",
    "abfss://c@account.dfs.core.windows.net/k": "abfs://c@account.dfs.core.windows.net/k",
    "ssh://h//srv/./a": "sftp://h/srv/a",
    "memory://b/one": "memory://b/one",
    "unheard-of://h/a/b": "unheard-of://h/a/b",
}
REFUSED = {
    "photo.png": KeptObject.NO_SCHEME,
    "/etc/passwd": KeptObject.NO_SCHEME,
    "file:/etc/passwd": KeptObject.NO_SCHEME,
    "": KeptObject.NO_SCHEME,
    " s3://b/k": KeptObject.NO_SCHEME,
    "file://d/pic": KeptObject.NO_PLACE,
    "file://localhost/pic": KeptObject.NO_PLACE,
    "s3:///b/k": KeptObject.NO_PLACE,
    "s3://b": KeptObject.NO_PLACE,
    "s3://": KeptObject.NO_PLACE,
    "s3://b/": KeptObject.FOLDER,
    "s3://b/k/": KeptObject.FOLDER,
    "file:///": KeptObject.FOLDER,
    "file:///a/.": KeptObject.FOLDER,
    "simplecache::file:///a": KeptObject.CHAINED,
    "zip://in::file:///a.zip": KeptObject.CHAINED,
    "generic://x/file:///a": KeptObject.CHAINED,
    "file:///a/../b": KeptObject.CLIMBS,
    "s3://../b": KeptObject.CLIMBS,
    "file:///a/..": KeptObject.CLIMBS,
    "file:///a/%2e%2e/b": KeptObject.ENCODED,
    "file:///a/%2E./b": KeptObject.ENCODED,
    "file:///a/%252e%252e/b": KeptObject.ENCODED,
    "file:///a/%25252e%25252e/b": KeptObject.ENCODED,
    "file:///a/%%32%65/b": KeptObject.ENCODED,
    "file:///a%2f..%2fb": KeptObject.ENCODED,
    "file:///a/..%252fb": KeptObject.ENCODED,
    "file:///a/%5cb": KeptObject.ENCODED,
    "file:///a/%00": KeptObject.ENCODED,
    "file:///a%" + "25" * 12 + "2e": KeptObject.ENCODED,
    "file:///a\\b": KeptObject.BACKSLASH,
    "file:///a\nb": KeptObject.CONTROL,
    "file:///a\x85b": KeptObject.CONTROL,
    "https://h/a//b": KeptObject.DOUBLED,
    "s3://b/k?versionId=1": KeptObject.QUERY,
    "sftp://h/k#": KeptObject.QUERY,
    "unheard-of://h/./b": KeptObject.DOUBLED,
}


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical(text: str) -> None:
    """Scheme, slashes and dots are normalised where the protocol ignores the difference; nothing else is changed."""
    uri = parse(text)
    assert uri.text == CANONICAL[text]
    assert parse(uri.text) == uri


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    """Ambiguous URIs, and those that name no object, are refused with a reason."""
    with pytest.raises(UriError) as raised:
        parse(text)
    assert raised.value.kept is REFUSED[text]


def test_every_refusal_has_words() -> None:
    """Every reason to refuse a URI has a wording for messages."""
    assert set(REFUSED.values()) == set(WORDS)


@pytest.mark.parametrize("text", ["s3://b", "s3://b/", "s3a://b", "S3://b/"])
def test_prefix(text: str) -> None:
    """A trailing slash makes no difference, and `s3://b-2/k` is not below `s3://b`."""
    prefix = parse_prefix(text)
    assert prefix == Uri("s3", "b")
    assert [parse(uri).is_below(prefix) for uri in ("s3n://b/k", "s3://b-2/k", "gs://b/k")] == [True, False, False]


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///", "file:///", "file://", "b/", "file:///a/../b", "simplecache::s3://b"]
)
def test_no_prefix(text: str) -> None:
    """A prefix that covers a whole protocol, or is ambiguous, is refused."""
    with pytest.raises(UriError):
        parse_prefix(text)


CERTAIN = "certain"
DOUBT = "doubt"
NAMES = [
    ("file:///d/pic", "file:///d//pic", CERTAIN),
    ("file:///d/pic", "FILE:///d/./pic", CERTAIN),
    ("file:///d/pic", "local:///d/pic", CERTAIN),
    ("s3://b/a/k", "S3A://b/a/k", CERTAIN),
    ("s3://b/a/k", "s3://b/a//k", None),
    ("s3://b/a//k", "s3://b/a/k", None),
    ("s3://b/a/k", "s3://b/a/K", None),
    ("file:///d/pic", "file:///d/x/../pic", DOUBT),
    ("file:///d/pic", "file:///link/../pic", DOUBT),
    ("file:///d/pic", "file:///d/%70ic", DOUBT),
    ("file:///d/pic", "file:///d%2fpic", DOUBT),
    ("file:///d/pic", "file:///d%252fpic", DOUBT),
    ("file:///d/pic", "file:///d\\pic", DOUBT),
    ("file:///d/pic", "/d/pic", DOUBT),
    ("file:///d/pic", "pic", DOUBT),
    ("file:///d/pic", "d/pic", DOUBT),
    ("file:///d/pic", "ic", None),
    ("file:///d/pic", "/pic", None),
    ("file:///d/pic", "file:/d/pic", DOUBT),
    ("file:///d/pic", "file://d/pic", DOUBT),
    ("file:///d/pic", "file://localhost/d/pic", DOUBT),
    ("file:///d/pic", "simplecache::file:///d/pic", DOUBT),
    ("file:///d/pic", "zip://in::file:///d/pic", DOUBT),
    ("file:///d/pic", "file:///d/pic/", DOUBT),
    ("file:///d/pic", "file:///d/pic\t", DOUBT),
    ("s3://b/k", "s3:///b/k", DOUBT),
    ("s3://b/k", "http://h/s3://b/k", DOUBT),
    ("file:///d/p c", "file:///d/p%20%63", DOUBT),
    ("file:///d/pic", "file:///d/pic?1", None),
    ("s3://b/k", "s3://b/k?versionId=1", DOUBT),
    ("gs://b/k", "gs://b/k#12", DOUBT),
    ("sftp://h/k", "sftp://me@H:22/k", DOUBT),
    ("s3://b/k", "s3://b-2/k", None),
    ("file:///d/pic", "file:///d/other", None),
    ("file:///d/pic", "..", None),
    ("file:///d/pic", "", None),
]


@pytest.mark.parametrize(("removed", "live", "found"), NAMES)
def test_what_a_live_uri_names(removed: str, live: str, found: str | None) -> None:
    """A URI certainly names an object if both have the same canonical form, and perhaps if a lenient reader finds them equal."""
    candidates = Candidates({7: [parse(removed)], 8: [parse("file:///quite/another")]})
    certain, perhaps = candidates.named_by(live)
    assert (certain == {7}) is (found == CERTAIN)
    assert perhaps == ({7} if found == DOUBT else set())
    assert found is None or re.search(NON_CANONICAL, live) or live in parse(removed).spellings


def test_spellings() -> None:
    """The spellings include the usual percent-encodings and every alias of the scheme."""
    found = parse("s3://b/a c@d.png").spellings
    assert {"s3://b/a c@d.png", "s3a://b/a%20c@d.png", "s3n://b/a%20c%40d.png"} <= found
    assert {"sftp://me@h/k", "ssh://h/k", "sftp:///h/k"} <= parse("sftp://me@h/k").spellings
    assert "file:///a c" in parse("file:///a%20c").spellings


PLAIN = ("file", "s3", "s3a", "FILE", "sftp", "x", "://", "::", "/", "//", "a", "b", ".", "..", "\\", "\n", "ü", "@")
ENCODED = (":/", "%", "2", "e", "25", "2e", "2F", "%2e", "%5C", "%41", "%20", "%c2%85")
PIECES = st.sampled_from([*PLAIN, *ENCODED])


@given(st.lists(PIECES, max_size=9).map("".join))
@example("s3://../b")
@example("s3://b/%C2%80")
def test_other_uris_are_canonical(text: str) -> None:
    """A URI that NON_CANONICAL does not match is among the spellings of its object, or names no object."""
    if re.search(NON_CANONICAL, text):
        return
    try:
        uri = parse(text)
    except UriError:
        assert "/" not in text.partition("://")[2]
        return
    assert text in uri.spellings
    assert not Candidates({1: [parse("file:///a/b")]}).named_by(text)[1] or "%" in text


@given(st.lists(PIECES, max_size=9).map("".join), st.sampled_from(["s3", "file", "sftp", "x"]))
def test_canonical_form_is_stable(text: str, protocol: str) -> None:
    """Parsing a canonical URI returns it unchanged; it has no alias for its scheme and no `..` segment."""
    try:
        uri = parse(f"{protocol}://{text}")
    except UriError:
        return
    assert parse(uri.text) == uri
    assert uri.protocol not in ALIASES
    assert ".." not in uri.path.split("/")
