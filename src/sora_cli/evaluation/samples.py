"""Clips that an evaluation wants: which prompts, seeds, settings and file names, and the runs that make them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sora_cli.config.resolve import RIVALS
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.files import write_text

#: Bytes that the name of a clip may have: file systems allow 255, of which kept latents need the rest.
LONGEST_NAME = 255 - len(".part99.partial.safetensors")
#: Settings of the shape that say how long a clip is.
LENGTHS = ("frames", "duration", "segments")
Settings = Mapping[str, Mapping[str, Any]]
"""Of `sora generate`: section -> name -> value, as in YAML."""


@dataclass(frozen=True)
class Sample:
    """One clip. name: file below the folder of all, with its ending; prompt: a line of a prompt file.

    settings: what it is made with, where a suite asks for it. Raises UsageError for a name that leads elsewhere.
    """

    name: str
    prompt: str
    seed: int
    settings: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if not self.name or path.is_absolute() or ".." in path.parts or "\0" in self.name:
            raise UsageError(f"{self.name!r} is no name of a file in the folder of the samples")


def check_names(samples: Sequence[Sample]) -> None:
    """Raise UsageError for several samples of one name, and for names that are longer than a file can have."""
    counts = Counter(sample.name for sample in samples)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise UsageError(f"several samples would be written to {', '.join(twice[:3])}")
    for sample in samples:
        if any(len(part.encode()) > LONGEST_NAME for part in PurePosixPath(sample.name).parts):
            raise UsageError(
                f"{sample.name!r} is too long for the name of a file",
                hint=f"with its ending it may have {LONGEST_NAME} bytes: shorten the prompt",
            )


def write_plan(path: Path, samples: Sequence[Sample], about: Mapping[str, Any]) -> None:
    """Write a plan, whole or not at all, and print its path. about: what it was made from."""
    text = json.dumps({"about": about, "samples": [asdict(sample) for sample in samples]}, indent=1, ensure_ascii=False)
    write_text(path, f"{text}\n")
    get_console().result(path, {"path": str(path), "clips": len(samples)})


def read_plan(path: Path) -> tuple[list[Sample], dict[str, Any]]:
    """The samples of a plan, and what it was made from. Raises UsageError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        samples = [Sample(**sample) for sample in content["samples"]]
        about = dict(content["about"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no plan of samples: {error}", hint="sora eval vbench plan and sora eval human plan make them"
        ) from error
    return samples, about


def part_of(samples: Sequence[Sample], shard: str | None) -> list[Sample]:
    """The samples that fall to one machine of several. shard: "2/4" is the second of four; None: all of them."""
    if shard is None:
        return list(samples)
    number, _, count = shard.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {shard} is no part", hint="the second of four machines makes --shard 2/4")
    return list(samples[int(number) - 1 :: int(count)])


def sample_runs(samples: Sequence[Sample], folder: Path, given: Settings) -> Iterator[dict[str, dict[str, Any]]]:
    """Settings for `sora generate`: one run for all samples with the same ones, in the order of the samples.

    given: what the user said, which wins; but a picture stays one, whatever length is given for the videos beside it.
    Raises UsageError as `check_names` does.
    """
    check_names(samples)
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(json.dumps(sample.settings, sort_keys=True), []).append(sample)
    for group in groups.values():
        settings = _under(given, group[0].settings)
        settings.setdefault("prompt", {})["prompts"] = tuple(sample.prompt for sample in group)
        settings.setdefault("output", {})["files"] = [
            {"path": str(folder / sample.name), "seed": sample.seed} for sample in group
        ]
        yield settings


def _under(given: Settings, own: Settings) -> dict[str, dict[str, Any]]:
    """The settings of a sample, with those of the user over them."""
    said = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in given.items()
    }
    settings = {section: dict(values) for section, values in own.items()}
    shape = settings.get("shape", {})
    if shape.get("frames") == 1:
        said["shape"] = {name: value for name, value in said.get("shape", {}).items() if name not in LENGTHS}
    for exact, rivals in RIVALS:  # a size of the plan is no answer to a resolution that the user asks for
        section, _, name = exact.partition(".")
        if any(rival.partition(".")[2] in said.get(section, {}) for rival in rivals):
            settings.get(section, {}).pop(name, None)
    for section, values in said.items():
        settings.setdefault(section, {}).update(values)
    return settings
