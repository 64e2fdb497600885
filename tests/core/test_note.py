"""Checkpoints as text, their signatures and keys; leaves as canonical bytes."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import ConfigurationError
from sweeper.evidence import keys
from sweeper.evidence import leaf as leaves
from sweeper.evidence import note as notes
from sweeper.evidence.keys import SignatureError, Signer
from sweeper.evidence.note import Note, NoteError, Signature, TreeHead
from sweeper.settings import Settings

PEM, PKCS8, PLAIN = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
SIGNER = Signer(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TREE = TreeHead("log.example/1", 12345, bytes(range(32)))
UNSIGNED = f"log.example/1\n12345\n{base64.b64encode(bytes(range(32))).decode()}\n"


# The text


def test_form() -> None:
    """A checkpoint is origin, size and root, an empty line, and a signature line of name, key id and signature."""
    text = SIGNER.sign(TREE).text()
    assert Note(TREE).text() == UNSIGNED
    body, lines = text.split("\n\n")
    assert body + "\n" == UNSIGNED
    mark, name, encoded = lines.removesuffix("\n").split(" ")
    raw = base64.b64decode(encoded)
    assert (mark, name, len(raw), raw[:4].hex()) == ("—", TREE.origin, 68, SIGNER.key_id(TREE.origin))
    for whole in (text, UNSIGNED):
        assert notes.parse(whole).text() == whole
        assert notes.parse(whole).tree == TREE


def test_published_signed_note() -> None:
    """The key id and the signature of the signed note that the Go project publishes as its example check."""
    key = keys.verifier("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    raw = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    assert raw[:4].hex() == keys.key_id("PeterNeumann", key.public) == "c74f20a3"
    key._check(text, Signature("PeterNeumann", "c74f20a3", raw[4:]))
    with pytest.raises(SignatureError):
        key._check(text + b"!", Signature("PeterNeumann", "c74f20a3", raw[4:]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        UNSIGNED[:-1],
        UNSIGNED + "\n",
        UNSIGNED + "more\n",
        UNSIGNED.replace("12345", "012345"),
        UNSIGNED.replace("12345", "-1"),
        UNSIGNED.replace("12345", "0"),
        UNSIGNED.replace("12345", "\uff11\uff12\uff13"),
        UNSIGNED.replace("log", "l og"),
        UNSIGNED.replace("log", "l+og"),
        UNSIGNED.replace("Hh8=", "Hh9="),
        UNSIGNED.replace("Hh8=", "Hg=="),
        UNSIGNED + "\nno signature\n",
        UNSIGNED + "\n— log.example/1 AAAA\n",
        SIGNER.sign(TREE).text()[:-1],
        SIGNER.sign(TREE).text() + "\n",
        SIGNER.sign(TREE).text().replace("\n", "\r\n"),
    ],
)
def test_other_texts_are_none(text: str) -> None:
    """A text of any other form is refused."""
    with pytest.raises(NoteError):
        notes.parse(text)


def test_every_changed_character_is_noticed() -> None:
    """A signed checkpoint with one changed character is refused, or its signature does not verify."""
    text = SIGNER.sign(TREE).text()
    for at, character in enumerate(text):
        changed = text[:at] + ("B" if character == "A" else "A") + text[at + 1 :]
        with contextlib.suppress(NoteError, SignatureError):
            assert not SIGNER.verifier.signed(notes.parse(changed))
    assert SIGNER.verifier.signed(notes.parse(text))


def test_others_signatures_are_left_alone() -> None:
    """Signatures of other keys are ignored; another key, or the key of another log, does not verify."""
    other = Signer(ed25519.Ed25519PrivateKey.generate())
    both = Note(TREE, (*other.sign(TREE).signatures, *SIGNER.sign(TREE).signatures))
    assert SIGNER.verifier.signed(both)
    assert not other.verifier.signed(SIGNER.sign(TREE))
    elsewhere = keys.verifier(SIGNER.verifier.line("elsewhere"))
    assert not elsewhere.signed(SIGNER.sign(TREE))
    borrowed = Signature("elsewhere", SIGNER.key_id("elsewhere"), SIGNER.sign(TREE).signatures[0].signature)
    assert not elsewhere.signed(Note(TREE, (borrowed,)))


# Keys


def settings(file: Path | None = None) -> Settings:
    """Settings that name a key's file."""
    return Settings.model_validate({"evidence": {"signing_key_file": file}})


def pem(key: Any, password: bytes | None = None) -> bytes:
    """A private key in PEM."""
    encryption = serialization.BestAvailableEncryption(password) if password else PLAIN
    written: bytes = key.private_bytes(PEM, PKCS8, encryption)
    return written


