"""Result files as VBench writes them, `<name>_eval_results.json` and `<name>_full_info.json`: written, found, read."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sora_cli.errors import SoraError, UsageError, did_you_mean
from sora_cli.files import write_text

from .vbench_scores import RANGES
from .vbench_suite import SAMPLES, SuiteName

RESULTS, INFO = "_eval_results.json", "_full_info.json"
#: Beside them: how a dimension was scored. VBench has no such file.
SCORED = "_scored_by.json"


@dataclass(frozen=True)
class DimensionResult:
    """One dimension of a folder of results.

    value: the aggregate; details: one for each clip, as VBench has them; entries: of the info file, None without one;
    scored_by: how it was scored, {} where that was not kept.
    """

    value: float
    file: str
    details: Sequence[Mapping[str, Any]] = ()
    entries: Sequence[Mapping[str, Any]] | None = None
    scored_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def videos(self) -> list[str]:
        """The clips that it rests on, each once."""
        if self.entries is None:
            return [str(each["video_path"]) for each in self.details if "video_path" in each]
        return list(dict.fromkeys(video for entry in self.entries for video in entry.get("video_list", ())))

    @property
    def samples(self) -> Counter[str] | None:
        """The clips of each prompt that has any; None where that was not kept."""
        if self.entries is None:
            return None
        found: Counter[str] = Counter()
        for entry in self.entries:
            found[entry["prompt_en"]] += len(entry.get("video_list", ()))
        return +found

    @property
    def missing(self) -> list[str]:
        """The clips of prompts that are not there, by name without ending; [] where files are not called by prompt."""
        names = {PurePosixPath(video.replace("\\", "/")).stem for video in self.videos}
        if self.entries is None or self.scored_by.get("mode") == "custom":
            return []
        wanted = [f"{entry['prompt_en']}-{k}" for entry in self.entries for k in range(SAMPLES)]
        return [name for name in dict.fromkeys(wanted) if name not in names] if names & set(wanted) else []


def write_results(
    folder: Path,
    name: str,
    results: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    scored_by: Mapping[str, Any],
) -> None:
    """Write the files of one dimension; the results come last, so that a dimension that has them has all."""
    for ending, content in ((INFO, entries), (SCORED, scored_by), (RESULTS, results)):
        write_text(folder / f"{name}{ending}", json.dumps(content, indent=4, ensure_ascii=False))


def read_results(source: Path, suite: SuiteName, *, is_strict: bool = False) -> dict[str, DimensionResult]:
    """The results in a folder or a zip file, by dimension, in the order of `RANGES`.

    is_strict: refuse what the reference refuses: a results file without its info file, and one whose first prompt has
    no clip. Raises UsageError when nothing is there, SoraError for damaged files, unknown dimensions, and two different
    values of one dimension.
    """
    files = _open(source)
    names = sorted(name for name in files if RESULTS in PurePosixPath(name).name)
    if not names:
        raise UsageError(f"{source} holds no *{RESULTS}", hint="sora eval vbench score writes them, and so does VBench")
    infos = [name for name in files if INFO in PurePosixPath(name).name]
    if is_strict and len(infos) != len(names):
        raise SoraError(f"{source} has {len(names)} files of results but {len(infos)} of clips (*{INFO})")
    found: dict[str, DimensionResult] = {}
    for name in names:
        results = _parsed(files, name, dict)
        info, scored = name.replace(RESULTS, INFO), name.replace(RESULTS, SCORED)
        entries = _entries(files, info) if info in files else None
        if is_strict and not (entries and entries[0].get("video_list")):
            raise SoraError(f"{info} names no clip of its first prompt" if entries else f"{source} has no {info}")
        scored_by = _parsed(files, scored, dict) if scored in files else {}
        for dimension, content in results.items():
            _check_known(suite, name, dimension)
            own = None if entries is None else [entry for entry in entries if dimension in entry["dimension"]]
            result = DimensionResult(*_value(name, dimension, content), entries=own, scored_by=scored_by)
            before = found.setdefault(dimension, result)
            if before.value != result.value:
                raise SoraError(
                    f"{source} has two values of {dimension}: {before.value:.4f} in {before.file} and "
                    f"{result.value:.4f} in {name}",
                    hint="take the file away that does not count",
                )
    return {dimension: found[dimension] for dimension in RANGES[suite] if dimension in found}


def _open(source: Path) -> dict[str, Callable[[], bytes]]:
    """The files of a folder or zip file by name, and how each is read; hidden ones and those of macOS are left out."""
    if source.is_dir():
        return {
            path.name: path.read_bytes for path in sorted(source.iterdir()) if path.is_file() and path.name[0] != "."
        }
    if not source.exists():
        raise UsageError(
            f"there is no folder or zip file {source}", hint="sora eval vbench score makes a folder of results"
        )
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{source} is neither a folder nor a zip file: {error}") from error
    names = [name for name in archive.namelist() if not name.endswith("/")]
    return {
        name: partial(archive.read, name)
        for name in names
        if not PurePosixPath(name).name.startswith(".") and not name.startswith("__MACOSX/")
    }


def _parsed(files: Mapping[str, Callable[[], bytes]], name: str, kind: type) -> Any:
    try:
        content = json.loads(files[name]())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SoraError(f"cannot read {name}: {error}") from error
    if not isinstance(content, kind):
        raise SoraError(f"{name} is not as VBench writes it")
    return content


def _entries(files: Mapping[str, Callable[[], bytes]], name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _parsed(files, name, list)
    for entry in entries:
        if not isinstance(entry, dict) or not {"prompt_en", "dimension"} <= entry.keys():
            raise SoraError(f"{name} is not as VBench writes it: an entry has no prompt_en or dimension")
    return entries


def _value(file: str, dimension: str, content: Any) -> tuple[float, str, list[Any]]:
    value = content[0] if isinstance(content, list) and content else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SoraError(f"{file}: {dimension} has no number as its first element")
    details = content[-1] if isinstance(content[-1], list) else []
    return float(value), file, [each for each in details if isinstance(each, dict)]


def _check_known(suite: SuiteName, file: str, dimension: str) -> None:
    if dimension in RANGES[suite]:
        return
    other = "i2v" if suite == "t2v" else "t2v"
    command = "vbench-i2v" if other == "i2v" else "vbench"
    hint = did_you_mean(dimension, RANGES[suite])
    if dimension in RANGES[other]:
        hint = f"it is one of the other suite: sora eval {command} report"
    raise SoraError(f"{file}: unknown dimension {dimension!r}", hint=hint)
