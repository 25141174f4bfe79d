"""From the plan of an epoch to batches of pixels and captions, decoded by worker processes.

Everything of chance in a clip is a hash of seed, epoch and row, so neither the number of workers nor what was decoded
before changes a batch. A clip that cannot be used is replaced by another one of its bucket, always the same one.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sora_cli.console import counted
from sora_cli.errors import SoraError
from sora_cli.launch.parent import end_with_parent
from sora_cli.video.media import is_image

from .captions import CaptionOptions, draw_caption, draw_uniform
from .clip_reader import IMAGE_FPS, SHORT, BadClipError, read_clip, read_image
from .plan import MicroBatch
from .table import ClipRow, ClipTable, clip_path
from .transforms import TRANSFORMS, frame_indices, last_start

#: Clips of the bucket that stand by for each batch, beside as many as the batch has.
SPARES = 16
NO_FILE = "the path is not allowed"


class Plan(Protocol):
    """The micro-batches of an epoch, numbered over all ranks."""

    def micro_batch(self, number: int) -> MicroBatch:
        """Its rows and size."""
        ...

    def spares(self, number: int, count: int) -> NDArray[np.int64]:
        """Other rows of its bucket."""
        ...


@dataclass(frozen=True)
class ClipOptions:
    """How clips are cut and described; see the fields of the same names in the data settings."""

    seed: int
    transform: str = "resize_crop"
    frame_interval: int = 1
    exact_stride: bool = False
    fps_condition: Literal["effective", "source", "nearest"] = "effective"
    aspect_condition: Literal["h_over_w", "w_over_h"] = "h_over_w"
    score_captions: bool = False
    score_drop: float = 0.2
    reader: str = "pyav"
    skips_bad: bool = False
    """Whether a batch lacks a clip that cannot be read, once no other is left to take its place."""
    dtype: torch.dtype = torch.float32

    @property
    def captions(self) -> CaptionOptions:
        """Those of captions."""
        return CaptionOptions(self.seed, self.score_captions, self.score_drop)


class Job(NamedTuple):
    """What a worker needs for one batch. rows, clips: wanted; spare_rows, spares: to take instead of bad ones."""

    epoch: int
    number: int
    size: tuple[int, int, int]
    rows: list[int]
    clips: list[ClipRow]
    spare_rows: list[int]
    spares: list[ClipRow]


class BadFile(NamedTuple):
    """A clip that could not be used."""

    row: int
    path: str
    reason: str
    detail: str


class Batch(NamedTuple):
    """Clips of one size. pixels: (B, 3, T, H, W) in [-1, 1]; fps: (B,), the rate that the model is told.

    rows, clips: what was read in the end; bad: what was not.
    """

    number: int
    pixels: Tensor
    texts: list[str]
    fps: Tensor
    rows: list[int]
    bad: list[BadFile]
    clips: Sequence[ClipRow] = ()

    @property
    def size(self) -> tuple[int, int, int]:
        """(frames, height, width) in pixels."""
        frames, height, width = self.pixels.shape[2:]
        return frames, height, width

    def sizes(self, aspect_condition: str = "h_over_w") -> dict[str, Tensor]:
        """What the model is told of the size: height, width and num_frames in pixels, ar, each (B,) float32."""
        count, _, frames, height, width = self.pixels.shape
        aspect = height / width if aspect_condition == "h_over_w" else width / height
        values = {"height": height, "width": width, "num_frames": frames, "ar": aspect}
        return {name: torch.full((count,), float(value)) for name, value in values.items()}


class Failure(NamedTuple):
    """An error of a worker process, as it can be sent to the process that it works for."""

    message: str
    hint: str | None


class KeptWorkers:
    """Decoding processes that stay from epoch to epoch: to start them takes longer than an epoch of a small table."""

    def __init__(self) -> None:
        self.loader: DataLoader[Any] | None = None

    def close(self) -> None:
        """End them."""
        if self.loader is not None:
            _end_workers(self.loader._iterator)
            self.loader = None


def raising(loader: DataLoader[Any], *, keeps: bool = False) -> Generator[Any, None, None]:
    """The items of a loader; the first failure among them is raised as the SoraError that it was.

    keeps: whether its processes stay when this ends or is closed.
    """
    items: Any = iter(loader)
    try:
        for item in items:
            if isinstance(item, Failure):
                raise SoraError(item.message, hint=item.hint)
            yield item
    finally:
        if not keeps:
            _end_workers(items)


def _end_workers(items: Any) -> None:
    workers = getattr(items, "_workers", [])
    if workers:
        items._shutdown_workers()
    for worker in workers:
        if worker.is_alive():
            worker.kill()  # they leave SIGTERM alone


class ClipDataset(Dataset[Batch]):
    """Makes the batch of a job."""

    def __init__(self, root: Path, options: ClipOptions) -> None:
        """root: folder of relative paths."""
        self.root, self.options = root, options
        self.epoch = 0  # of the job that is done

    def __getitem__(self, job: Job) -> Batch | Failure:  # type: ignore[override]  # see `raising`
        """The batch; a failure when its bucket has no clips left that can be read, or the reader is not installed."""
        try:
            return self._batch(job)
        except SoraError as error:
            return Failure(error.message, error.hint)

    def _batch(self, job: Job) -> Batch:
        self.epoch = job.epoch
        bad: list[BadFile] = []
        spare = iter(zip(job.spare_rows, job.spares, strict=True))
        rows, clips, pixels, texts, rates = [], [], [], [], []
        for wanted in zip(job.rows, job.clips, strict=True):
            found = self._first_readable(wanted, spare, job.size, bad)
            if found is None:
                continue
            row, clip, (frames, fps) = found
            rows.append(row)
            clips.append(clip)
            pixels.append(frames)
            rates.append(fps)
            texts.append(draw_caption(row, clip, job.epoch, self.options.captions))
        stacked = torch.stack(pixels) if pixels else torch.empty(0, 3, *job.size)
        return Batch(job.number, stacked, texts, torch.tensor(rates), rows, bad, clips)

    def _first_readable(
        self,
        wanted: tuple[int, ClipRow],
        spare: Iterator[tuple[int, ClipRow]],
        size: tuple[int, int, int],
        bad: list[BadFile],
    ) -> tuple[int, ClipRow, tuple[Tensor, float]] | None:
        row, clip = wanted
        while True:
            try:
                return row, clip, self._read(row, clip, size)
            except BadClipError as error:
                bad.append(BadFile(row, clip.path, error.reason, str(error)))
            following = next(spare, None)
            if following is None and self.options.skips_bad:
                return None
            if following is None:
                found = list(dict.fromkeys(bad))  # rows that stand by may be those of the batch
                lines = [f"row {one.row + 1}, {one.path}: {one.detail}" for one in found[:5]]
                raise SoraError(f"of one bucket {counted(len(found), 'clip')} cannot be read", hint="\n".join(lines))
            row, clip = following

    def _read(self, row: int, clip: ClipRow, size: tuple[int, int, int]) -> tuple[Tensor, float]:
        """Pixels (3, T, H, W) and the rate to tell. Raises BadClipError."""
        num_frames, *target = size
        options = self.options
        for_video, for_image = TRANSFORMS[options.transform]
        try:
            path = clip_path(self.root, clip.path)
        except ValueError as error:
            raise BadClipError(NO_FILE, str(error)) from error
        try:
            if is_image(path):
                if (clip.num_frames or 1) > 1:
                    raise BadClipError(SHORT, f"a picture instead of {clip.num_frames} frames")
                pixels = for_image(read_image(path), (target[0], target[1]))[:, None]
                return pixels.repeat(1, num_frames, 1, 1).to(options.dtype), IMAGE_FPS
            read = read_clip(
                path,
                num_frames,
                functools.partial(self._frame_numbers, row, num_frames),
                least_frames=clip.num_frames or 1,
                reader=options.reader,
            )
            pixels = for_video(read.frames, (target[0], target[1])).transpose(0, 1)
        except (BadClipError, SoraError):
            raise
        except Exception as error:  # decoders raise almost anything, and no file may end a run
            raise BadClipError("it cannot be read", f"{type(error).__name__}: {error}") from error
        # A single frame is at no distance from another one.
        interval = read.interval if num_frames > 1 else float(options.frame_interval)
        return pixels.to(options.dtype), self._told_rate(read.fps, interval)

    def _frame_numbers(self, row: int, num_frames: int, total: int) -> Sequence[int]:
        interval = self.options.frame_interval
        choices = last_start(total, num_frames, interval) + 1
        begin = int(draw_uniform(self.options.seed, self.epoch, row, "first frame") * choices)
        return frame_indices(total, num_frames, interval, begin, exact_stride=self.options.exact_stride)

    def _told_rate(self, fps: float, interval: float) -> float:
        match self.options.fps_condition:
            case "source":
                return fps
            case "nearest":
                return float(round(fps / interval))
        # As the released models were told, but for a clip shorter than the window, whose frames are closer together.
        return float(fps // min(interval, self.options.frame_interval))


class Jobs:
    """The jobs of one rank, in order."""

    def __init__(self, table: ClipTable, plan: Plan, numbers: Sequence[int], epoch: int) -> None:
        """numbers: of the micro-batches."""
        self.table, self.plan, self.numbers, self.epoch = table, plan, numbers, epoch

    def __iter__(self) -> Iterator[Job]:
        """One after the other; captions and paths are looked up here, so workers hold no table."""
        for number in self.numbers:
            batch = self.plan.micro_batch(number)
            spares = self.plan.spares(number, SPARES + len(batch.rows))
            yield Job(
                self.epoch,
                number,
                batch.size,
                batch.rows.tolist(),
                self.table.rows(batch.rows),
                spares.tolist(),
                self.table.rows(spares),
            )


def load_batches(
    table: ClipTable,
    plan: Plan,
    numbers: Sequence[int],
    options: ClipOptions,
    epoch: int,
    *,
    num_workers: int = 0,
    prefetch: int | None = None,
    pin_memory: bool = False,
    kept: KeptWorkers | None = None,
) -> Generator[Batch, None, None]:
    """The batches of these micro-batches, in order. prefetch: batches ahead for each worker, 2 by default.

    kept: holds the processes between calls for one table and the same options. Raises SoraError when the clips of a
    bucket cannot be read.
    """
    return load_items(
        ClipDataset(table.root, options),
        Jobs(table, plan, numbers, epoch),
        num_workers=num_workers,
        prefetch=prefetch,
        pin_memory=pin_memory,
        kept=kept,
    )


class _Turns(Sampler[Any]):
    """What the processes of a loader work on, which is something else the next time through."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def load_items(
    dataset: Any,
    items: Iterable[Any],
    *,
    num_workers: int,
    prefetch: int | None,
    pin_memory: bool,
    kept: KeptWorkers | None = None,
) -> Generator[Any, None, None]:
    """What a dataset makes of these items, in order, with processes of its own. Arguments as of `load_batches`."""
    if kept is not None and kept.loader is not None:
        turns: Any = kept.loader.sampler
        turns.items = items
        return raising(kept.loader, keeps=True)
    keeps = kept is not None and num_workers > 0
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=_Turns(items),
        num_workers=num_workers,
        prefetch_factor=prefetch if num_workers else None,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker,
        multiprocessing_context=worker_context() if num_workers else None,
        persistent_workers=keeps,
    )
    if kept is not None and keeps:
        kept.loader = loader
    return raising(loader, keeps=keeps)


def prepare_worker(index: int) -> None:
    """One thread for each worker process, which leaves Ctrl-C and SIGTERM to the process it works for.

    Both reach all processes of a terminal or of a SLURM job; the batches that are under way are still wanted.
    """
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def worker_context() -> Any:
    """Workers are started from a clean process: one with the threads of torch and polars cannot be copied safely."""
    return multiprocessing.get_context("forkserver")
