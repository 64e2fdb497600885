"""The HTTP endpoint: a client that is slow or silent delays no other."""

import socket
import threading
import urllib.request
from contextlib import ExitStack
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from sweeper.daemon import http as endpoint
from sweeper.daemon.http import CONNECTIONS, Answer, answering

PATIENCE = 120.0


def route() -> Answer:
    """A route that answers."""
    return Answer(HTTPStatus.OK, b"here", "text/plain")


def broken() -> Answer:
    """A route that raises."""
    raise KeyError("secret words")


def asked(address: str, words: bytes) -> bytes:
    """Return everything that the server sends."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
        connection.sendall(words)
        return b"".join(iter(lambda: connection.recv(4_096), b""))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_answers(listen: str) -> None:
    """Known paths are answered over IPv4 and IPv6; no header names the program's software."""
    with answering(listen, {"/here": route}) as address:
        with urllib.request.urlopen(f"http://{address}/here?x=1") as answer:
            assert (answer.status, answer.read(), answer.headers["Server"]) == (200, b"here", "sweeper")
        assert asked(address, b"HEAD /here HTTP/1.0\r\n\r\n").endswith(b"Content-Length: 4\r\n\r\n")
        assert b" 404 " in asked(address, b"GET /there HTTP/1.0\r\n\r\n")


def test_an_answer_that_fails() -> None:
    """A route that raises is answered with 500 and logged without its message; other routes still work."""
    with capture_logs() as logged, answering("127.0.0.1:0", {"/broken": broken, "/here": route}) as address:
        assert b" 500 " in asked(address, b"GET /broken?x HTTP/1.0\r\n\r\n")
        assert b" 200 " in asked(address, b"GET /here HTTP/1.0\r\n\r\n")
    assert logged == [{"event": "answer failed", "path": "/broken", "error": "KeyError", "log_level": "error"}]


def test_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all connections are in use, the oldest is closed, and its thread ends."""
    monkeypatch.setattr(endpoint._Handler, "timeout", 60 * PATIENCE)
    before = set(threading.enumerate())
    with ExitStack() as stack, answering("127.0.0.1:0", {"/here": route}) as address:
        host, _, port = address.partition(":")
        held = [
            stack.enter_context(socket.create_connection((host, int(port)), PATIENCE)) for _ in range(CONNECTIONS + 2)
        ]
        assert [connection.recv(1) for connection in held[:2]] == [b"", b""]
        assert b" 200 " in asked(address, b"GET /here HTTP/1.0\r\n\r\n")
        held[-1].sendall(b"GET /here HTTP/1.0\r\n\r\n")
        assert held[-1].recv(15) == b"HTTP/1.0 200 OK"
        assert all(thread.daemon for thread in set(threading.enumerate()) - before)
