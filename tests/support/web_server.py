"""A web server on this machine that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Page:
    """An answer. length: the Content-Length that is said, None for none. drip: bytes that come one by one for ever.

    With an ETag among the headers a request that names it is answered by 304.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = -1
    hangs: bool = False
    drips: bool = False


class Web:
    """pages: path with query -> answer; requests: (path, headers), in their order."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        self.web.requests.append((self.path, dict(self.headers)))
        page = self.web.pages.get(self.path, Page(status=404))
        if page.hangs:
            self.web.ended.wait()
            return
        etag = page.headers.get("ETag")
        unchanged = etag is not None and self.headers.get("If-None-Match") == etag
        self.send_response(304 if unchanged else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        length = len(page.body) if page.length == -1 else page.length
        if length is not None and not unchanged and not page.drips:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if page.drips:
            while not self.web.ended.wait(0.02):
                self.wfile.write(b"x")
        elif not unchanged:
            self.wfile.write(page.body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def serve_pages(certificate: Path | None = None) -> Iterator[Web]:
    """A server that answers until the end of the block. certificate: a file with it and its key, for https."""
    web = Web()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
