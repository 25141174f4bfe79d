"""Clips of scenes as video files, with the table `clips.csv` that describes them for training.

Each clip's parameters and settings are stored in its file, so that a second run knows which clips it can keep.
Planning is pure Python; torch is imported when the first picture is painted.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli import version
from sora_cli.console import Progress, counted, get_console
from sora_cli.errors import UsageError, unknown_name
from sora_cli.files import write_text
from sora_cli.plugin.specs import Constraints
from sora_cli.tasks.output import OutputState, check_outputs, output_state, prepare_folders, settings_hash
from sora_cli.video.settings import HASH_KEY

from .scenes.captions import motion_score, write_caption
from .scenes.catalogue import SCENES, SceneParams, clip_params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sora_cli.video.shapes import Size

TABLE = "clips.csv"
COLUMNS = (
    "path",
    "text",
    "num_frames",
    "height",
    "width",
    "aspect_ratio",
    "fps",
    "resolution",
    "aes",
    "flow",
    "cmotion",
)
#: Rendered clips are all equally good; 6.5 is what nano's captions call good.
AESTHETIC_SCORE = 6.5
#: Captions may end with scores.
SCORE_PHRASE = re.compile(r" (?:aesthetic score|motion score|camera motion): ")
#: Pictures smaller than this show nothing; the upper limit is far beyond what the scenes have detail for.
SIZES = Constraints(min_side=16, max_side=2160, trained="")


@dataclass(frozen=True)
class RenderJob:
    """What to render. scenes: names that take turns; height, width in pixels; fps: frames per second.

    captions: for each clip.
    """

    output: Path
    count: int
    seed: int
    scenes: tuple[str, ...]
    num_frames: int
    height: int
    width: int
    fps: float
    captions: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns."""
        return tuple(
            name for column in COLUMNS for name in ((column, *self.more_texts) if column == "text" else (column,))
        )

    @property
    def more_texts(self) -> tuple[str, ...]:
        """The columns of captions beside the first."""
        return tuple(f"text_{number}" for number in range(2, self.captions + 1))


@dataclass(frozen=True)
class SceneClip:
    """One clip to render. settings: what is stored in its file; row: its line of the table, by column."""

    path: Path
    params: SceneParams
    settings: Mapping[str, Any]
    row: Mapping[str, Any]


def known_scenes(names: Sequence[str]) -> tuple[str, ...]:
    """The scenes to render, each once; all when no name is given. UsageError for a name that is no scene."""
    for name in names:
        if name not in SCENES:
            raise unknown_name("scene", name, SCENES, see="sora scenes list")
    return tuple(dict.fromkeys(names)) or tuple(SCENES)


def frame_size(resolution: str, aspect_ratio: str, size: str | None) -> Size:
    """Height and width of the files; `size` ("144x256") wins over the names. UsageError when impossible."""
    from sora_cli.config.schema import ShapeSection
    from sora_cli.video.shapes import resolve_size

    shape = ShapeSection.model_validate({"resolution": resolution, "aspect_ratio": aspect_ratio, "size": size})
    _, file_size, notes = resolve_size(shape, SIZES)
    for note in notes:
        get_console().note(note)
    return file_size


def run(job: RenderJob, *, overwrite: bool = False, dry_run: bool = False) -> None:
    """Render the clips that are missing, write the table, and print its path.

    Raises UsageError when a file made otherwise would be replaced without `overwrite`. After Ctrl-C the finished
    clips stay; the table is written when all clips are there.
    """
    console = get_console()
    clips = plan_clips(job)
    states = {clip.path: output_state(clip.path, str(clip.settings[HASH_KEY])) for clip in clips}
    if dry_run:
        _show_dry_run(job, clips, states, overwrite=overwrite)
        return
    if job.output.exists() and not job.output.is_dir():
        raise UsageError(f"{job.output} is not a folder", hint="clips are written to a folder; choose another --output")
    check_outputs(states, overwrite=overwrite)
    table, text = job.output / TABLE, table_text(job, clips)
    _check_table(table, text, overwrite=overwrite)
    pending = [clip for clip in clips if states[clip.path] != "done"]
    prepare_folders([table])
    if len(pending) < len(clips):
        console.note(f"{len(clips) - len(pending)} of {len(clips)} clips are there already")
    if pending:
        _render_all(job, pending)
    write_text(table, text)
    record = {"path": str(table), "rendered": len(pending), "kept": len(clips) - len(pending)}
    console.result(table, {**record, "clips": [dict(clip.row) for clip in clips]})


