"""`sora eval vbench score`: which clips each dimension is measured on, and what is still to do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.protocols import ScoringBackend, ScoringJob, ScoringSettings
from sora_cli.tasks.output import prepare_folders

from .clip_prompts import read_clip_prompts
from .vbench_results import INFO, RESULTS, SCORED
from .vbench_suite import SAMPLES, Suite, choose_dimensions, closest_crop, load_suite, prompt_of

#: Endings that VBench knows.
ENDINGS = (".mp4", ".gif")
#: Dimensions that look for what only the suite says, so that clips of other prompts have no score.
SUITE_ONLY = ("object_class", "multiple_objects", "scene", "appearance_style", "color", "spatial_relationship")
NATIVE, PACKAGE = "native", "vbench"


@dataclass(frozen=True)
class ScoreRun:
    """What is scored. videos: a folder, or in custom mode one file; dimensions: words, see `choose_dimensions`.

    backend: None takes `vbench` where an environment for it is named, else `native`. prompt, prompts: of clips in
    custom mode, where their names do not say it: one of all, or a file, see `clip_prompts`. crop: of the i2v pictures,
    None for the closest.
    """

    videos: Path
    settings: ScoringSettings
    dimensions: Sequence[str] = ()
    backend: str | None = None
    output: Path | None = None
    prompt: str | None = None
    prompts: Path | None = None
    crop: str | None = None
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """Where the results go: beside the clips, or as the user says."""
        place = self.videos if self.videos.name.strip(".") else self.videos.resolve()  # "." and ".." have names
        return self.output or place.with_name(f"{place.stem if place.is_file() else place.name}_scores")


def run_score(run: ScoreRun) -> None:
    """Score clips, dimension by dimension, and print the result files.

    Raises UsageError for what does not fit together, MissingError (exit 3) naming what is missing, after all else
    was scored, and SoraError when a dimension failed.
    """
    settings, console = run.settings, get_console()
    _check(run)
    backend_name = run.backend or (PACKAGE if settings.python or os.environ.get("SORA_VBENCH_PYTHON") else NATIVE)
    plugins = get_plugins()
    spec = plugins.get("scoring-backend", backend_name)
    backend: ScoringBackend = plugins.load_target(spec)(settings)
    jobs = make_jobs(run, backend)
    absent = [(job, missing) for job in jobs if (missing := backend.missing(job.dimension))]
    lacking = {job.dimension for job, _ in absent}
    todo = [job for job in jobs if job.dimension not in lacking and not _is_done(job, spec.name, run)]
    done = [job.dimension for job in jobs if job.dimension not in lacking and job not in todo]
    if done:
        console.note(f"already scored: {', '.join(done)}")
    if todo:
        prepare_folders([job.folder / job.dimension for job in todo])
        backend.score(todo)
    for job in jobs:
        if job.dimension not in lacking:
            path = job.folder / f"{job.dimension}{RESULTS}"
            value = json.loads(path.read_text(encoding="utf-8"))[job.dimension][0]
            console.result(path, {"dimension": job.dimension, "raw": value, "path": str(path)})
    if absent:
        hints = dict.fromkeys(line for _, missing in absent for line in (missing.hint or "").splitlines())
        other = [] if spec.name == PACKAGE else [f"--backend {PACKAGE} scores all dimensions, on a machine with CUDA"]
        reasons = [missing.message for _, missing in absent]
        raise MissingError(
            f"{len(absent)} of {len(jobs)} dimensions are not scored", hint="\n".join([*reasons, *hints, *other])
        )


def raise_failed(failed: Sequence[SoraError], count: int) -> None:
    """For back ends: raise one SoraError for those dimensions, of `count`, that failed; nothing when none did."""
    if failed:
        hint = "\n".join(line for error in failed for line in (error.message, error.hint) if line)
        raise SoraError(f"{len(failed)} of {count} dimensions failed; the same command tries them again", hint=hint)


def make_jobs(run: ScoreRun, backend: ScoringBackend) -> list[ScoringJob]:
    """The dimensions, each with the entries and clips that it is measured on. Raises UsageError without any clip."""
    settings = run.settings
    dimensions = choose_dimensions(settings.suite, run.dimensions)
    if settings.mode == "custom":
        if not run.dimensions:
            dimensions = tuple(each for each in dimensions if each not in SUITE_ONLY)
        clips = custom_entries(run)
        return [
            ScoringJob(name, [{**entry, "dimension": [name]} for entry in clips], run.folder) for name in dimensions
        ]
    suite = load_suite(settings.suite, settings.suite_file or backend.suite_file)
    unused = [name for name in dimensions if name not in suite.dimensions]
    if unused and run.dimensions:
        raise UsageError(f"{suite.path} has no prompts of {', '.join(unused)}")
    entries = suite_entries(suite, run.videos)
    crop = run.crop or (_crop_of(entries) if settings.suite == "i2v" else None)
    jobs, without = [], []
    for name in dimensions:
        if name not in suite.dimensions:
            continue
        own = [entry for entry in entries if name in entry["dimension"]]
        if any(entry["video_list"] for entry in own):
            jobs.append(ScoringJob(name, own, run.folder, crop))
        elif run.dimensions:
            raise UsageError(
                f"{run.videos} has no clip of {name}", hint=f'clips are called like "{own[0]["prompt_en"]}-0.mp4"'
            )
        else:
            without.append(name)
    if not jobs:
        raise UsageError(
            f"{run.videos} has no clip of the suite",
            hint=f'they are called like "{suite.entries[0].file_name(0)}"\n--mode custom takes clips of any name',
        )
    if without:
        get_console().note(f"no clip of {', '.join(without)}")
    return jobs


def suite_entries(suite: Suite, videos: Path) -> list[dict[str, Any]]:
    """The objects of a suite, each with the clips of it in a folder as its `video_list`."""
    names = set(os.listdir(videos))
    # As VBench has it, all clips have the same ending.
    ending = next((each for each in ENDINGS if not names.isdisjoint(suite.file_names(suffix=each))), ENDINGS[0])
    found = []
    for entry in suite.entries:
        clips = [entry.file_name(sample, ending) for sample in range(SAMPLES)]
        found.append({**entry.raw, "video_list": [str(videos / name) for name in clips if name in names]})
    return found


def custom_entries(run: ScoreRun) -> list[dict[str, Any]]:
    """An entry for each clip of any name, with its prompt. Raises UsageError without any, or without its prompt."""
    videos = run.videos
    files = (
        [videos] if videos.is_file() else sorted(path for path in videos.iterdir() if path.suffix.lower() in ENDINGS)
    )
    if not files:
        raise UsageError(f"{videos} has no clips ({', '.join(ENDINGS)})")
    if run.prompts is None:
        prompts = {path.name: run.prompt or prompt_of(path.name) for path in files}
    else:
        names = {str(path.absolute()): path.name for path in files}
        prompts = {names[name]: prompt for name, prompt in read_clip_prompts(run.prompts, list(names)).items()}
        if bare := [path.name for path in files if path.name not in prompts]:
            raise UsageError(f"{run.prompts} has no prompt of {', '.join(bare[:3])}{' ...' if len(bare) > 3 else ''}")
    return [{"prompt_en": prompts[path.name], "dimension": [], "video_list": [str(path)]} for path in files]


def _check(run: ScoreRun) -> None:
    """Raise UsageError for what does not fit together."""
    settings, is_custom = run.settings, run.settings.mode == "custom"
    if not run.videos.exists() or (not is_custom and not run.videos.is_dir()):
        raise UsageError(f"there is no folder {run.videos}")
    if not is_custom and (run.prompt is not None or run.prompts is not None):
        raise UsageError("the suite says the prompts", hint="--prompt and --prompts are for --mode custom")
    if run.prompt is not None and run.prompts is not None:
        raise UsageError("give --prompt or --prompts, not both")
    if is_custom and settings.suite == "i2v":
        raise UsageError("i2v has no custom mode: pictures belong to the prompts of the suite")
    refused = [name for name in choose_dimensions(settings.suite, run.dimensions) if name in SUITE_ONLY]
    if is_custom and run.dimensions and refused:
        raise UsageError(
            f"{', '.join(refused)}: what they look for is in the suite only", hint="leave --mode custom out"
        )
    if settings.images is not None and not settings.images.is_dir():
        raise UsageError(f"there is no folder {settings.images}")


def _crop_of(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """The crop of the pictures that is closest to the first clip that can be read; None without one."""
    from sora_cli.video.clips import open_clip

    for entry in entries:
        for path in entry["video_list"]:
            try:
                with open_clip(Path(path), clip_fps=1.0) as clip:
                    return closest_crop(clip.width, clip.height)
            except SoraError:
                continue  # said where it is scored
    return None


def _is_done(job: ScoringJob, backend: str, run: ScoreRun) -> bool:
    """Whether the results are there and of these very clips. Raises UsageError for results of another origin."""
    path = job.folder / f"{job.dimension}{RESULTS}"
    if not path.exists() or run.overwrite:
        return False
    try:
        entries = json.loads(path.with_name(f"{job.dimension}{INFO}").read_text(encoding="utf-8"))
        scored = json.loads(path.with_name(f"{job.dimension}{SCORED}").read_text(encoding="utf-8"))
        kept = [(entry["prompt_en"], list(entry["video_list"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        scored, kept = {}, []
    if scored.get("back_end") != backend or scored.get("mode") != run.settings.mode:
        raise UsageError(
            f"{path} was made in another way",
            hint="choose another folder with --output, or replace it with --overwrite",
        )
    unreadable = set(scored.get("unreadable", ()))
    clips = [
        (entry["prompt_en"], [video for video in entry["video_list"] if video not in unreadable])
        for entry in job.entries
    ]
    made = path.stat().st_mtime_ns
    newer = any(os.stat(video).st_mtime_ns > made for _, videos in clips for video in videos)
    # Only dimensions that these matter to have them.
    is_alike = (
        scored.get("crop", job.crop) == job.crop and scored.get("resize", run.settings.resize) == run.settings.resize
    )
    return sorted(kept) == sorted(clips) and not newer and is_alike
