"""Scenes as text in a table: `[('00:00:00.000', '00:00:01.200'), ...]`, and which parts of a file become clips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import Any

_TIME = r"['\"](\d{2,}):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?['\"]"
_PAIR = re.compile(rf"[(\[]\s*{_TIME}\s*,\s*{_TIME}\s*[)\]]")
_LIST = re.compile(rf"\s*\[\s*(?:{_PAIR.pattern}\s*(?:,\s*{_PAIR.pattern}\s*)*,?\s*)?\]\s*")

Scene = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class SceneRules:
    """Which scenes become clips, and of what length. Seconds; None for no limit.

    splits_long: cut scenes longer than the limit into several clips of that length; otherwise their beginning is kept.
    """

    min_seconds: float | None = None
    max_seconds: float | None = None
    splits_long: bool = False


@dataclass(frozen=True)
class Segment:
    """A part of a file. index: of its scene among all scenes of the file; part: of the scene, None when it is whole.

    start, end: seconds; end is None for the end of the file.
    """

    index: int
    start: Fraction
    end: Fraction | None
    part: int | None = None

    @property
    def name(self) -> str:
        """What is added to the name of the file."""
        return f"_scene-{self.index}" + ("" if self.part is None else f"-{self.part}")


def parse_scenes(text: Any) -> list[Scene] | None:
    """(start, end) in seconds of each scene, None for anything but a list of pairs of times. Nothing is evaluated."""
    if not isinstance(text, str) or _LIST.fullmatch(text) is None:
        return None
    return [(_seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])) for found in _PAIR.finditer(text)]


def format_scenes(scenes: Iterable[tuple[Fraction | float, Fraction | float]]) -> str:
    """The text of scenes, in milliseconds, as the reference writes it."""
    return str([(_clock(start), _clock(end)) for start, end in scenes])


def segments(scenes: list[Scene] | None, rules: SceneRules) -> list[Segment]:
    """The parts of a file that become clips. scenes: None where nothing is known of them, for the whole file."""
    if scenes is None:
        return [Segment(0, Fraction(0), None)]
    found = []
    for index, (start, end) in enumerate(scenes):
        length = end - start
        if length <= 0 or (rules.min_seconds is not None and length < Fraction(str(rules.min_seconds))):
            continue
        most = length if rules.max_seconds is None else Fraction(str(rules.max_seconds))
        if not rules.splits_long or length <= most:
            found.append(Segment(index, start, start + min(length, most)))
            continue
        for part in range(-(-length // most)):
            first = start + part * most
            last = min(first + most, end)
            if rules.min_seconds is None or last - first >= Fraction(str(rules.min_seconds)):
                found.append(Segment(index, first, last, part))
    return found


def clip_name(row: Mapping[str, Any], segment: Segment) -> str:
    """Name of a clip below the folder of clips."""
    return file_name(row, segment.name)


def file_name(row: Mapping[str, Any], suffix: str = "") -> str:
    """Name of a file that is made of a row's: the stem of that one, in the folder that `relpath` names."""
    folder = PurePath(row.get("relpath") or "").parent
    if folder.is_absolute() or ".." in folder.parts:
        folder = PurePath()
    return str(folder / f"{PurePath(row['path']).stem}{suffix}.mp4")


def scaled_size(height: int, width: int, shorter_size: int | None) -> tuple[int, int]:
    """(height, width) of a clip: not enlarged, even, and with the given shorter side when it was larger."""
    if shorter_size is not None and min(height, width) > shorter_size:
        scale = Fraction(shorter_size, min(height, width))
        height, width = (_even(side * scale) for side in (height, width))
    return max(2, height // 2 * 2), max(2, width // 2 * 2)


def _even(side: Fraction) -> int:
    """The nearest even number."""
    return 2 * round(side / 2)


def _seconds(hours: str, minutes: str, seconds: str, decimals: str | None) -> Fraction:
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(f"{seconds}.{decimals or 0}")


def _clock(seconds: Fraction | float) -> str:
    thousandths = round(Fraction(seconds) * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
