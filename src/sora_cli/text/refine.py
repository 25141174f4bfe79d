"""Prompts rewritten by a language model, and motion scores that it suggests. Answers are kept on disk.

A model of videos is trained on long descriptions, so a few words give less than it can do. What the language model is
told is in the folder `instructions`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from sora_cli.console import get_console

from .answers import one_line, without_thoughts
from .chat import ChatError, Service, ask, printable

#: video: text to video; image: a single frame; picture: a video from a picture, which the model sees.
Kind = Literal["video", "image", "picture"]
Answer = TypeVar("Answer", str, int)
INSTRUCTIONS = Path(__file__).parent / "instructions"
#: About what 300 tokens hold, the most that the released models read.
MOST_CHARACTERS = 1500
MOST_MOTION = 100
#: Letters that the prompt syntax reads as settings and segments.
_SYNTAX = str.maketrans(dict.fromkeys("{}|", " "))


class Refiner:
    """Asks for the prompts of one run, each question once. may_ask: False takes only what is on disk."""

    def __init__(self, service: Service, *, may_ask: bool = True) -> None:
        self.service, self.may_ask = service, may_ask
        self._is_down = False
        self._unanswered: set[str] = set()

    def prompt(self, text: str, kind: Kind, *, picture: bytes | None = None, idea: int = 0) -> str | None:
        """The text rewritten, or for an empty one a new prompt; None, with a warning, where there is no good answer.

        picture: JPEG file of the clip's first picture. idea: number of the new prompt; each number is another one.
        """
        if text.strip():
            task, user, what = "rewrite", text.strip(), f"the prompt {shorten(text)!r} is not refined"
        else:
            task, user, what = "invent", f"Write prompt number {idea}.", "no prompt is made up"
        system = "\n\n".join(_instruction(name) for name in (task, kind, "examples"))
        answer = self._answer(system, user, picture, clean_answer, what)
        if answer is not None:
            get_console().note(f"refined by {self.service.model}: {answer}")
        return answer

    def motion(self, text: str, *, picture: bytes | None = None) -> int | None:
        """A motion score from 0 to 100 that suits the text; None, with a warning, where there is no good answer."""
        what = f"no motion score is chosen for {shorten(text)!r}"
        answer = self._answer(_instruction("motion"), text.strip(), picture, motion_score, what)
        if answer is not None:
            get_console().note(f"motion score chosen by {self.service.model}: {answer}")
        return answer

    def _answer(
        self, system: str, user: str, picture: bytes | None, read: Callable[[str], Answer], what: str
    ) -> Answer | None:
        """A kept or a new answer as `read` takes it. what: happens without one, for messages."""
        path = self._kept_path(system, user, picture)
        kept = _kept(path)
        if kept is not None:
            with contextlib.suppress(ChatError):  # a damaged file is written again
                return read(kept)
        if not self.may_ask:
            get_console().note(f"{what}: {self.service.model} was not asked before, and a dry run asks nobody")
            return None
        if self._is_down or path.name in self._unanswered:
            return None
        get_console().note(f"asking {self.service.model} at {self.service.host} ...")
        try:
            answer = ask(self.service, system=system, user=user, picture=picture)
            result = read(answer)
        except ChatError as error:
            self._unanswered.add(path.name)
            self._is_down = error.is_lasting
            rest = f"; {self.service.host} is not asked again in this run" if error.is_lasting else ""
            get_console().warn(f"{what}: {error.reason}{rest}")
            return None
        _keep(path, {"model": self.service.model, "asked": user, "answer": str(result)})
        return result

    def _kept_path(self, system: str, user: str, picture: bytes | None) -> Path:
        """The file of an answer: another one for all that the answer depends on."""
        seen = None if picture is None else hashlib.sha256(picture).hexdigest()
        question = json.dumps([self.service.model, self.service.url, system, user, seen])
        return cache_folder() / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"


def clean_answer(answer: str) -> str:
    """The prompt in an answer: on one line, without quotes around it, within the length, safe for the prompt syntax.

    Raises ChatError when nothing is left.
    """
    text = one_line(answer.translate(_SYNTAX))
    if not any(letter.isalnum() for letter in text):
        raise ChatError("the answer is empty")
    return _cut(text)


def motion_score(answer: str) -> int:
    """The motion score in an answer, which must be one whole number from 0 to 100. Raises ChatError."""
    text = printable(without_thoughts(answer)).strip(" .\"'`*")
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > MOST_MOTION:
        raise ChatError(f"the answer {shorten(text)!r} is no whole number from 0 to {MOST_MOTION}")
    return int(text)


def shorten(text: str) -> str:
    """The start of a text, for messages."""
    line = printable(text)
    return line if len(line) <= 60 else f"{line[:57]}..."


def cache_folder() -> Path:
    """Where answers are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(os.path.expanduser(base)) / "sora" / "refined"


def _cut(text: str) -> str:
    """The text up to the last whole sentence, else the last whole word, within `MOST_CHARACTERS`."""
    if len(text) <= MOST_CHARACTERS:
        return text
    start = text[:MOST_CHARACTERS]
    sentences = re.match(r".*[.!?](?=\s)", start)
    return sentences[0] if sentences else start.rpartition(" ")[0] or start


def _instruction(name: str) -> str:
    return (INSTRUCTIONS / f"{name}.txt").read_text(encoding="utf-8").strip()


def _kept(path: Path) -> str | None:
    """A kept answer; None without one, or with a damaged file, which is written again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    answer = content.get("answer") if isinstance(content, dict) else None
    return answer if isinstance(answer, str) and answer else None


def _keep(path: Path, content: dict[str, str]) -> None:
    """Write an answer down, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        get_console().warn(f"the answer cannot be kept in {path.parent}: {error.strerror}")
