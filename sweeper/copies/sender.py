"""Sends records to one copy: to the standard input of a command, or as a signed POST to a URL.

Invariants: what is sent is what `line` writes, and no content. Whatever the copy does, `send` returns or raises within the time
limit and soon after a stop request. No error quotes what the copy printed or answered, since it may quote content.
"""

import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Row

from sweeper import files
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError
from sweeper.files import UnreadableError
from sweeper.settings import CopySettings, Settings

FIELDS = ("record", "record_id", "conversation_id", "account_id", "rule", "due_at", "purged_at", "run_id", "leaf")
"""The fields of a record, as the tombstone has them; `leaf` is its number in the evidence."""
STEP_SECONDS = 0.05
"""How often a wait looks for a stop request."""
KILL_SECONDS = 5.0
"""How long a command that was killed may take to end."""
SECRET = "SWEEPER_COPY_SECRET_"  # noqa: S105 — the beginning of a variable's name
NOT_DONE = "Nothing was done."


class NotDeliveredError(Exception):
    """The copy did not acknowledge; the message says why in a few words."""


class SendingStoppedError(Exception):
    """A stop request came before the copy acknowledged."""


@dataclass(frozen=True)
class Sender:
    """Sends to one copy; everything that its settings name was found."""

    copy: CopySettings
    secret: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def send(self, rows: Sequence[Row[Any]], stopped: Callable[[], bool], now: float) -> None:
        """Send records and wait until the copy acknowledges; `now` is the time of the POST in seconds since 1970.

        Raises:
            NotDeliveredError: it did not.
            SendingStoppedError: a stop request came first.
        """
        if self.copy.url is None:
            self._run(lines(rows), stopped)
        else:
            self._post(self.copy.url, self.body(rows), stopped, now)

    def probe(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Start the command with nothing to delete, or connect to the URL.

        Raises:
            NotDeliveredError: that failed.
        """
        if self.copy.url is None:
            self._run(b"", stopped)
        else:
            connection = self._connection(self.copy.url)
            self._within(connection.connect, connection.close, stopped)

    def body(self, rows: Sequence[Row[Any]]) -> bytes:
        """Return the body of a POST."""
        if self.copy.body is None:
            return lines(rows)
        ids = list(dict.fromkeys(row.record_id for row in rows))
        return json.dumps(_filled(json.loads(self.copy.body), ids)).encode()

    def _run(self, text: bytes, stopped: Callable[[], bool]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPER_")}
        try:
            process = subprocess.Popen(  # noqa: S603 — the operator's own command, without a shell
                self.copy.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise NotDeliveredError(f"the command could not be started ({why})") from None
        try:
            self._within(lambda: process.communicate(text), lambda: _kill(process), stopped)
        finally:
            with suppress(subprocess.TimeoutExpired):  # one that may not be killed, such as sudo
                process.wait(KILL_SECONDS)
        if process.returncode:
            code = process.returncode
            raise NotDeliveredError(
                f"the command exited with {code}" if code > 0 else f"the command died of signal {-code}"
            )

    def _post(self, url: str, body: bytes, stopped: Callable[[], bool], now: float) -> None:
        parts, connection = urlsplit(url), self._connection(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        answered: list[int] = []

        def post() -> None:
            connection.request("POST", target, body, self._signed(body, now))
            answered.append(connection.getresponse().status)

        try:
            self._within(post, lambda: _cut(connection), stopped)
        finally:
            connection.close()
        status = answered[0]
        if not 200 <= status < 300 and not (status == http.HTTPStatus.NOT_FOUND and self.copy.not_found_is_success):
            raise NotDeliveredError(f"the URL answered {status}")

    def _connection(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return make(parts.hostname or "", parts.port, timeout=self.copy.timeout_seconds)

    def _signed(self, body: bytes, now: float) -> dict[str, str]:
        kind, stamp = "application/json" if self.copy.body else "application/x-ndjson", str(int(now))
        found = {
            "Content-Type": kind,
            "User-Agent": "sweeper",
            "Sweeper-Copy": self.copy.name,
            "Sweeper-Timestamp": stamp,
        }
        if self.secret:
            found["Sweeper-Signature"] = f"sha256={signature(self.secret, stamp, body)}"
        return found | dict(self.headers)

    def _within(self, work: Callable[[], object], cancel: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Do `work` in a thread until it ends, the time limit or a stop request; then `cancel` it.

        Raises:
            NotDeliveredError: it failed or took too long.
            SendingStoppedError: a stop request came first.
        """
        failed: list[Exception] = []

        def run() -> None:
            try:
                work()
            except Exception as error:  # whatever it is, the copy has not acknowledged
                failed.append(error)

        thread = Thread(target=run, name=f"copy {self.copy.name}", daemon=True)
        thread.start()
        deadline = time.monotonic() + self.copy.timeout_seconds
        while thread.is_alive() and not stopped() and (left := deadline - time.monotonic()) > 0:
            thread.join(min(STEP_SECONDS, left))
        if is_alive := thread.is_alive():
            cancel()
            if stopped():
                raise SendingStoppedError
        if is_alive or any(isinstance(error, TimeoutError) for error in failed):
            raise NotDeliveredError(f"no answer within {self.copy.timeout_seconds:g} s")
        if failed:
            why = failed[0].strerror if isinstance(failed[0], OSError) else None
            raise NotDeliveredError(f"the copy could not be reached ({why or type(failed[0]).__name__})")


def lines(rows: Sequence[Row[Any]]) -> bytes:
    """Return records as JSON lines: ids, times and the rule, no content."""
    return b"".join(json.dumps({name: to_json(getattr(row, name)) for name in FIELDS}).encode() + b"\n" for row in rows)


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256, in hex, of the timestamp, a full stop and the body."""
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def senders(settings: Settings) -> list[Sender]:
    """Return a sender for each copy.

    Raises:
        ConfigurationError: a command, a secret or a file of headers is not there; nothing was done.
    """
    return [sender(copy) for copy in settings.copies]


def sender(copy: CopySettings) -> Sender:
    """Return the sender of a copy.

    Raises:
        ConfigurationError: its command, its secret or its file of headers is not there; nothing was done.
    """
    if copy.url is None:
        if shutil.which(copy.command[0]) is None:
            raise _unusable(
                copy,
                f"command: {copy.command[0]!r} is no program that can be started. {NOT_DONE} Install it, or name its path.",
            )
        return Sender(copy)
    secret = _secret(copy)
    if not secret and copy.body is None:
        raise _unusable(copy, f"no secret signs what it gets. {NOT_DONE} Name secret_file, or set {_variable(copy)}.")
    return Sender(copy, secret, _headers(copy))


def _secret(copy: CopySettings) -> bytes:
    if inline := os.environ.get(_variable(copy), ""):
        return inline.strip().encode()
    return _read(copy, "secret_file", copy.secret_file).strip().encode() if copy.secret_file else b""


def _variable(copy: CopySettings) -> str:
    return SECRET + copy.name.upper()


def _headers(copy: CopySettings) -> dict[str, str]:
    text = _read(copy, "headers_file", copy.headers_file) if copy.headers_file else ""
    found: dict[str, str] = {}
    for number, line in enumerate(filter(str.strip, text.split("\n")), 1):
        name, colon, value = line.partition(":")
        if not colon or not name.strip().isascii() or not name.strip() or not value.isascii():
            raise _unusable(copy, f"headers_file: line {number} is not `Name: value`. {NOT_DONE} Fix the file.")
        found[name.strip()] = value.strip()
    return found


def _read(copy: CopySettings, key: str, path: Any) -> str:
    try:
        return files.read_text(path)
    except UnreadableError as error:
        raise _unusable(
            copy, f"{key} {path}: cannot be read ({error}). {NOT_DONE} Fix the file, or name another."
        ) from None


def _unusable(copy: CopySettings, text: str) -> ConfigurationError:
    return ConfigurationError(f"[[copies]] {copy.name}: {text}")


def _filled(value: Any, ids: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, ids) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, ids) for each in value]
    return ids if value == "$record_ids" else value


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that has not ended, and all that it started."""
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _cut(connection: http.client.HTTPConnection) -> None:
    """Wake the thread that waits for the answer."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
