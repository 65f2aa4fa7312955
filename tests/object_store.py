"""Object stores for tests: in memory, moto's server, which speaks S3, and a proxy before it that makes trouble."""

import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from obstore.store import MemoryStore

from feedback_etl.storage.object_store import ObjectStorage

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}


@contextmanager
def running_object_store() -> Iterator[str]:
    """The address of a server that ends with the context."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application, alone = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_after_the_other(*request: Any) -> Any:
        """As a store keeps its word: moto looks whether there is an object and then puts one, in two steps."""
        with alone:
            return application(*request)

    server = make_server("127.0.0.1", 0, one_after_the_other, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class MemoryStorage(ObjectStorage):
    """An object store in memory, with conditional puts as in S3."""

    def __init__(self) -> None:
        super().__init__("s3://memory/exports")

    @cached_property
    def _store(self) -> MemoryStore:
        return MemoryStore()


def in_memory() -> Callable[..., Any]:
    """Replacement of `urls.open_client`: a store in memory for each URL, with conditional puts as in S3."""
    stores: dict[str, MemoryStore] = {}
    return lambda url, *_: stores.setdefault(url, MemoryStore())


class Trouble(NamedTuple):
    """What happens to requests.

    Attributes:
        how: "500" or "503"; "cut": half of the answer; "lost": it is done, and there is no answer; "slow".
        times: How often.
        method: To which.
        holding: To those whose path holds this.
    """

    how: str
    times: int = 1
    method: str = "PUT"
    holding: str = ""


def _nothing(method: str, path: str) -> None:
    """What is done before a request is passed on, unless a test sets something else."""


class Proxy:
    """Passes requests on, unless there is trouble."""

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind)
        self.troubles: list[Trouble] = []
        self.requests: list[str] = []
        self.denied = False
        self.dropped: set[str] = set()
        self.before: Callable[[str, str], None] = _nothing
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # a client that has gone
                    self.close_connection = True

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: proxy.handle(self)
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """As long as the context lasts."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Pass one on, or not."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.requests.append(f"{request.command} {request.path}")
        self.before(request.command, request.path)
        how = "403" if self.denied else self._trouble(request)
        if how.isdigit():
            content = b"<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId></Error>"
            request.send_response(int(how))
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
            return
        if how == "slow":
            time.sleep(1.5)
        status, headers, content = self._passed_on(request, body)
        if how == "lost":
            request.close_connection = True
            return
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "date", "server", "transfer-encoding", "content-length"):
                request.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length)
        request.end_headers()
        if how == "cut":
            content, request.close_connection = content[: len(content) // 2], True
        request.wfile.write(content)

    def _trouble(self, request: BaseHTTPRequestHandler) -> str:
        for number, trouble in enumerate(self.troubles):
            if trouble.times and trouble.method == request.command and trouble.holding in request.path:
                self.troubles[number] = trouble._replace(times=trouble.times - 1)
                return trouble.how
        return ""

    def _passed_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self.behind.hostname), int(self.behind.port or 80))
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in self.dropped}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()
