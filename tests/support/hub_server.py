"""A small stand-in for the Hugging Face hub on this machine: the requests that huggingface-hub makes, nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class Hub:
    """Repositories: id -> commit -> file name -> content; revisions: id -> revision -> commit.

    gated: ids that need a token. cut_after: bytes of a body after which the connection breaks, once. log: requests.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.revisions: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        self.cut_after: int | None = None
        self.log: list[tuple[str, str, str | None]] = []
        self.url = ""

    def publish(self, repo: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A new commit of a repository; returns it."""
        content = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})
        commit = hashlib.sha1(f"{repo}{content}".encode()).hexdigest()
        self.repositories.setdefault(repo, {})[commit] = files
        self.revisions.setdefault(repo, {})[revision] = commit
        return commit

    def find(self, repo: str, revision: str) -> str | None:
        """The commit of a revision or of a commit."""
        if revision in self.repositories.get(repo, {}):
            return revision
        return self.revisions.get(repo, {}).get(revision)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        if match := re.match(r"/api/models/([^/]+/[^/]+)/revision/(.+)$", path):
            self._info(match[1], match[2])
        elif match := re.match(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
            self._file(match[1], match[2], match[3], with_body)
        else:
            self._fail(404, "EntryNotFound", "unknown address")

    def _commit(self, repo: str, revision: str) -> str | None:
        if repo not in self.hub.repositories:
            self._fail(404, "RepoNotFound", "Repository not found")
        elif repo in self.hub.gated:
            self._fail(403, "GatedRepo", "Access to this repository is restricted")
        elif self.hub.find(repo, revision) is None:
            self._fail(404, "RevisionNotFound", "Invalid rev id")
        else:
            return self.hub.find(repo, revision)
        return None

    def _info(self, repo: str, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        files = self.hub.repositories[repo][commit]
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        self._send(json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}).encode(), {})

    def _file(self, repo: str, revision: str, name: str, with_body: bool) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        data = self.hub.repositories[repo][commit].get(name)
        if data is None:
            self._fail(404, "EntryNotFound", "Entry not found")
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or ["", "0"])[1])
        if start >= len(data) > 0:
            self._send(b"", headers, status=416)
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(data[start:], headers, status=206 if start else 200, with_body=with_body)

    def _send(self, body: bytes, headers: dict[str, str], *, status: int = 200, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if self.hub.cut_after is not None and len(body) > self.hub.cut_after:
            body, self.hub.cut_after = body[: self.hub.cut_after], None
            self.close_connection = True
        self.wfile.write(body)

    def _fail(self, status: int, code: str, message: str) -> None:
        self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": message}, status=status)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers at `hub.url` until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
