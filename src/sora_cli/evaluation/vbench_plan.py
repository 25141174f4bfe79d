"""Which clips VBench wants: so many of each prompt of a suite, or of a list, with their names and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sora_cli.errors import UsageError
from sora_cli.text.prompts import parse_prompt

from .samples import Sample, check_names
from .vbench_suite import SAMPLES, Entry, Suite, file_name

#: The seeds of two prompts are so far apart that those of one do not depend on how many clips it has.
SEED_STEP = 1000
#: What the reference (Open-Sora 66a42cd) sets its generator to before every clip.
FIXED_SEED = 1024
#: The dimension for which VBench wants more clips, of which those without motion are kept.
STATIC_DIMENSION = "temporal_flickering"
#: The mask strategy of a picture that a clip starts with.
FIRST_FRAME = "0"


@dataclass(frozen=True)
class Choice:
    """What is asked of the prompts. positions: the first of them, and the one to stop before; samples: clips of each.

    candidates: clips of each prompt of temporal_flickering, None for as many as of the others. seed: of clip 0 of
    prompt 0. is_fixed: all clips have the one seed of the reference.
    """

    positions: tuple[int | None, int | None] = (None, None)
    samples: int = SAMPLES
    candidates: int | None = None
    seed: int = 42
    is_fixed: bool = False

    def seed_of(self, position: int, sample: int) -> int:
        """The seed of clip `sample` of the prompt at a position of its suite, the same in whatever part is made."""
        return FIXED_SEED if self.is_fixed else self.seed + SEED_STEP * position + sample

    def count(self, entry: Entry) -> int:
        """How many clips there are of a prompt."""
        is_static = STATIC_DIMENSION in entry.dimensions
        return self.candidates if is_static and self.candidates is not None else self.samples

    def record(self) -> dict[str, Any]:
        """For a plan."""
        return {
            "positions": self.positions,
            "samples": self.samples,
            "static_candidates": self.candidates,
            "seeds": f"{FIXED_SEED}" if self.is_fixed else f"{self.seed} + {SEED_STEP} * position + sample",
        }


def suite_samples(suite: Suite, dimensions: Sequence[str], choice: Choice) -> list[Sample]:
    """The clips of the dimensions, in the order of the suite; entries that share a prompt share its clips.

    Raises UsageError for a choice without any, and for prompts that cannot be names of files.
    """
    first = {entry.prompt: entry.position for entry in suite.unique}
    samples: dict[str, Sample] = {}
    for entry in _chosen(suite, dimensions, choice):
        line = entry.prompt if entry.image_name is None else _line(entry.prompt, _first_picture(entry.image_name))
        for number in range(choice.count(entry)):
            name = entry.file_name(number)
            samples.setdefault(name, Sample(name, line, choice.seed_of(first[entry.prompt], number)))
    return _checked(list(samples.values()))


def suite_counts(suite: Suite, dimensions: Sequence[str], choice: Choice) -> list[dict[str, Any]]:
    """For each dimension its prompts and its videos, which several dimensions may share."""
    rows = []
    for dimension in dimensions:
        counts = {entry.prompt: choice.count(entry) for entry in _chosen(suite, (dimension,), choice)}
        rows.append({"dimension": dimension, "prompts": len(counts), "videos": sum(counts.values())})
    return rows


def list_samples(lines: Sequence[str], choice: Choice) -> list[Sample]:
    """The clips of a user's own prompts, lines of a prompt file, named as in a suite; empty lines are left out.

    Raises UsageError as `suite_samples` does, and for two lines of one prompt with different settings.
    """
    first: dict[str, int] = {}
    for position, line in list(enumerate(lines))[slice(*choice.positions)]:
        if line.strip():
            first.setdefault(line, position)
    samples = []
    for line, position in first.items():
        text = parse_prompt(line).text.strip()
        if "/" in text or "\0" in text:
            raise UsageError(
                f"the prompt {text!r} cannot be the name of a file",
                hint="VBench finds clips by their prompts: no slash",
            )
        samples += [
            Sample(file_name(text, number), line, choice.seed_of(position, number)) for number in range(choice.samples)
        ]
    return _checked(samples)


def with_pictures(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """The samples of an i2v suite with their pictures, which are named in the plan, from a folder.

    Raises UsageError that names pictures that are not there.
    """
    if ";" in str(folder.absolute()):  # it separates references in a prompt
        raise UsageError(f"pictures cannot be in a folder with a semicolon: {folder}")
    found, missing = [], {}
    for sample in samples:
        prompt = parse_prompt(sample.prompt)
        name = prompt.settings.get("reference_path")
        if not name:
            raise UsageError(f"the plan names no picture for {sample.name}", hint="sora eval vbench-i2v plan does")
        if not (folder / name).is_file():
            missing[name] = folder / name
        settings = {**prompt.settings, "reference_path": str((folder / name).absolute())}
        found.append(replace(sample, prompt=_line(prompt.text, settings)))
    if missing:
        shown = ", ".join(list(missing)[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        are = "picture is" if len(missing) == 1 else "pictures are"
        raise UsageError(
            f"{len(missing)} {are} not in {folder}: {shown}",
            hint="the pictures of VBench are in folders 1-1, 8-5, 7-4 and 16-9: --images names the folder of these",
        )
    return found


def _chosen(suite: Suite, dimensions: Sequence[str], choice: Choice) -> list[Entry]:
    wanted = set(dimensions)
    return [entry for entry in suite.entries[slice(*choice.positions)] if wanted.intersection(entry.dimensions)]


def _first_picture(name: str) -> dict[str, Any]:
    return {"reference_path": name, "mask_strategy": FIRST_FRAME}


def _line(text: str, settings: Mapping[str, Any]) -> str:
    """A prompt with settings, as in a prompt file."""
    return f"{text}{json.dumps(settings, ensure_ascii=False)}"


def _checked(samples: list[Sample]) -> list[Sample]:
    if not samples:
        raise UsageError("no prompt is left", hint="choose other --dimension, --start-index or --end-index")
    check_names(samples)
    return samples
