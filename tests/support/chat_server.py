"""A small stand-in for a chat-completions service on this machine: the one request of the official client."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Question:
    """One request. headers: names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def system(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def user(self) -> str:
        """The words of the user message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[0]["text"]

    @property
    def picture(self) -> str | None:
        """The address of the picture in the user message."""
        return next(iter(self.pictures), None)

    @property
    def pictures(self) -> list[str]:
        """The addresses of all pictures in the user message."""
        content = self.body["messages"][-1]["content"]
        return [] if isinstance(content, str) else [part["image_url"]["url"] for part in content[1:]]


@dataclass(frozen=True)
class Raw:
    """An answer as it goes over the wire."""

    body: str
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = (("Retry-After-Ms", "1"),)  # the client waits as long before its next try


def completion(content: Any, *, finish: str = "stop", tokens: tuple[int, int] | None = None, **message: Any) -> Raw:
    """A chat completion with this content. tokens: of the question and of the answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "served"}
    usage = {} if tokens is None else {"usage": dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))}
    return Raw(json.dumps({**head, "choices": [choice], **usage}))


def failure(status: int, message: str = "") -> Raw:
    """An error as the service words it."""
    return Raw(json.dumps({"error": {"message": message, "type": "x", "code": "y", "param": None}}), status)


@dataclass
class Chat:
    """answer: gives the text, or the whole answer, to a question; None never answers. questions: that arrived."""

    url: str
    answer: Callable[[Question], str | Raw | None]
    questions: list[Question] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    chat: Chat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = Question(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.chat.questions.append(question)
        self.chat.arrived.set()
        answer = self.chat.answer(question)
        if answer is None:
            self.chat.closing.wait()
            return
        answer = completion(answer) if isinstance(answer, str) else answer
        data = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(answer: Callable[[Question], str | Raw | None]) -> Iterator[Chat]:
    """A service that answers at `chat.url` until the end of the block."""
    chat = Chat("", answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": chat}))
    server.daemon_threads = True
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        chat.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
