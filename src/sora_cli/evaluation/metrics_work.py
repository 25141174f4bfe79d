"""What `sora eval metrics` does with each video, in a process that a decoder may hang or end (see `data.local`).

Values come back as JSON, and features of sets as files in a folder beside the log that keeps both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sora_cli.console import get_console, set_console
from sora_cli.data.index import STAMP
from sora_cli.data.local import Workers, apply, make_function, named
from sora_cli.data.scoring import REASON, make_scorer
from sora_cli.data.work import Job, Made, Outcome, Row, RowFunction, Work
from sora_cli.errors import SoraError
from sora_cli.tasks.codec import prepare_torch_threads

from .measures import Measures, Values, load_measures
from .pairs import Look, frames_at_once, open_together

#: What a row is: a video, its original or None, the stamps of both, its prompt, and what of it is wanted.
INPUTS = ("path", "reference", STAMP, "text", "is_framed", "is_scored")
#: The one column: JSON of `Measured`, or of a distance.
MADE = "made"


@dataclass
class Measured:
    """What is known of a video. frame_values: of each frame, by measure; failed: messages and hints; features: names of
    files by measure of sets.
    """

    frames: int | None = None
    fps: float | None = None
    size: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    frame_values: dict[str, list[float]] = field(default_factory=dict)
    failed: list[tuple[str, str | None]] = field(default_factory=list)
    features: dict[str, str] = field(default_factory=dict)


def make_measurer(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target`. options: names of frames and sets, what `scorer_options` gives, weights, look, fitted, per_frame,
    threads, mode of the console, and the folder of features.
    """
    if get_console().mode != options["mode"]:  # in a process of its own
        set_console(options["mode"])
    prepare_torch_threads(options["threads"])
    where = torch.device(device)
    frames, sets = (load_measures(options[kind], options["weights"], where) for kind in ("frames", "sets"))
    scorer = make_scorer(options["scorers"], device) if options["scorers"]["scorers"] else None
    measurer = _Measurer(frames, sets, scorer, Look(**options["look"]), options["fitted"], Path(options["folder"]))

    def measure(row: Row) -> Made:
        if "videos" in row:
            return Made([{MADE: json.dumps(measurer.distance(row["path"], row["reference"], row["videos"]))}])
        made = measurer.measure(row)
        if not options["per_frame"]:
            made.frame_values = {}
        return Made([{MADE: json.dumps(vars(made))}])

    return lambda rows: [measure(row) for row in rows]


