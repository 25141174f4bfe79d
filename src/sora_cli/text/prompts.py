"""Prompts: reading them, the settings that may follow one as JSON, and loop segments. Pure Python."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from sora_cli.config.schema import Refinement

#: Keys that may follow a prompt as JSON, and the name each stands for.
KEYS = {
    "reference_path": "reference_path",
    "mask_strategy": "mask_strategy",
    "ms": "mask_strategy",
    "aes": "aes",
    "motion": "motion",
    "flow": "motion",
    "camera": "camera",
    "camera_motion": "camera",
}
SEGMENT_FORM = "the form is |0|first|2|second"
_NUMBERS = ("aes", "motion")
#: A brace followed by one of the keys: the writer meant settings, so text that does not parse is a mistake.
_MEANT_AS_SETTINGS = re.compile(r"\{\s*['\"]?(?:" + "|".join(KEYS) + r")['\"]?\s*:")


@dataclass(frozen=True)
class Prompt:
    """One prompt. settings: values given in its JSON under the names of `KEYS`' right side; None means "none".

    raw: as written, with its JSON. refined: what a language model made of it, where one was asked.
    """

    text: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    raw: str = field(default="", compare=False)
    refined: Refinement | None = None

    @property
    def sent(self) -> str:
        """The text that the clip is made from, scores aside."""
        return (self.refined.text if self.refined else None) or self.text


def read_prompts(
    prompts: Sequence[str],
    file: str | None,
    start_index: int = 0,
    end_index: int | None = None,
    *,
    may_be_missing: bool = False,
) -> list[str]:
    """The prompts as written, still with their JSON.

    Prompts given as arguments win over the file. A file has one prompt a line; "-" is standard input. Lines are
    stripped, empty ones kept, then cut to [start_index:end_index] by Python's rules; arguments are not cut.
    may_be_missing: neither prompts nor a file are one empty prompt. Raises UsageError when there is no prompt at all.
    """
    if prompts:
        return list(prompts)
    if file is None:
        if may_be_missing:
            return [""]
        raise UsageError("no prompt", hint='for example: sora generate "a waterfall", or --prompt-file prompts.txt')
    name = "standard input" if file == "-" else file
    lines = [line.strip() for line in _read_text(file, name).split("\n")]
    if lines[-1] == "":  # what follows the last line break is not a line
        lines.pop()
    chosen = lines[start_index:end_index]
    if not chosen:
        where = f" in lines {start_index}:{'' if end_index is None else end_index}" if lines else ""
        raise UsageError(f"no prompt{where} of {name}", hint="write one prompt a line")
    return chosen


def check_text(text: str) -> None:
    """UsageError for text with bytes or code points that are no characters, which no encoder and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="backslashreplace").decode()
        raise UsageError(f"not valid Unicode text: {shown!r} (character {error.start})", hint="use UTF-8") from None


def _read_text(file: str, name: str) -> str:
    """The text of a prompt file with "\\n" line breaks; other Unicode separators stay inside a prompt."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(os.path.expanduser(file)).read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read the prompt file {name}: {error.strerror}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_prompt(raw: str) -> Prompt:
    """Split `text{"key": value, ...}` into text and settings; the text is kept as written, not stripped.

    The settings are the first `{` from which everything to the end is a JSON object; other braces are ordinary text.
    Raises UsageError for an unknown key, a value of the wrong kind, a tail that was meant as settings and is not valid
    JSON, and settings in two pieces.
    """
    start, tail = _settings_tail(raw)
    if tail is not None:
        text = raw[:start]
        if _settings_tail(text)[1] is not None or _MEANT_AS_SETTINGS.search(text):
            raise UsageError(f"the prompt {raw!r} has settings twice", hint="put them all into one { } at its end")
        return Prompt(text, _check_settings(tail, raw), raw)
    meant = _MEANT_AS_SETTINGS.search(raw)
    if meant:
        try:
            json.loads(raw[meant.start() :])
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"the settings at the end of the prompt are not valid JSON: {raw[meant.start() :]}",
                hint=f'{error}\nthe form is: text{{"aes": 6.5, "camera": "pan left"}}',
            ) from None
    return Prompt(raw, raw=raw)


def _settings_tail(raw: str) -> tuple[int, dict[str, Any] | None]:
    """Where the first `{` is from which everything to the end is a JSON object, and that; None without one."""
    for match in re.finditer(r"\{", raw):
        try:
            tail = json.loads(raw[match.start() :])
        except (ValueError, RecursionError):  # the latter of hundreds of braces in each other
            continue
        if isinstance(tail, dict):
            return match.start(), tail
    return len(raw), None


def _check_settings(given: Mapping[str, Any], raw: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in given.items():
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or f"known: {', '.join(sorted(KEYS))}"
            raise UsageError(f"unknown key {key!r} in the settings of the prompt {raw!r}", hint=hint)
        name = KEYS[key]
        if name in settings:
            raise UsageError(f"{name!r} is given twice in the settings of the prompt {raw!r}")
        if value is not None and not (_is_score(value) if name in _NUMBERS else isinstance(value, str)):
            kind = "a number from 0 on" if name in _NUMBERS else "a string"
            raise UsageError(f"{key!r} in the settings of the prompt {raw!r} must be {kind}, not {json.dumps(value)}")
        settings[name] = value
    return settings


def _is_score(value: Any) -> bool:
    # The limit also keeps out what JSON calls NaN and Infinity, and whole numbers that no float holds.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= sys.float_info.max


@dataclass(frozen=True)
class Segment:
    """Text used from loop `start` on."""

    start: int
    text: str


def part_texts(text: str, count: int) -> list[str]:
    """The text of each of `count` parts of a video; see `split_segments`."""
    segments = split_segments(text)
    return [[each.text for each in segments if each.start <= part][-1] for part in range(count)]


def split_segments(text: str) -> list[Segment]:
    """The texts of `|0|first|2|second`, by the loop each starts at; a prompt without `|0|` in front is one segment.

    Raises UsageError for a number that is not an integer, numbers that do not rise, or a number without a text.
    """
    if not text.startswith("|0|"):
        return [Segment(0, text)]
    parts = text.split("|")[1:]
    if len(parts) % 2:
        raise UsageError(f"segment {parts[-1]!r} has no text in the prompt {text!r}", hint=SEGMENT_FORM)
    segments: list[Segment] = []
    for number, words in zip(parts[::2], parts[1::2], strict=True):
        try:
            start = int(number)
        except ValueError:
            raise UsageError(f"{number!r} is not a segment number in the prompt {text!r}", hint=SEGMENT_FORM) from None
        if segments and start <= segments[-1].start:
            raise UsageError(f"segment {start} follows segment {segments[-1].start} in the prompt {text!r}")
        segments.append(Segment(start, words.strip()))
    return segments


def join_segments(segments: Sequence[Segment]) -> str:
    """The prompt that `split_segments` splits into these, whose texts hold no `|`."""
    if len(segments) == 1:
        return segments[0].text
    return "".join(f"|{segment.start}|{segment.text}" for segment in segments)