def plan_clips(job: RenderJob) -> list[SceneClip]:
    """All clips of a job, in order. Clip i depends on the seed, i and the scenes only."""
    return [_plan_clip(job, index) for index in range(job.count)]


def _plan_clip(job: RenderJob, index: int) -> SceneClip:
    params = clip_params(job.seed, index, job.scenes)
    suffix = ".png" if job.num_frames == 1 else ".mp4"
    path = job.output / f"clip_{index:05d}{suffix}"
    text = _caption(params, f"{job.seed}-{index}-caption")
    shape = {"num_frames": job.num_frames, "height": job.height, "width": job.width, "fps": job.fps}
    made_from = {"scene": dataclasses.asdict(params), **shape}
    settings = {HASH_KEY: settings_hash(made_from), "sora": version(), "text": text, **made_from}
    row = {
        "path": path.name,
        "text": text,
        **{name: _caption(params, f"{job.seed}-{index}-{name}") for name in job.more_texts},
        **shape,
        "aspect_ratio": round(job.height / job.width, 4),
        "fps": job.fps if job.num_frames > 1 else None,
        "resolution": job.height * job.width,
        "aes": AESTHETIC_SCORE,
        "flow": round(motion_score(params), 2),
        "cmotion": params.camera.replace(" ", "_"),
    }
    return SceneClip(path, params, settings, {column: row[column] for column in job.columns})


def _caption(params: SceneParams, key: str) -> str:
    """A caption without its scores, which have columns of their own."""
    return SCORE_PHRASE.split(write_caption(params, random.Random(key)), maxsplit=1)[0]


def table_text(job: RenderJob, clips: Sequence[SceneClip]) -> str:
    """The table as CSV. Paths are relative to the table's folder, which may be moved."""
    text = io.StringIO()
    writer = csv.DictWriter(text, job.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(clip.row for clip in clips)
    return text.getvalue()


def _check_table(path: Path, text: str, *, overwrite: bool) -> None:
    """UsageError when a table would be replaced by one that lacks some of its lines."""
    if not path.is_file() or overwrite:
        return
    if not text.startswith(path.read_text(encoding="utf-8", errors="replace")):
        raise UsageError(
            f"{path} has lines that this run would not write",
            hint="it was edited, or made with another --seed, --scene or --captions, or a larger --count\n"
            "choose another --output, or replace with --overwrite",
        )


def _render_all(job: RenderJob, clips: Sequence[SceneClip]) -> None:
    """Render clips one after the other. A clip appears under its name when it is complete."""
    console = get_console()
    done = 0
    what = counted(len(clips), "image" if job.num_frames == 1 else "clip")
    counter = console.progress(f"rendering {what}, frames", len(clips) * job.num_frames)
    try:
        with _one_thread(), counter as progress:
            for clip in clips:
                _write_clip(job, clip, progress)
                done += 1
    except KeyboardInterrupt:
        console.note(f"{done} of {what} done; run the same command to go on")
        raise


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Paint with one thread: pictures are too small to share, and sums depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_clip(job: RenderJob, clip: SceneClip, progress: Progress) -> None:
    from sora_cli.video.io import write_image, write_video

    pictures = _pictures(job, clip.params, progress)
    if job.num_frames == 1:
        write_image(clip.path, next(pictures)[0], clip.settings)
    else:
        write_video(clip.path, pictures, job.fps, clip.settings)


def _pictures(job: RenderJob, params: SceneParams, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """The clip frame by frame, uint8 (1, H, W, 3)."""
    from .scenes.renderer import frames

    for frame in frames(params, job.num_frames, job.height, job.width, fps=job.fps):
        progress.advance()
        yield frame[None].numpy()


def _show_dry_run(
    job: RenderJob, clips: Sequence[SceneClip], states: Mapping[Path, OutputState], *, overwrite: bool
) -> None:
    """Print what would be made; in JSON with everything that is known of each clip."""
    words = {"new": "render", "done": "keep", "other": "replace" if overwrite else "refuse: made with other settings"}
    console = get_console()
    seconds = f" ({job.num_frames / job.fps:.2f} s at {job.fps:g} fps)" if job.num_frames > 1 else ""
    console.note(f"dry run: {job.count} clips of {job.num_frames} frames{seconds}, {job.height}x{job.width} pixels")
    rows = [
        {
            **clip.row,
            "path": str(clip.path),
            "action": words[states[clip.path]],
            "scene": clip.params.scene,
            "time": clip.params.time_of_day,
            "attributes": dict(clip.params.attributes),
        }
        for clip in clips
    ]
    console.table(rows, ["path", "action", "scene", "time", "cmotion", "flow", "text"])
