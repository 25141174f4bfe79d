"""One question to a language model behind an OpenAI-compatible chat-completions service, and what can go wrong.

The key is read from the environment, goes into the request and nowhere else: every text that comes from the service is
looked through for it before anybody sees it.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
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


class ChatError(Exception):
    """There is no usable answer. reason: why, for the user; is_lasting: another question would fare no better."""

    def __init__(self, reason: str, *, is_lasting: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_lasting = reason, is_lasting


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
    if not service.key:
        raise ChatError("OPENAI_API_KEY is not set, nor OPENAI_BASE_URL for a service without keys", is_lasting=True)
    try:
        import openai
    except ImportError as error:
        raise MissingError("prompts are refined with the package openai", hint="pip install openai") from error
    content: Any = user
    if picture is not None:
        url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        content = [{"type": "text", "text": user}, {"type": "image_url", "image_url": {"url": url}}]
    messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    outcome: list[Any] = []

    def request() -> None:
        try:
            with openai.OpenAI(
                api_key=service.key,
                base_url=service.url,
                timeout=service.timeout_seconds,
                max_retries=RETRIES,
            ) as client:
                outcome.append(client.chat.completions.create(model=service.model, messages=messages))
        except Exception as error:
            outcome.append(error)

    # The client's own limit is for each piece that arrives and each try; in a thread, for all of them together.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(service.timeout_seconds)
    if not outcome:
        raise ChatError(f"no answer within {service.timeout_seconds:g} s", is_lasting=True)
    if isinstance(outcome[0], Exception):
        raise _reason(outcome[0], service) from None
    answer = _text_of(outcome[0], service)
    if service.gives_away(answer):
        raise ChatError("the answer repeats the key or the address")
    return answer


def _reason(error: Exception, service: Service) -> ChatError:
    """What a failure of the client means. Its own text is not used: it may quote the request."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return ChatError(f"no answer within {service.timeout_seconds:g} s", is_lasting=True)
    if isinstance(error, openai.APIConnectionError):
        return ChatError(f"cannot reach {service.host}", is_lasting=True)
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
    return ChatError(f"{meanings.get(code, 'the service failed')} (HTTP {code}){said}", is_lasting=code in meanings)


def _text_of(completion: Any, service: Service) -> str:
    """The client does not check what arrives, so anything may be missing or of another kind."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise ChatError(f"what {service.host} answered is no chat completion")
    refusal = getattr(message, "refusal", None)
    finish = getattr(choice, "finish_reason", None)
    if refusal or finish == "content_filter":
        raise ChatError(f"the model refused{_said(refusal, service)}")
    if finish == "length":
        raise ChatError("the answer was cut off")
    content = getattr(message, "content", None)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content.strip():
        raise ChatError("the answer is empty")
    return content


def _said(words: Any, service: Service) -> str:
    """ ": " and a service's own words on one line, cut to a length; nothing when they hold a secret."""
    if not isinstance(words, str) or service.gives_away(words):
        return ""
    line = printable(words)
    return f": {line[:MOST_SAID]}" if line else ""


def printable(text: str) -> str:
    """A text on one line: blanks joined, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