def test_key_from_a_file_or_the_environment(tmp_path: Path) -> None:
    """The key comes from the file, otherwise from the environment; without either there is none."""
    (tmp_path / "k.pem").write_bytes(pem(SIGNER.private))
    other = pem(ed25519.Ed25519PrivateKey.generate()).decode()
    from_file = keys.read(settings(tmp_path / "k.pem"), {"SWEEPER_SIGNING_KEY": other})
    from_environment = keys.read(settings(), {"SWEEPER_SIGNING_KEY": pem(SIGNER.private).decode()})
    assert from_file is not None
    assert from_environment is not None
    assert from_file.verifier == from_environment.verifier == SIGNER.verifier
    assert keys.read(settings(), {}) is None
    assert "private" not in repr(from_file)


BAD_KEYS = {
    "is no private key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "is encrypted": pem(SIGNER.private, b"hunter2"),
    "is no Ed25519 key": pem(rsa.generate_private_key(65537, 2048)),
    "cannot be read": None,
}


@pytest.mark.parametrize("said", BAD_KEYS)
def test_unusable_keys(said: str, tmp_path: Path) -> None:
    """An unusable key is refused with a remedy; the message contains no byte of it."""
    content = BAD_KEYS[said]
    if content is not None:
        (tmp_path / "k.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        keys.read(settings(tmp_path / "k.pem"), {})
    assert "openssl genpkey" in str(caught.value)
    assert "AAAA" not in str(caught.value)


def test_public_key_in_all_its_forms(tmp_path: Path) -> None:
    """A public key may be a verifier key, PEM, or a file with either."""
    line = SIGNER.verifier.line("log.example/1")
    public = SIGNER.private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    (tmp_path / "pub").write_text(line + "\n")
    (tmp_path / "pub.pem").write_text(public)
    for given_ in (line, public, str(tmp_path / "pub"), str(tmp_path / "pub.pem")):
        assert keys.verifier(given_).signed(SIGNER.sign(TREE))
    for wrong in (
        "",
        "nothing",
        line[:-2],
        line.replace("+", "-"),
        line.replace("log", "dog"),
        pem(SIGNER.private).decode(),
    ):
        with pytest.raises(ConfigurationError, match="is no public key"):
            keys.verifier(wrong)


@pytest.mark.parametrize("origin", ["a b", "a+b", "é", "a\nb"])
def test_origins_that_cannot_be_names(origin: str) -> None:
    """An origin that cannot be a key's name is refused."""
    with pytest.raises(ValueError, match="origin"):
        Settings.model_validate({"evidence": {"origin": origin}})


# Leaves

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-leaves.LARGEST, leaves.LARGEST) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES))
def test_canonical_bytes_are_those_of_the_library(value: dict[str, Any]) -> None:
    """The bytes follow RFC 8785, are one line, and are read back as the same object."""
    written = leaves.canonical(value)
    assert written == rfc8785.dumps(value)
    assert b"\n" not in written
    assert leaves.read(written) == value


def test_a_row_as_a_leaf() -> None:
    """Instants are in UTC and jsonb is an object; numbers that some readers would round are strings."""
    details = (
        '{"a": 1.50, "b": 9007199254740991, "c": -9007199254740992, "d": [true, null, 1e400], "e": ' + "9" * 5000 + "}"
    )
    told = {"id": 7, "at": "2026-01-02T03:04:05.5+00:00", "kind": "k", "run_id": None, "actor": "a", "details": details}
    assert leaves.of("events", json.dumps(told)) == {
        "source": "events",
        "id": 7,
        "at": "2026-01-02T03:04:05.500000Z",
        "kind": "k",
        "run_id": None,
        "actor": "a",
        "details": {"a": "1.50", "b": 2**53 - 1, "c": str(-(2**53)), "d": [True, None, "1e400"], "e": "9" * 5000},
    }


@pytest.mark.parametrize("at", ["infinity", "-infinity", "0044-03-15T12:00:00+00:00 BC", "12026-01-01T00:00:00+00:00"])
def test_instants_that_no_calendar_holds(at: str) -> None:
    """They stay as PostgreSQL writes them, so that all differ."""
    told = {"id": 1, "at": at, "kind": "k", "run_id": None, "actor": "a", "details": "{}"}
    assert leaves.of("events", json.dumps(told))["at"] == at


def test_json_nested_too_deeply_stays_text() -> None:
    """Deeply nested JSON is a string in the leaf."""
    for details in ("[" * 3000 + "]" * 3000, json.dumps([[]] * 200)):
        told = {"id": 1, "at": "infinity", "kind": "k", "run_id": None, "actor": "a", "details": details}
        leaf = leaves.of("events", json.dumps(told))
        assert leaf["details"] == details
        assert json.loads(leaves.canonical(leaf)) == leaf


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": 1.5}', '{"a": 9007199254740993}', "NaN", "{", "[" * 100_000]
)
def test_what_no_leaf_can_hold(text: str) -> None:
    """An ambiguous leaf is refused."""
    with pytest.raises(ValueError):  # noqa: PT011 — json's own errors have no common text
        leaves.read(text)
