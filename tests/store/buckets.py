"""A local S3 over HTTP: moto's server, which can be told to refuse, to leave out of its answer, to fail and to hang."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
FORBIDDEN = "<Error><Code>AccessDenied</Code><Message>secret</Message></Error>"


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 — as its base names it
        """Log nothing."""


def _none(_: str) -> bool:
    return False


class Bucket:
    """The server, with one bucket named `bucket`."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.reset()

    def reset(self) -> None:
        """Empty the bucket and answer all requests."""
        self._backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        self._backend.reset()
        self._backend.create_bucket("bucket", "us-east-1")
        self.refused: Callable[[str], bool] = _none
        self.ignored: Callable[[str], bool] = _none
        self.has_bulk = True
        self.told: list[Callable[[list[str]], object]] = []
        self.let_go = Event()
        self.let_go.set()
        self.bulk: list[list[str]] = []
        self.single: list[str] = []

    def put(self, keys: Iterable[str]) -> None:
        """Store objects."""
        for key in keys:
            self._backend.put_object("bucket", key, b"x")

    @property
    def keys(self) -> set[str]:
        """What is stored."""
        return set(self._backend.buckets["bucket"].keys)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer one request."""
        request = Request(environ)
        if request.method == "POST" and "delete" in request.args:
            environ["wsgi.input"] = BytesIO(request.get_data())
            answer = self._delete_many(request) or self.app
            return answer(environ, start_response)
        if request.method == "DELETE":
            key = unquote(request.path.removeprefix("/bucket/"))
            self.single.append(key)
            if self.refused(key):
                return Response(FORBIDDEN, status=403, mimetype="application/xml")(environ, start_response)
        return self.app(environ, start_response)

    def _delete_many(self, request: Request) -> Response | None:
        """Answer a request to remove many keys; None leaves that to moto."""
        asked = ElementTree.fromstring(request.get_data())  # noqa: S314 — written by our own client
        found = {each: each.findtext(f"{NAMESPACE}Key", "") for each in asked.findall(f"{NAMESPACE}Object")}
        keys = list(found.values())
        self.bulk.append(keys)
        for told in self.told:
            told(keys)
        if not self.let_go.is_set():
            self.let_go.wait(20.0)
            return Response(status=503)
        if not self.has_bulk:
            return Response("<Error><Code>NotImplemented</Code></Error>", status=501, mimetype="application/xml")
        if self.refused is self.ignored:
            return None
        answer = ElementTree.Element("DeleteResult", xmlns=NAMESPACE[1:-1])
        for key in keys:
            if self.ignored(key):
                continue
            each = ElementTree.SubElement(answer, "Error" if self.refused(key) else "Deleted")
            ElementTree.SubElement(each, "Key").text = key
            if self.refused(key):
                ElementTree.SubElement(each, "Code").text = "AccessDenied"
            else:
                self._backend.delete_object("bucket", key)
        return Response(ElementTree.tostring(answer), mimetype="application/xml")


@contextmanager
def serving(bucket: Bucket) -> Iterator[dict[str, str]]:
    """Serve on a free port and yield the options of s3fs for it."""
    server = make_server("127.0.0.1", 0, bucket, threaded=True, request_handler=_Silent)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {"endpoint_url": f"http://127.0.0.1:{server.server_port}", "key": "test", "secret": "test"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
