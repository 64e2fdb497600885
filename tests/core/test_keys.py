"""Keys: weak keys are refused, and key files that others can read or replace are reported, never their content."""

import base64
import hashlib
import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper import files
from sweeper.errors import ConfigurationError
from sweeper.manifest import pseudonym
from sweeper.manifest.pseudonym import INLINE, LEAST_BITS, estimated_bits

PATTERNS = {
    "one letter": b"a" * 32,
    "one letter, long": b"a" * 1_000,
    "two letters": b"ab" * 16,
    "two letters in blocks": b"a" * 20 + b"b" * 20,
    "a word again and again": b"changeme" * 8,
    "a word with a rest": b"secret" * 6 + b"sec",
    "digits in order": b"1234567890" * 4,
    "hexadecimal digits in order": b"0123456789abcdef" * 4,
    "letters in order": b"abcdefghijklmnopqrstuvwxyz012345",
    "letters backwards": b"zyxwvutsrqponmlkjihgfedcba987654",
    "bytes in order": bytes(range(32)),
    "bytes in steps": bytes(range(0, 255, 7)),
    "noughts and a number": b"00000000000000000000000000001234",
    "noughts": b"0" * 64,
    "NUL": bytes(32),
    "digits": b"31415926535897932384626433832795",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str, tmp_path: Path) -> None:
    """A key with a pattern is refused, also from a file, and the message does not contain it."""
    file = tmp_path / "key"
    file.write_bytes(PATTERNS[name])
    with pytest.raises(ConfigurationError, match=r"found by trying|at least 32 are needed") as refused:
        pseudonym.read({pseudonym.FILE: str(file)})
    assert PATTERNS[name].decode(errors="replace") not in str(refused.value)
    assert "head -c 48 /dev/urandom | base64" in str(refused.value)


RANDOM: dict[str, Callable[[random.Random], bytes]] = {
    "as the README makes it": lambda r: base64.b64encode(r.randbytes(48)),
    "32 bytes": lambda r: r.randbytes(32),
    "32 bytes in hexadecimal": lambda r: r.randbytes(32).hex().encode(),
    "32 bytes in base64": lambda r: base64.b64encode(r.randbytes(32)),
    "128 bits in hexadecimal": lambda r: r.randbytes(16).hex().encode(),
    "39 digits": lambda r: str(r.randrange(10**38, 10**39)).encode(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_keys(name: str) -> None:
    """No random key is near the limit: the lowest estimate of 2,000 is well above it."""
    made = random.Random(7)  # noqa: S311 — the same keys every time
    estimates = [estimated_bits(RANDOM[name](made)) for _ in range(2_000)]
    assert min(estimates) > LEAST_BITS + 10


def test_keys_are_read(tmp_path: Path) -> None:
    """Keys from the README's command and from other generators are accepted."""
    for key in (base64.b64encode(os.urandom(48)).decode(), secrets.token_hex(32), secrets.token_urlsafe(32)):
        assert pseudonym.read({INLINE: key}).key == key.encode()
    file = tmp_path / "key"
    file.write_bytes(raw := hashlib.sha256(b"raw").digest())
    assert pseudonym.read({pseudonym.FILE: str(file)}).key == raw.strip()


@pytest.mark.parametrize(
    ("mode", "folder", "told"),
    [
        (0o600, 0o700, []),
        (0o400, 0o755, []),
        (0o600, 0o1777, []),
        (0o644, 0o700, ["(mode 0644)"]),
        (0o640, 0o700, ["(mode 0640)"]),
        (0o620, 0o700, ["(mode 0620)"]),
        (0o601, 0o700, ["(mode 0601)"]),
        (0o600, 0o777, ["(mode 0777)"]),
        (0o600, 0o770, ["(mode 0770)"]),
        (0o604, 0o733, ["(mode 0604)", "(mode 0733)"]),
    ],
    ids=lambda value: f"{value:o}" if isinstance(value, int) else "",
)
def test_modes(mode: int, folder: int, told: list[str], tmp_path: Path) -> None:
    """Permissions of group and others on the file or its directory are reported, and the remedy fixes them."""
    file = tmp_path / "keys" / "key"
    file.parent.mkdir()
    file.write_text("secret words")
    file.chmod(mode)
    file.parent.chmod(folder)
    found = list(files.exposures(file))
    assert [text[text.index("(mode") :] for text, _ in found] == told
    assert "secret words" not in str(found)
    for _, remedy in found:
        assert os.system(remedy) == 0  # noqa: S605 — a chmod of our own
    assert list(files.exposures(file)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_group_of_the_job(tmp_path: Path) -> None:
    """If root owns the file, as in our deployments, the job's own group may read it."""
    file = tmp_path / "key"
    file.write_text("x")
    os.chown(file, 12_345, os.getegid())
    for mode, count in ((0o640, 0), (0o440, 0), (0o660, 1), (0o644, 1)):
        file.chmod(mode)
        assert len(list(files.exposures(file))) == count
    os.chown(file, 12_345, 54_321)
    file.chmod(0o640)
    assert len(list(files.exposures(file))) == 1


def test_no_file() -> None:
    """A missing file is not reported."""
    assert list(files.exposures(Path("/nowhere/key"))) == []
    assert list(files.exposures(Path("/dev/null"))) == []
