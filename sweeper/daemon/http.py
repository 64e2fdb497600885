"""A small HTTP endpoint for probes and Prometheus: GET and HEAD of known paths, nothing else.

Invariant: no client can block the daemon. The number of threads is bounded, a new connection closes the oldest, and the process
ends without waiting for any.
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any, ClassVar

from sweeper import log
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError

CONNECTIONS = 16
"""The most connections open at a time."""
SILENCE_SECONDS = 5.0
"""A connection that is silent for this long is closed."""


class Answer:
    """A response: its status, body and content type."""

    def __init__(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.status, self.body, self.kind = status, body, kind

    @classmethod
    def json(cls, value: Mapping[str, Any], *, good: bool = True) -> "Answer":
        """Return a JSON response with status 200, or 503 unless `good`."""
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return cls(status, json.dumps(to_json(value)).encode() + b"\n", "application/json")


Routes = Mapping[str, Callable[[], Answer]]
"""The function that answers each path."""
NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain")
FAILED = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"failed\n", "text/plain")


class _Handler(BaseHTTPRequestHandler):
    """Handles one request per connection."""

    timeout = SILENCE_SECONDS
    routes: ClassVar[Routes]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        answer = self._route()
        with suppress(OSError):  # the client has gone
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if with_body:
                self.wfile.write(answer.body)

    def _route(self) -> Answer:
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            return NOT_FOUND
        try:
            return route()
        except Exception as error:  # a failing answer must not end the process
            log.get().error("answer failed", path=self.path.partition("?")[0], error=type(error).__name__)
            return FAILED

    def version_string(self) -> str:
        return "sweeper"

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""


class _Server(ThreadingHTTPServer):
    """Bounds the number of connections, and so of threads, by closing the oldest."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._guard = Lock()
        self._open: dict[socket.socket, None] = {}  # in order of arrival
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks up the host's name, which may take long

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS else None
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients break connections all the time."""


@contextmanager
def answering(listen: str, routes: Routes) -> Iterator[str]:
    """Answer on `HOST:PORT` (port 0: any free one) until the block ends; yield the address.

    Raises:
        ConfigurationError: `listen` is not an address, or the server cannot listen on it.
    """
    server = _bound(listen, type("Handler", (_Handler,), {"routes": routes}))
    thread = Thread(target=server.serve_forever, args=(0.1,), name="endpoint", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"
    finally:
        server.shutdown()
        server.server_close()


def _bound(listen: str, handler: type[_Handler]) -> _Server:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65_535:
        raise ConfigurationError(
            f"[serve] listen {listen!r} is not an address: nothing was started. Write HOST:PORT, for instance 127.0.0.1:9464."
        )
    try:
        return _Server((host.removeprefix("[").removesuffix("]"), int(port)), handler)
    except (OSError, ValueError, TypeError) as error:  # ValueError, TypeError: no host can have that name
        raise ConfigurationError(
            f"[serve] listen {listen}: cannot be listened on ({getattr(error, 'strerror', None) or error}). Nothing was started. "
            "Name another address there or with --listen, or stop what listens on it."
        ) from None
