"""What captioners are asked about a row: presets with slots, or the user's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_cli.errors import UnknownNameError, UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import load_preset
from sora_cli.text.refine import INSTRUCTIONS

#: Frames of a video that captioners are shown where nothing else is said.
FRAMES = 3
_SLOT = re.compile(r"\{(text|frames|language)\}")
MEDIA = {"image": "pictures", "video": "videos", "text": "captions"}


@dataclass(frozen=True)
class Prompt:
    """Words for pictures, for frames of videos and for captions, None where they are not for those.

    frames: of a video that are shown. fields: strings of the JSON object that is wanted, empty for plain text.
    """

    name: str
    image: str | None = None
    video: str | None = None
    text: str | None = None
    frames: int = FRAMES
    fields: Sequence[str] = ()

    def takes_caption(self) -> bool:
        """Whether the caption of the row is put into the words about files."""
        return any("{text}" in (words or "") for words in (self.image, self.video))

    def question(self, medium: str, slots: Mapping[str, str | None]) -> str:
        """The words about a row. medium: a key of `MEDIA`. slots: "text", its caption, and "language".

        Raises ValueError, with a reason for the user, where the prompt is not for the row.
        """
        words = getattr(self, medium)
        if words is None:
            for_them = " and ".join(name for each, name in MEDIA.items() if getattr(self, each) is not None)
            raise ValueError(f"the prompt {self.name} is for {for_them} only")
        if "{text}" in words and not (slots.get("text") or "").strip():
            raise ValueError("it has no caption, which the prompt takes")
        values = {"frames": "one frame" if self.frames == 1 else f"{self.frames} frames", **slots}
        return _SLOT.sub(lambda slot: values.get(slot[1]) or slot[0], words)


def find_prompt(given: str, *, frames: int | None = None, is_about_text: bool = False) -> Prompt:
    """The prompt that a user means: the name of a preset, words, or @FILE with words. frames: instead of its own.

    Words are for pictures and videos alike, or for captions. Raises UsageError.
    """
    content: Mapping[str, Any]
    name = given
    if given.startswith("@"):
        content, name = _same_words(_file_words(Path(given[1:]).expanduser()), is_about_text), Path(given[1:]).name
    else:
        try:
            content = load_preset("caption", given, get_plugins())
        except UnknownNameError:
            if not re.search(r"\s|[{\[]", given):  # a name that is spelled wrongly, and no words
                raise
            content, name = _same_words(given, is_about_text), "of your own"
    examples = _examples(content.get("examples", 0))
    media = {medium: content[medium].strip() + examples for medium in MEDIA if content.get(medium)}
    prompt = Prompt(name, **media, frames=frames or content.get("frames", FRAMES), fields=content.get("fields", ()))
    wanted = ("text",) if is_about_text else ("image", "video")
    if not set(wanted) & set(media):
        raise UsageError(f"the prompt {name} is for {', '.join(MEDIA[medium] for medium in media)} only")
    return prompt


def _same_words(words: str, is_about_text: bool) -> dict[str, Any]:
    return {"text": words} if is_about_text else {"image": words, "video": words}


def _file_words(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the prompt {path}: {error}") from error
    if not words:
        raise UsageError(f"the prompt {path} is empty")
    return words


def _examples(count: int) -> str:
    """The first examples of good descriptions, which refining of prompts uses too."""
    if not count:
        return ""
    lines = (INSTRUCTIONS / "examples.txt").read_text(encoding="utf-8").strip().splitlines()
    return "\n\n".join(["\n\nExamples of good descriptions, of other videos:", *lines[2 : 2 + count]])
