"""A model behind an OpenAI-compatible service (OpenAI's own, vLLM, Ollama ...), through the official client.

OPENAI_API_KEY and OPENAI_BASE_URL say whom to ask.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from sora_cli.errors import StopError, UsageError
from sora_cli.plugin.protocols import CaptionAnswer, CaptionQuestion
from sora_cli.text.chat import (
    DEFAULT_URL,
    ChatError,
    ChatTimeoutError,
    Conversation,
    UselessAnswerError,
    find_service,
    user_message,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Seconds before the second try, doubled before each further one up to the most.
FIRST_WAIT, MOST_WAIT = 0.5, 60.0
#: A service that wants to be left alone for longer is not waited for.
LONGEST_PAUSE = 600.0
#: Advice where no service is named.
WHOM_TO_ASK = (
    "export OPENAI_API_KEY=KEY for OpenAI; OPENAI_BASE_URL=http://localhost:8000/v1 for another service\n"
    "--captioner transformers runs a model on this machine"
)
#: Questions in a row that fail for reasons of the service before the run stops.
MOST_FAILURES = 10


class Options(BaseModel):
    """Options of a service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Those that change no answer.
    WITHOUT_EFFECT: ClassVar = (
        *("in_flight", "requests_per_minute", "timeout_seconds", "retries", "price_prompt", "price_answer"),
    )

    model: str = Field("gpt-4o", description="name of the model")
    in_flight: int = Field(8, ge=1, description="requests under way at a time")
    requests_per_minute: float | None = Field(None, gt=0, description="most requests a minute; default no limit")
    timeout_seconds: float = Field(120.0, gt=0, description="how long to wait for an answer")
    retries: int = Field(6, ge=0, description="more tries after rate limits, failures and time limits")
    max_tokens: int = Field(300, ge=1, description="longest answer")
    temperature: float | None = Field(
        None, ge=0, description="default the service's; 0 always takes the likeliest word"
    )
    detail: Literal["low", "high", "auto"] | None = Field(None, description="how closely the model looks at pictures")
    jpeg_quality: int = Field(90, ge=1, le=100, description="of the pictures that are sent")
    json_schema: bool = Field(True, description="make the service keep to the fields of a prompt that has some")
    price_prompt: float | None = Field(None, ge=0, description="price of a million tokens of questions")
    price_answer: float | None = Field(None, ge=0, description="price of a million tokens of answers")


class Pace:
    """When the next request may be sent: at most so many a minute, and not while the service wants to be left alone."""

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next = self._paused_until = 0.0

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            turn = max(self._clock(), self._next)
            self._next = turn + self._interval
        # Another thread may be told to pause meanwhile.
        while (left := max(turn, self._paused_until) - self._clock()) > 0:
            self._sleep(left)

    def pause(self, seconds: float) -> None:
        """Let no request go for so long."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def back_off(self, tries: int) -> None:
        """Keep the one that calls it waiting, longer after every try, and not as long as others."""
        self._sleep(min(MOST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * random.uniform(0.75, 1.0))


class ServiceCaptioner:
    """Behind the interface of `sora_cli.plugin.protocols.Captioner`; several threads may call it."""

    def __init__(self, conversation: Conversation, options: Options, pace: Pace) -> None:
        self.conversation, self.options, self.pace = conversation, options, pace
        self._failures = 0

    def __call__(self, questions: Sequence[CaptionQuestion]) -> list[CaptionAnswer]:
        """See the protocol. Raises StopError when other questions would not be answered either."""
        return [self._answer(self._parameters(question)) for question in questions]

    def _answer(self, parameters: Mapping[str, Any]) -> CaptionAnswer:
        requests = 0
        while True:
            self.pace.wait()
            requests += 1
            try:
                reply = self.conversation.ask(**parameters)
            except ChatError as error:
                if self._may_try_again(error, requests):
                    continue
                self._stop_if_useless(error)
                return CaptionAnswer(None, error.reason, False, requests, *error.usage)
            self._failures = 0
            return CaptionAnswer(reply.text, None, reply.is_cut, requests, *reply.usage)

    def _may_try_again(self, error: ChatError, requests: int) -> bool:
        """Whether the question should be asked again; it waits before that."""
        if not error.may_pass or requests > self.options.retries:
            return False
        if error.wait_seconds is None:
            self.pace.back_off(requests)
        elif error.wait_seconds > LONGEST_PAUSE:
            return False
        else:
            self.pace.pause(error.wait_seconds)
        return True

    def _stop_if_useless(self, error: ChatError) -> None:
        if isinstance(error, UselessAnswerError):
            self._failures = 0
            return
        self._failures += 1
        hint = "the same command goes on with the rows that are not done"
        if error.is_lasting and not isinstance(error, ChatTimeoutError):
            raise StopError(error.reason, hint=hint)
        if self._failures >= MOST_FAILURES:
            raise StopError(f"{self._failures} questions in a row failed: {error.reason}", hint=hint)

    def _parameters(self, question: CaptionQuestion) -> dict[str, Any]:
        """Of a chat completion."""
        options = self.options
        pictures = [jpeg(frame, options.jpeg_quality) for frame in question.frames]
        # OpenAI's own models want another name for the limit than the services that are like it.
        limit = "max_completion_tokens" if self.conversation.service.url == DEFAULT_URL else "max_tokens"
        parameters: dict[str, Any] = {
            "messages": [user_message(question.text, pictures, detail=options.detail)],
            limit: options.max_tokens,
        }
        if options.temperature is not None:
            parameters["temperature"] = options.temperature
        if question.fields and options.json_schema:
            schema = {
                "type": "object",
                "properties": {name: {"type": "string"} for name in question.fields},
                "required": list(question.fields),
                "additionalProperties": False,
            }
            described = {"name": "description", "strict": True, "schema": schema}
            parameters["response_format"] = {"type": "json_schema", "json_schema": described}
        return parameters


def jpeg(frame: NDArray[np.uint8], quality: int) -> bytes:
    """A frame (H, W, 3) RGB as a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return file.getvalue()


def load(weights: Mapping[str, Any], device: Any, options: Options | None) -> ServiceCaptioner:
    """Ready to ask. Raises UsageError when nobody says whom."""
    options = options or Options()
    try:
        conversation = Conversation(find_service(options.model, options.timeout_seconds))
    except ChatError as error:
        raise UsageError(error.reason, hint=WHOM_TO_ASK) from None
    return ServiceCaptioner(conversation, options, Pace(options.requests_per_minute))