class _Measurer(NamedTuple):
    frames: Measures
    sets: Measures
    scorer: RowFunction | None
    look: Look
    fitted: bool
    folder: Path

    def measure(self, row: Row) -> Measured:
        made = Measured()
        for is_wanted, step in (
            (self.frames and row["is_framed"], self._measure_frames),
            (self.scorer and row["is_scored"], self._score),
            (self.sets, self._look_at),
        ):
            if is_wanted:
                try:
                    step(row, made)
                except SoraError as error:
                    made.failed.append((error.message, error.hint))
        return made

    def _measure_frames(self, row: Row, made: Measured) -> None:
        look, values = self.look, Values(self.frames)
        reference = row["reference"]
        paths = [Path(path) for path in (reference, row["path"]) if path is not None]
        with open_together(paths, look, fitted=self.fitted) as clips:
            for piece in look.together(clips):
                values.add(piece[-1], piece[0] if reference is not None else None)
            height, width = look.size(clips[-1])
            made.frames, made.fps, made.size = clips[-1].num_frames, clips[-1].fps, f"{height}x{width}"
        made.frame_values = {name: each.tolist() for name, each in values.of_frames().items()}
        made.values |= values.means()

    def _score(self, row: Row, made: Measured) -> None:
        """By scorers of `sora data score`, which choose their frames themselves."""
        assert self.scorer is not None
        [scored] = self.scorer([{"path": str(Path(row["path"]).resolve()), "text": row["text"]}])
        [values] = scored.rows
        made.values |= {name: value for name, value in values.items() if name != REASON}
        if values[REASON]:
            raise SoraError(values[REASON])

    def _look_at(self, row: Row, made: Measured) -> None:
        """Write the features of a video for its set; all of them or none."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.sets}
        with self.look.open(Path(row["path"])) as clip:
            for length in sorted({measure.metric.piece_frames for measure in self.sets.values()}):
                at_once = length * max(1, frames_at_once(*self.look.size(clip)) // length)
                for piece in self.look.pieces(clip, at_once):
                    whole = piece[:, :, : piece.shape[2] // length * length]
                    for name, measure in self.sets.items():
                        if measure.metric.piece_frames == length and whole.shape[2]:
                            found[name].append(measure.metric.features(whole))
        for name, parts in found.items():
            if not parts:
                least = self.sets[name].metric.piece_frames
                raise SoraError(f"{row['path']} has fewer frames than the {least} that {name} looks at")
        token = hashlib.blake2b(json.dumps([row["path"], row[STAMP]]).encode(), digest_size=8).hexdigest()
        for name, parts in found.items():
            made.features[name] = f"{token}-{name}.npy"
            self._write(made.features[name], torch.cat(parts).numpy())

    def _write(self, name: str, features: np.ndarray[Any, Any]) -> None:
        partial = self.folder / f".{name}.{os.getpid()}.partial"
        self.folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, features)
        partial.replace(self.folder / name)

    def distance(self, name: str, reference: Sequence[str], videos: Sequence[str]) -> dict[str, Any]:
        """The distance of two sets, whose features are in files, how many they have, and why there is no distance."""
        metric, value, reason = self.sets[name].metric, None, None
        sets = metric.new_set(), metric.new_set()
        for one, files in zip(sets, (reference, videos), strict=True):
            for file in files:
                one.add(torch.from_numpy(np.load(self.folder / file)))
        try:
            value = metric.distance(*sets)
        except ValueError as error:
            reason = str(error)
        counts = {"features": len(sets[1]), "reference_features": len(sets[0]), "wanted": metric.wanted}
        return {"value": value, **counts, "reason": reason}


# -- where it is done ------------------------------------------------------------------------------------------------


class WorkPlace(NamedTuple):
    """A process that is ready, as `data.work.Engine`. do: as `Workers.do`."""

    do: Callable[..., Iterator[Sequence[Outcome]]]

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        """As `Engine`."""
        return self.do(jobs)

    def distance(self, name: str, reference: Sequence[str], videos: Sequence[str]) -> dict[str, Any]:
        """As `_Measurer.distance`, in any time it needs. Raises SoraError where it could not be computed."""
        row = {"path": name, "reference": list(reference), "videos": list(videos)}
        [[(_, made)]] = [outcomes for outcomes in self.do(iter([Job([0], [row])]), is_limited=False) if outcomes]
        if made.reason is not None:
            raise SoraError(made.reason)
        found: dict[str, Any] = json.loads(made.rows[0][MADE])
        return found


@contextlib.contextmanager
def work_place(work: Work, device: str) -> Iterator[WorkPlace]:
    """A process for the work, or this one where the package that watches over processes is not installed."""
    if find_spec("pebble") is not None:
        with Workers(work, (device,)) as workers:
            yield WorkPlace(workers.do)
        return
    get_console().note(
        "without the package pebble a video that hangs its decoder hangs this command: pip install 'sora-cli[data]'"
    )
    function = make_function(work.target, work.options, device)

    def do(jobs: Iterator[Job], *, is_limited: bool = True) -> Iterator[Sequence[Outcome]]:
        for job in jobs:
            made = apply(function, job.rows)
            yield [Outcome(key, named(row, one)) for key, row, one in zip(job.keys, job.rows, made, strict=True)]

    yield WorkPlace(do)
