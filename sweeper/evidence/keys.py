"""The key that signs checkpoints, and the keys that check them: Ed25519, as C2SP signed notes use it.

Invariant: a private key is read, used and never shown; a key that is named and cannot be used stops what needs
it before anything is done.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import files
from sweeper.errors import ConfigurationError
from sweeper.evidence.note import NAME, Note, NoteError, Signature, TreeHead, unbase64
from sweeper.files import UnreadableError
from sweeper.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE, INLINE = "SWEEPER_SIGNING_KEY_FILE", "SWEEPER_SIGNING_KEY"
REMEDY = f"Nothing was done. Make a key with `openssl genpkey -algorithm ed25519 -out signing.pem` and name the file in {FILE}."
ED25519 = b"\1"
"""The algorithm's number in a verifier key and in a key's id."""


class SignatureError(ValueError):
    """A checkpoint has no valid signature by any of the given keys."""


def key_id(name: str, public: bytes) -> str:
    """The id of a public key under a name, as hex."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).hexdigest()[:8]


@dataclass(frozen=True)
class Verifier:
    """A public key. If `name` is None, the origin of the checked checkpoint is its name."""

    public: bytes
    name: str | None = None

    def line(self, name: str) -> str:
        """The verifier key under a name, as C2SP writes it."""
        return f"{name}+{key_id(name, self.public)}+{base64.b64encode(ED25519 + self.public).decode()}"

    def signed(self, note: Note) -> bool:
        """Whether this key has signed the checkpoint.

        Raises:
            SignatureError: there is a signature that says so, and it is false.
        """
        name = self.name or note.tree.origin
        found = [s for s in note.signatures if (s.name, s.key_id) == (name, key_id(name, self.public))]
        for signature in found:
            self._check(note.tree.text().encode(), signature)
        return bool(found) and name == note.tree.origin

    def _check(self, text: bytes, signature: Signature) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature.signature, text)
        except InvalidSignature:
            raise SignatureError(f"the signature of {signature.name} does not fit what it signs") from None


@dataclass(frozen=True)
class Signer:
    """The key that signs checkpoints; its name is the log's origin."""

    private: "Ed25519PrivateKey" = field(repr=False)

    @property
    def verifier(self) -> Verifier:
        """The public key."""
        return Verifier(self.private.public_key().public_bytes_raw())

    def key_id(self, origin: str) -> str:
        """The id that the key has as a log's."""
        return key_id(origin, self.verifier.public)

    def sign(self, tree: TreeHead) -> Note:
        """The checkpoint, signed."""
        signature = self.private.sign(tree.text().encode())
        return Note(tree, (Signature(tree.origin, self.key_id(tree.origin), signature),))


def read(settings: Settings, environment: Mapping[str, str] = os.environ) -> Signer | None:
    """The key that the settings or the environment name or hold, None where there is none.

    Raises:
        ConfigurationError: there is one, and it cannot be read or is no Ed25519 key.
    """
    named, inline = settings.evidence.signing_key_file, environment.get(INLINE)
    if named is None and not inline:
        return None
    what = f"signing key {named}" if named else INLINE
    try:
        pem = files.read_bytes(named) if named else (inline or "").encode()
    except UnreadableError as error:
        raise ConfigurationError(f"{what}: cannot be read ({error}). {REMEDY}") from None
    return Signer(_private(pem, what))


def _private(pem: bytes, what: str) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigurationError(f"{what}: is encrypted, and nobody is asked for its password. {REMEDY}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{what}: is no private key in PEM. {REMEDY}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{what}: is no Ed25519 key. {REMEDY}")
    return key


def verifier(given: str) -> Verifier:
    """The public key that an option gives: a verifier key, a public key in PEM, or a file that holds either.

    Raises:
        ConfigurationError: it is none of these.
    """
    text = _content(given).strip()
    try:
        return _from_pem(text) if text.startswith("-----BEGIN") else _from_line(text)
    except (ValueError, NoteError):
        raise ConfigurationError(
            f"--key {given[:100]!r} is no public key. Nothing was checked. Give the line that `sweeper audit key` prints, a "
            "public Ed25519 key in PEM, or the file that holds it."
        ) from None


def verifiers(given: Iterable[str]) -> tuple[Verifier, ...]:
    """The public keys that options give."""
    return tuple(verifier(each) for each in given)


def _content(given: str) -> str:
    try:
        return files.read_text(Path(given))
    except UnreadableError:
        return given


def _from_line(text: str) -> Verifier:
    name, hex_id, encoded = text.split("+", 2)
    raw = unbase64(encoded, 33)
    if not NAME.fullmatch(name) or raw[:1] != ED25519 or key_id(name, raw[1:]) != hex_id:
        raise ValueError("no verifier key")
    return Verifier(raw[1:], name)


def _from_pem(text: str) -> Verifier:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(text.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("no Ed25519 key")
    return Verifier(key.public_bytes_raw())
