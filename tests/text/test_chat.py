"""One question through the official client, to a service on this machine."""

from __future__ import annotations

import base64
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from chat_server import Raw, completion, failure, serve

from sora_cli.errors import MissingError
from sora_cli.text.chat import ChatError, Service, ask, find_service

KEY = "sk-proj-0123456789abcdef"


def ask_one(answer: str | Raw | None, *, timeout: float = 30, key: str = KEY, **question: Any) -> str:
    with serve(lambda _: answer) as chat:
        return ask(Service("m", chat.url, timeout, key), **{"system": "s", "user": "u", **question})


def why_not(answer: str | Raw | None, **options: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        ask_one(answer, **options)
    return caught.value


def test_what_is_sent() -> None:
    with serve(lambda _: "fine") as chat:
        assert ask(Service("m", chat.url, 30, KEY), system="s", user="u") == "fine"
        picture = b"\xff\xd8 a picture"
        assert ask(Service("m", chat.url, 30, KEY), system="s", user="u", picture=picture) == "fine"
    plain, with_picture = chat.questions
    assert plain.path == "/v1/chat/completions"
    assert plain.headers["authorization"] == f"Bearer {KEY}"
    assert plain.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    }
    kind, _, data = with_picture.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(data) == picture


def test_an_answer_in_parts() -> None:
    assert ask_one(completion([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}])) == "one two"


@pytest.mark.parametrize(
    ("answer", "reason", "is_lasting"),
    [
        (failure(401, "Incorrect API key"), "the key is not accepted (HTTP 401): Incorrect API key", True),
        (failure(403), "the key may not do this (HTTP 403)", True),
        (failure(404, "no such model"), "there is no model m, or nothing that answers at this address", True),
        (failure(429, "You exceeded your quota"), "the quota or the rate limit is used up (HTTP 429): You", True),
        (failure(400, "no pictures,\n\x1b[2J please"), "failed (HTTP 400): no pictures, [2J please", False),
        (Raw('{"error": "busy"}', 503), "the service failed (HTTP 503): busy", False),
        (Raw("<html>", 500, "text/html"), "the service failed (HTTP 500)", False),
        (completion(None, refusal="I will not."), "the model refused: I will not.", False),
        (completion("half", finish="content_filter"), "the model refused", False),
        (completion("half", finish="length"), "the answer was cut off", False),
        (completion(" \n"), "the answer is empty", False),
        (completion(None), "the answer is empty", False),
        (completion({"a": 1}), "the answer is empty", False),
        (Raw("{not json"), "cannot be read", False),
        (Raw("<html>hello</html>", kind="text/html"), "is no chat completion", False),
        (Raw("{}"), "is no chat completion", False),
        (Raw('{"choices": []}'), "is no chat completion", False),
        (Raw('{"choices": ["x"]}'), "is no chat completion", False),
        (Raw("[1, 2]"), "", False),
        (Raw("null"), "is no chat completion", False),
    ],
)
def test_answers_that_are_none(answer: Raw, reason: str, is_lasting: bool) -> None:
    error = why_not(answer)
    assert reason in error.reason
    assert error.is_lasting is is_lasting


def test_a_failure_that_may_pass_is_tried_twice() -> None:
    with serve(lambda _: failure(500)) as chat, pytest.raises(ChatError):
        ask(Service("m", chat.url, 30, KEY), system="s", user="u")
    assert len(chat.questions) == 2


def test_a_service_that_never_answers() -> None:
    error = why_not(None, timeout=0.2)
    assert error.reason == "no answer within 0.2 s"
    assert error.is_lasting


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ChatError, match=f"cannot reach 127.0.0.1:{port}"):
        ask(Service("m", f"http://127.0.0.1:{port}/v1", 30, KEY), system="s", user="u")


@pytest.mark.parametrize("url", ["nonsense", "http://[", "http://h:99999999/v1", "ftp://h/v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ChatError):
        ask(Service("m", url, 30, KEY), system="s", user="u")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: failure(401, f"Incorrect API key provided: {KEY}"),
        lambda: failure(400, f"bad header Authorization: Bearer {KEY[:12]}***"),
        lambda: Raw(KEY, 500, "text/plain"),
        lambda: completion(f"a fox. {KEY}"),
        lambda: completion(None, refusal=f"not with {KEY}"),
    ],
)
def test_the_key_is_in_no_message(spoil: Callable[[], Raw]) -> None:
    error = why_not(spoil())
    assert not any(KEY[start : start + 8] in str(error) for start in range(len(KEY) - 7))
    assert error.__cause__ is None
    assert KEY not in repr(Service("m", "u", 1, KEY))


@pytest.mark.parametrize("key", ["sk-line\nbreak-secret", "sk-snowman-☃-secret"])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    assert "secret" not in why_not("fine", key=key).reason


def test_the_password_in_an_address_is_in_no_message() -> None:
    with serve(lambda _: failure(404, "user:pass-word-1 is unknown")) as chat:
        service = Service("m", chat.url.replace("http://", "http://user:pass-word-1@"), 30, KEY)
        with pytest.raises(ChatError, match="no model m") as caught:
            ask(service, system="s", user="u")
    assert "pass-word" not in caught.value.reason
    assert service.host == chat.url.removeprefix("http://").removesuffix("/v1")


def test_where_to_ask() -> None:
    official = find_service("m", 5, {"OPENAI_API_KEY": KEY})
    assert (official.host, official.key) == ("api.openai.com", KEY)
    local = find_service("m", 5, {"OPENAI_BASE_URL": "http://localhost:11434/v1"})
    with serve(lambda _: "fine") as chat:
        assert ask(Service("m", chat.url, 30, local.key), system="s", user="u") == "fine"
    with pytest.raises(ChatError, match="OPENAI_API_KEY is not set"):
        ask(find_service("m", 5, {"OPENAI_BASE_URL": " "}), system="s", user="u")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingError) as caught:
        ask(Service("m", "http://localhost", 1, KEY), system="s", user="u")
    assert caught.value.hint == "pip install openai"
