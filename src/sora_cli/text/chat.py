"""Questions to a language model behind an OpenAI-compatible chat-completions service, and what can go wrong.

The key is read from the environment, goes into the request and nowhere else: every text that comes from the service is
looked through for it before anybody sees it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from sora_cli.errors import MissingError

DEFAULT_URL = "https://api.openai.com/v1"
#: For services on this machine, which ask for none but whose client wants one.
NO_KEY = "none"
#: Once more after a failure that may pass: more makes a user wait for nothing.
RETRIES = 1
#: Letters of a secret in a row that give it away; shorter secrets than the second are placeholders.
SECRET_PIECE, SHORTEST_SECRET = 8, 6
MOST_SAID = 200  # characters of a service's own words in a message
CUT_OFF = "the answer was cut off"


class Usage(NamedTuple):
    """Tokens that were counted by the service, 0 where it does not say."""

    prompt: int = 0
    answer: int = 0


class Reply(NamedTuple):
    """An answer. is_cut: it ends where the limit of its length was reached."""

    text: str
    is_cut: bool
    usage: Usage


class ChatError(Exception):
    """There is no usable answer.

    reason: why, for the user. is_lasting: another question would fare no better. may_pass: the same question may be
    answered later, after wait_seconds where the service says how long. usage: tokens that it took all the same.
    """

    def __init__(
        self, reason: str, *, is_lasting: bool = False, may_pass: bool = False, wait_seconds: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.is_lasting, self.may_pass, self.wait_seconds = reason, is_lasting, may_pass, wait_seconds
        self.usage = Usage()


class ChatTimeoutError(ChatError):
    """No answer came in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s", is_lasting=True, may_pass=True)


class UselessAnswerError(ChatError):
    """The service works, but its model gave nothing, or refused."""


@dataclass(frozen=True)
class Service:
    """Whom to ask. timeout_seconds: of a question as a whole, retries included."""

    model: str
    url: str
    timeout_seconds: float
    key: str = field(repr=False)

    @property
    def host(self) -> str:
        """Where it is, without user name and password, for messages."""
        try:
            return urlsplit(self.url).netloc.rpartition("@")[2] or "OPENAI_BASE_URL"
        except ValueError:
            return "OPENAI_BASE_URL"

    def gives_away(self, text: str) -> bool:
        """Whether a text holds the key, or what is secret in the address, or a good part of either."""
        try:
            parts = urlsplit(self.url)
            in_url = [parts.password or "", *(value for _, value in parse_qsl(parts.query))]
        except ValueError:
            in_url = [self.url]
        for secret in (self.key, *in_url):
            piece = min(SECRET_PIECE, len(secret))
            starts = range(len(secret) - piece + 1) if len(secret) >= SHORTEST_SECRET else ()
            if any(secret[start : start + piece] in text for start in starts):
                return True
        return False


def find_service(model: str, timeout_seconds: float, environ: Mapping[str, str] | None = None) -> Service:
    """The service that OPENAI_BASE_URL and OPENAI_API_KEY name; without the first, OpenAI's own."""
    environ = os.environ if environ is None else environ
    url = environ.get("OPENAI_BASE_URL", "").strip()
    key = environ.get("OPENAI_API_KEY", "").strip()
    return Service(model, url or DEFAULT_URL, timeout_seconds, key or (NO_KEY if url else ""))


def ask(service: Service, *, system: str, user: str, picture: bytes | None = None) -> str:
    """The text of the first choice. picture: a JPEG file for the model to look at.

    Raises ChatError when there is none, MissingError without the package openai. Ctrl-C works while waiting.
    """
    _check_key(service)
    openai = _openai("prompts are refined with")
    messages: Any = [{"role": "system", "content": system}, user_message(user, [] if picture is None else [picture])]

    def create() -> Any:
        with _client(openai, service, RETRIES) as client:
            return client.chat.completions.create(model=service.model, messages=messages)

    reply = _reply(_within(service, create), service)
    if reply.is_cut:
        raise ChatError(CUT_OFF)
    return reply.text


