"""The back end that scores in this process, with networks that sora has code for."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_cli import version
from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.evaluation.vbench_results import write_results
from sora_cli.evaluation.vbench_scoring import raise_failed
from sora_cli.evaluation.vbench_suite import I2V_ONLY
from sora_cli.files import write_text
from sora_cli.plugin.protocols import ScoringJob, ScoringSettings
from sora_cli.plugin.specs import Weights
from sora_cli.tasks.components import choose_device
from sora_cli.training.clip_reader import BadClipError
from sora_cli.video.io import write_failed
from sora_cli.video.pictures import open_pixels
from sora_cli.weights.locate import LocatedWeights, locate_parts
from sora_plugins.scorers import AESTHETIC_HEAD, CLIP_L14
from sora_plugins.scorers.aesthetic import aesthetic_scores, read_head
from sora_plugins.scorers.clip import MEAN, STD, Clip, read_clip

from . import CLIP_B32
from .measures import MEASURES, Measured, MeasuredClip, aggregate
from .rules import camera_motion_of

Located = Mapping[str, LocatedWeights]


class Extractor(NamedTuple):
    """What finds in frames what a measure asks for. load: `(weights, device) -> function`, see `measures.MEASURES`."""

    load: Callable[[Located, torch.device], Any]
    weights: Mapping[str, Weights] = {}


def clip_pixels(frames: Tensor, size: int) -> Tensor:
    """(n, 3, size, size) for CLIP of frames (n, 3, H, W) uint8, resized as VBench does.

    That is bicubic without antialiasing, and rounded to whole numbers, unlike how CLIP itself was trained.
    """
    height, width = frames.shape[-2:]
    short = min(height, width)
    fitted = [size if side == short else int(size * side / short) for side in (height, width)]
    pixels = F.interpolate(frames.float(), size=fitted, mode="bicubic", align_corners=False).clamp(0, 255).round()
    top, left = (round((side - size) / 2) for side in fitted)
    pixels = pixels[:, :, top : top + size, left : left + size] / 255
    mean, std = torch.tensor([MEAN, STD])[:, :, None, None]
    return (pixels - mean) / std


def _embed(clip: Clip, frames: Tensor) -> Tensor:
    return clip.embed_prepared(clip_pixels(frames, clip.size))


def _background(weights: Located, device: torch.device) -> Any:
    return functools.partial(_embed, read_clip(weights["clip-b32"], device))


def _aesthetics(weights: Located, device: torch.device) -> Any:
    clip, head = read_clip(weights["clip-l14"], device), read_head(weights["head"], option="--weights head")
    return lambda frames: aesthetic_scores(_embed(clip, frames), head) / 10


def _style(weights: Located, device: torch.device) -> Any:
    clip = read_clip(weights["clip-b32"], device, has_texts=True)
    embed_text = functools.lru_cache(maxsize=1)(lambda text: clip.embed_texts([text]))

    def likeness(frames: Tensor, text: str) -> Tensor:
        return clip.scale / 100 * F.cosine_similarity(_embed(clip, frames), embed_text(text), dim=-1)

    return likeness


#: What sora brings; a plugin can give a back end of its own more.
EXTRACTORS: Mapping[str, Extractor] = {
    "temporal_flickering": Extractor(lambda weights, device: None),
    "background_consistency": Extractor(_background, {"clip-b32": CLIP_B32}),
    "appearance_style": Extractor(_style, {"clip-b32": CLIP_B32}),
    "aesthetic_quality": Extractor(_aesthetics, {"clip-l14": CLIP_L14, "head": AESTHETIC_HEAD}),
}


class NativeBackend:
    """See the module. extractors: by dimension; name, version: as kept with results."""

    suite_file: Path | None = None

    def __init__(
        self, settings: ScoringSettings, extractors: Mapping[str, Extractor], *, name: str, version: str
    ) -> None:
        self.settings, self.extractors, self.name, self.version = settings, extractors, name, version
        if settings.gpus > 1:
            raise UsageError(f"the back end {name} scores on one device", hint="leave --gpus out")
        parts = {part for extractor in extractors.values() for part in extractor.weights}
        if unknown := sorted(set(settings.weights) - parts):
            raise UsageError(f"{name} looks with no {', '.join(unknown)}", hint=f"parts: {', '.join(sorted(parts))}")
        self.device = choose_device(settings.device)  # type: ignore[arg-type]  # typed by the command
        self._located: dict[str, Located] = {}

    def missing(self, dimension: str) -> MissingError | None:
        """See `protocols.ScoringBackend`."""
        if dimension not in self.extractors:
            network = MEASURES[dimension].network
            return MissingError(f"{dimension} looks with {network}, which {self.name} does not have")
        try:
            self._located[dimension] = locate_parts(
                self.extractors[dimension].weights,
                what=dimension,
                overrides=self.settings.weights,
                option="--weights",
            )
        except MissingError as error:
            return error
        return None

    def score(self, jobs: Sequence[ScoringJob]) -> None:
        """See `protocols.ScoringBackend`."""
        failed = []
        for job in jobs:
            weights = self._located[job.dimension]
            fingerprints = {part: found.fingerprint for part, found in weights.items()}
            about = {
                "back_end": self.name,
                "version": self.version,
                "mode": self.settings.mode,
                "aggregation": "one process",
                "device": self.device.type,
                "weights": fingerprints,
                **({"resize": self.settings.resize} if job.dimension == "imaging_quality" else {}),
                **({"crop": job.crop} if job.dimension in I2V_ONLY else {}),
            }
            log = ScoreLog(job.folder / f"{job.dimension}.unfinished.jsonl", about)
            try:
                self._score(job, log, functools.cache(functools.partial(self._load, job.dimension, weights)))
            except SoraError as error:
                failed.append(error)
            else:
                log.remove()
        raise_failed(failed, len(jobs))

    def _load(self, dimension: str, weights: Located) -> Any:
        return self.extractors[dimension].load(weights, self.device)

    def _score(self, job: ScoringJob, log: ScoreLog, extractor: Callable[[], Any]) -> None:
        """One dimension. extractor: loads it, when a clip needs it."""
        console = get_console()
        clips = [(Path(video), entry) for entry in job.entries for video in entry["video_list"]]
        found: dict[str, Measured] = {}
        unreadable: list[str] = []
        with console.progress(f"scoring {job.dimension}", len(clips)) as progress:
            for path, entry in clips:
                key = clip_key(path, entry, job.dimension)
                if (measured := log.known.get(key)) is None:
                    try:
                        measured = self._measure(job, extractor, path, entry)
                    except (BadClipError, ValueError, OSError) as error:
                        console.warn(f"{path} is left out of {job.dimension}: {error}")
                        unreadable.append(str(path))
                if measured is not None:
                    log.add(key, measured)
                    found[str(path)] = measured
                progress.advance()
        value = aggregate(list(found.values()))
        if value is None:
            raise SoraError(f"no clip of {len(clips)} counts for {job.dimension}")
        details = [{"video_path": path, "video_results": one.result, **one.more} for path, one in found.items()]
        entries = [
            {**entry, "video_list": [path for path in entry["video_list"] if path not in unreadable]}
            for entry in job.entries
        ]
        about = {**log.about, "unreadable": unreadable}
        content = [value, *([_by_motion(found)] if job.dimension == "camera_motion" else []), details]
        write_results(job.folder, job.dimension, {job.dimension: content}, entries, about)

    def _measure(self, job: ScoringJob, extractor: Callable[[], Any], path: Path, entry: Mapping[str, Any]) -> Measured:
        images, picture = self.settings.images, None
        if images is not None and job.crop is not None:
            picture = images / job.crop / str(entry["image_name"])
        with open_pixels(path) as video:
            if isinstance(video, Tensor):
                raise BadClipError("it is a picture")
            clip = MeasuredClip(path, video, entry, self.settings.resize, picture)
            return MEASURES[job.dimension].of_clip(extractor(), clip)


def _by_motion(found: Mapping[str, Measured]) -> dict[str, float]:
    """The mean of the clips that ask for each motion of the camera."""
    values: dict[str, list[float]] = {}
    for path, measured in found.items():
        values.setdefault(camera_motion_of(Path(path).name), []).append(measured.total)
    return {motion: sum(each) / len(each) for motion, each in values.items()}


class ScoreLog:
    """Values of the clips of an unfinished dimension. about: how it is scored; values of another way are dropped."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        self.known: dict[str, Measured] = {}
        self._written: set[str] = set()
        header, *lines = [*_lines(path)] or [None]
        if header != {"about": self.about}:
            lines = []
        self.known = {line["key"]: Measured(**line["measured"]) for line in lines}
        self._written = set(self.known)
        # Written anew, so that nothing follows a line that was cut off.
        write_text(path, "".join(json.dumps(line) + "\n" for line in ({"about": self.about}, *lines)))

    def add(self, key: str, measured: Measured) -> None:
        """Keep a value, once."""
        if key not in self._written:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "measured": asdict(measured)}) + "\n")
            except OSError as error:
                raise write_failed(self.path, error) from error
            self._written.add(key)

    def remove(self) -> None:
        """The dimension is finished."""
        self.path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[Any]:
    """The whole lines of a log; one that was cut off by a power failure ends it."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def clip_key(path: Path, entry: Mapping[str, Any], dimension: str) -> str:
    """Another one for another file of this name, prompt, or thing to look for."""
    state = path.stat() if path.is_file() else None
    size, time = (state.st_size, state.st_mtime_ns) if state else (0, 0)
    about = [str(path), size, time, entry["prompt_en"], entry.get("auxiliary_info", {}).get(dimension)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def load(settings: ScoringSettings) -> NativeBackend:
    """The back end `native`."""
    return NativeBackend(settings, EXTRACTORS, name="native", version=f"sora {version()}")
