"""What a language model means by its answer: its words without their wrapping, or that it will not answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from .chat import printable

_THOUGHTS = re.compile(r"\s*<think>.*?(</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"\s*```\w*\n(.*?)```\s*", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»"}
_SENTENCES = re.compile(r".*[.!?][\"'”’)]?(?=\s|\Z)", re.DOTALL)
#: "I'm sorry, but I can't help with that", and not "I can't stop, says a sign". Apostrophes are straight.
_REFUSAL = re.compile(
    r"(?:(?:i'm|i am|we're|we are)?\s*(?:very |really |so )?sorry|i apologi[sz]e|unfortunately|as an ai)\b.{0,60}?"
    r"\b(?:can't|cannot|can not|won't|will not|unable|not able|not allowed|do not|don't)\b"
    r"|(?:i|we)(?:'m| am|'re| are)? ?(?:can't|cannot|can not|won't|will not|unable to|not able to)\s+"
    r"(?:\w+ly )?(?:assist|help|describe|provide|comply|fulfil|view|see|watch|access|identify|analy[sz]e|generate|"
    r"create|process|continue|discuss|engage|caption|translate|answer|determine|do|be|give|offer)\b",
    re.IGNORECASE,
)


def without_thoughts(answer: str) -> str:
    """The answer without what a reasoning model says to itself before it."""
    return _THOUGHTS.sub("", answer, count=1)


def one_line(answer: str) -> str:
    """The answer on one line, without thoughts before it and quotes around it."""
    text = printable(without_thoughts(answer))
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def is_refusal(text: str) -> bool:
    """Whether a model says that it will not or cannot answer."""
    return _REFUSAL.match(text.strip().replace("’", "'")) is not None


def whole_sentences(text: str) -> str:
    """The sentences of a text that is cut off, without the unfinished last one; empty when there is no other."""
    found = _SENTENCES.match(text)
    return found[0].strip() if found else ""


def read_fields(answer: str, fields: Sequence[str]) -> str:
    """The values of a JSON object as sentences, in the order of `fields`.

    Raises ValueError, with a reason for the user, for any other answer.
    """
    text = without_thoughts(answer)
    fence = _FENCE.fullmatch(text)
    try:
        content = json.loads(fence[1] if fence else text)
    except ValueError as error:
        raise ValueError("the answer is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError("the answer is no JSON object")
    sentences = []
    for field in fields:
        value = content.get(field)
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        if not isinstance(words, str):
            raise ValueError(f"the answer lacks {field!r}")
        sentence = printable(words)
        if sentence:
            sentences.append(sentence if sentence[-1] in ".!?" else f"{sentence}.")
    return " ".join(sentences)