class Conversation:
    """A service that is asked many questions, by several threads at once."""

    def __init__(self, service: Service) -> None:
        """Raises ChatError without a key, MissingError without the package openai."""
        _check_key(service)
        self.service, self._client = service, _client(_openai("services are asked with"), service, 0)

    def ask(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> Reply:
        """The answer to one request. parameters: of a chat completion. Raises ChatError."""
        create = self._client.chat.completions.create
        return _reply(
            _within(self.service, lambda: create(model=self.service.model, messages=messages, **parameters)),
            self.service,
        )


def user_message(text: str, pictures: Sequence[bytes], *, detail: str | None = None) -> dict[str, Any]:
    """A message with JPEG files for the model to look at. detail: how closely, None for the service's choice."""
    if not pictures:
        return {"role": "user", "content": text}
    urls = [f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    extra = {} if detail is None else {"detail": detail}
    shown = [{"type": "image_url", "image_url": {"url": url, **extra}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *shown]}


def _check_key(service: Service) -> None:
    if not service.key:
        raise ChatError("OPENAI_API_KEY is not set, nor OPENAI_BASE_URL for a service without keys", is_lasting=True)


def _openai(what: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingError(f"{what} the package openai", hint="pip install openai") from error
    return openai


def _client(openai: Any, service: Service, retries: int) -> Any:
    try:
        return openai.OpenAI(
            api_key=service.key, base_url=service.url, timeout=service.timeout_seconds, max_retries=retries
        )
    except Exception as error:  # of an address that is none
        raise _reason(error, service) from None


def _within(service: Service, create: Callable[[], Any]) -> Any:
    """What the client gives, within the time of a question. Raises ChatError.

    The client's own limit is for each piece that arrives and each try; in a thread, for all of them together.
    """
    outcome: list[Any] = []

    def request() -> None:
        try:
            outcome.append(create())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(service.timeout_seconds)
    if not outcome:
        raise ChatTimeoutError(service.timeout_seconds)
    if isinstance(outcome[0], ChatError):
        raise outcome[0]
    if isinstance(outcome[0], Exception):
        raise _reason(outcome[0], service) from None
    return outcome[0]


def _reason(error: Exception, service: Service) -> ChatError:
    """What a failure of the client means. Its own text is not used: it may quote the request."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return ChatTimeoutError(service.timeout_seconds)
    if isinstance(error, openai.APIConnectionError):
        return ChatError(f"cannot reach {service.host}", is_lasting=True, may_pass=True)
    if not isinstance(error, openai.APIStatusError):
        return ChatError(f"the answer of {service.host} cannot be read ({type(error).__name__})")
    code = error.status_code
    meanings = {
        401: "the key is not accepted",
        403: "the key may not do this",
        404: f"there is no model {service.model}, or nothing that answers at this address",
        429: "the quota or the rate limit is used up",
    }
    body = error.body
    words = body.get("message") if isinstance(body, dict) else body
    said = _said(words, service)
    # A question that the service takes amiss (400, 413, 422) says nothing about the next one.
    return ChatError(
        f"{meanings.get(code, 'the service failed')} (HTTP {code}){said}",
        is_lasting=code in meanings,
        may_pass=(code in (408, 409, 429) or code >= 500) and getattr(error, "code", None) != "insufficient_quota",
        wait_seconds=_wait_seconds(error.response.headers),
    )


def _wait_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a service wants to be left alone: Retry-After (RFC 9110, 10.2.3), or the same in milliseconds."""
    with contextlib.suppress(ValueError):
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
    text = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    date = parsedate_tz(text)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())


def _reply(completion: Any, service: Service) -> Reply:
    """The client does not check what arrives, so anything may be missing or of another kind."""
    counted = getattr(completion, "usage", None)
    prompt, answer = (getattr(counted, name, None) for name in ("prompt_tokens", "completion_tokens"))
    usage = Usage(*(count if isinstance(count, int) else 0 for count in (prompt, answer)))
    try:
        text, is_cut = _text_of(completion, service)
        if service.gives_away(text):
            raise ChatError("the answer repeats the key or the address")
    except ChatError as error:
        error.usage = usage
        raise
    return Reply(text, is_cut, usage)


def _text_of(completion: Any, service: Service) -> tuple[str, bool]:
    """The text, and whether it is cut off."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise ChatError(f"what {service.host} answered is no chat completion")
    refusal = getattr(message, "refusal", None)
    finish = getattr(choice, "finish_reason", None)
    if refusal or finish == "content_filter":
        raise UselessAnswerError(f"the model refused{_said(refusal, service)}")
    content = getattr(message, "content", None)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content.strip():
        raise UselessAnswerError(CUT_OFF if finish == "length" else "the answer is empty")
    return content, finish == "length"


def _said(words: Any, service: Service) -> str:
    """ ": " and a service's own words on one line, cut to a length; nothing when they hold a secret."""
    if not isinstance(words, str) or service.gives_away(words):
        return ""
    line = printable(words)
    return f": {line[:MOST_SAID]}" if line else ""


def printable(text: str) -> str:
    """A text on one line: blanks joined, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
