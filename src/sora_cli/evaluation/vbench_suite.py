"""The prompt suites of VBench: which prompts each dimension is measured on, and how the clips are called.

Pure Python, and `vbench` is never imported: of its package only the suite file is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, Literal

from sora_cli.errors import MissingError, SoraError, UsageError, unknown_name

SuiteName = Literal["t2v", "i2v"]
#: Clips that are made of each prompt.
SAMPLES = 5
#: The dimensions in the order of the reference, whose positions can be given instead of names.
DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "t2v": (
        "subject_consistency",
        "imaging_quality",
        "background_consistency",
        "motion_smoothness",
        "overall_consistency",
        "human_action",
        "multiple_objects",
        "spatial_relationship",
        "object_class",
        "color",
        "aesthetic_quality",
        "appearance_style",
        "temporal_flickering",
        "scene",
        "temporal_style",
        "dynamic_degree",
    ),
    "i2v": (
        "i2v_subject",
        "i2v_background",
        "camera_motion",
        "subject_consistency",
        "background_consistency",
        "motion_smoothness",
        "dynamic_degree",
        "aesthetic_quality",
        "imaging_quality",
        "temporal_flickering",
    ),
}
#: Of i2v those that compare with the picture or the prompt; the others are those of t2v.
I2V_ONLY = DIMENSIONS["i2v"][:3]
#: The suite file inside the package `vbench`; it has none for i2v.
PACKAGE, PACKAGE_FILE = "vbench", "VBench_full_info.json"
#: The folders with the pictures of i2v, one for each shape (width-height); files have the same names in all.
CROPS = ("1-1", "8-5", "7-4", "16-9")


@dataclass(frozen=True)
class Entry:
    """One prompt of a suite. position: in the file; image_name: of the picture that an i2v clip starts with."""

    position: int
    prompt: str
    dimensions: tuple[str, ...]
    image_name: str | None
    raw: Mapping[str, Any]
    """The object as it is in the file."""

    def file_name(self, sample: int, suffix: str = ".mp4") -> str:
        """The name of clip `sample`, counted from 0."""
        return file_name(self.prompt, sample, suffix)


@dataclass(frozen=True)
class Suite:
    """A suite as read from `path`."""

    name: SuiteName
    path: Path
    entries: tuple[Entry, ...]

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """Those that have prompts, in the order of `DIMENSIONS`."""
        used = {dimension for entry in self.entries for dimension in entry.dimensions}
        return tuple(dimension for dimension in DIMENSIONS[self.name] if dimension in used)

    @cached_property
    def unique(self) -> tuple[Entry, ...]:
        """The first entry of each prompt: entries that share a prompt share its clips."""
        return tuple({entry.prompt: entry for entry in reversed(self.entries)}.values())[::-1]

    def of(self, dimension: str) -> tuple[Entry, ...]:
        """The entries that a dimension is measured on."""
        return tuple(entry for entry in self.entries if dimension in entry.dimensions)

    def file_names(self, dimension: str | None = None, samples: int = SAMPLES, suffix: str = ".mp4") -> list[str]:
        """The names of all clips of a dimension, or of the whole suite, each once."""
        entries = self.unique if dimension is None else self.of(dimension)
        names = (entry.file_name(sample, suffix) for entry in entries for sample in range(samples))
        return list(dict.fromkeys(names))


def file_name(prompt: str, sample: int, suffix: str = ".mp4") -> str:
    """The name by which VBench looks for clip `sample` of a prompt, counted from 0."""
    return f"{prompt}-{sample}{suffix}"


def prompt_of(path: str) -> str:
    """The prompt that a file of any name stands for: without ending, and without "-" and digits at the end."""
    return re.sub(r"-\d+$", "", PurePath(path).stem)


def load_suite(name: SuiteName, path: Path | None = None) -> Suite:
    """The suite in a file, or, for t2v, in the installed package.

    Raises MissingError when no file is given and none is installed, UsageError for a file that is absent or another
    suite, SoraError for one that is damaged.
    """
    if path is None:
        path = _installed(name)
    if not path.is_file():
        raise UsageError(f"no suite file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoraError(f"cannot read the suite {path}: {error}") from error
    if not isinstance(content, list) or not content:
        raise SoraError(f"{path} is no suite: it is to be a JSON list of prompts")
    entries = tuple(_entry(path, position, raw) for position, raw in enumerate(content))
    _check_dimensions(name, path, entries)
    return Suite(name, path, entries)


def choose_dimensions(name: SuiteName, words: Iterable[str]) -> tuple[str, ...]:
    """Dimensions by name or by position in `DIMENSIONS` ("3", or "2:6", half-open), in that order; all without words.

    Raises UsageError for others.
    """
    known = DIMENSIONS[name]
    chosen: set[str] = set()
    for word in words:
        chosen.update(_named(known, word.strip()))
    return tuple(each for each in known if each in chosen) if chosen else known


def closest_crop(width: int, height: int) -> str:
    """The folder of i2v pictures whose shape is closest to that of a clip."""

    def distance(crop: str) -> float:
        across, down = map(int, crop.split("-"))
        return abs(math.log(width / height * down / across))

    return min(CROPS, key=distance)


def _named(known: tuple[str, ...], word: str) -> tuple[str, ...]:
    if word in known:
        return (word,)
    first, is_range, last = word.partition(":")
    try:
        start = int(first) if first or not is_range else 0
        # As in the reference, an end of -1 is the last, that one included, and one beyond the list is allowed.
        end = int(last) if last and last != "-1" else len(known) if is_range else start + 1
    except ValueError:
        raise unknown_name("dimension", word, known) from None
    found = known[start:end] if start >= 0 else ()
    if not found:
        raise UsageError(f"no dimension at {word}", hint=f"positions are 0 to {len(known) - 1}, a range is 2:6")
    return found


def _installed(name: SuiteName) -> Path:
    spec = find_spec(PACKAGE) if name == "t2v" else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / PACKAGE_FILE).is_file():
            return path
    if name == "i2v":
        where = "it is vbench2_beta_i2v/vbench2_i2v_full_info.json of https://github.com/Vchitect/VBench"
    else:
        where = f"it is {PACKAGE}/{PACKAGE_FILE} of the package: pip install --no-deps vbench==0.1.5"
    raise MissingError(
        f"the list of prompts of VBench ({name}) is not here", hint=f"give it with --suite FILE; {where}"
    )


def _entry(path: Path, position: int, raw: Any) -> Entry:
    where = f"{path}, entry {position}"
    if not isinstance(raw, dict) or not isinstance(raw.get("prompt_en"), str) or not raw["prompt_en"].strip():
        raise SoraError(f"{where}: no prompt_en")
    prompt, dimensions, image = raw["prompt_en"], raw.get("dimension"), raw.get("image_name")
    if not isinstance(dimensions, list) or not dimensions or not all(isinstance(each, str) for each in dimensions):
        raise SoraError(f"{where}: dimension is to be a list of names")
    if "/" in prompt or "\0" in prompt:
        raise SoraError(f"{where}: a prompt with a slash cannot be the name of a file")
    if not isinstance(raw.get("auxiliary_info", {}), dict):
        raise SoraError(f"{where}: auxiliary_info is to be an object")
    if image is not None and (not isinstance(image, str) or Path(image).name != image):
        raise SoraError(f"{where}: image_name is to be the name of a file, without folder")
    return Entry(position, prompt, tuple(dimensions), image, raw)


def _check_dimensions(name: SuiteName, path: Path, entries: tuple[Entry, ...]) -> None:
    used = {dimension for entry in entries for dimension in entry.dimensions}
    unknown = sorted(used - set(DIMENSIONS[name]))
    other: SuiteName = "i2v" if name == "t2v" else "t2v"
    if unknown and used <= set(DIMENSIONS[other]):
        command = "vbench-i2v" if other == "i2v" else "vbench"
        raise UsageError(f"{path} is the suite of {other}", hint=f"use `sora eval {command}` for it")
    if unknown:
        raise UsageError(f"{path} has unknown dimensions: {', '.join(unknown)}")
    if name == "i2v" and (bare := next((entry for entry in entries if entry.image_name is None), None)):
        raise SoraError(f"{path}, entry {bare.position}: no image_name")
