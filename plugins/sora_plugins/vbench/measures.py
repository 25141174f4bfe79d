"""Dimensions on clips: which frames are looked at, what a network is asked, and what one clip adds to the aggregate.

What a network finds is behind a function, its extractor, so that a back end can bring networks of its own (see
`native.NativeBackend`). Frames are (3, H, W) uint8, batches of them (n, 3, H, W). An extractor is called with a batch
and gives one thing for each frame, unless `MEASURES` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_cli.data.sampling import every, middle_of_parts
from sora_cli.training.clip_reader import Video
from sora_cli.video.pictures import open_pixels

from . import rules

#: Frames that a network is given at a time.
AT_ONCE = 16
#: Frames that detectors, captions and actions are of, and those that are compared with a text as a video.
SEEN, WATCHED = 16, 8
#: Frames whose sides are all longer are made smaller for a detector, so that the shorter one is the second number.
DETECTOR_ABOVE, DETECTOR_SIDE = 768, 720


@dataclass(frozen=True)
class MeasuredClip:
    """An open clip. entry: its object of the suite; resize: of `rules.RESIZES`; picture: that an i2v clip
    starts with."""

    path: Path
    video: Video
    entry: Mapping[str, Any]
    resize: str = "longer"
    picture: Path | None = None

    @property
    def prompt(self) -> str:
        """The prompt."""
        return str(self.entry["prompt_en"])

    def wanted(self, dimension: str, *keys: str) -> Any:
        """What a dimension looks for. Raises ValueError when the suite does not say it."""
        found: Any = self.entry.get("auxiliary_info")
        for key in (dimension, *keys):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None:
            raise ValueError(f"the suite does not say what {dimension} is to look for")
        return found

    def stream(self) -> Iterator[Tensor]:
        """All frames."""
        return self.video.stream(range(self.video.num_frames))

    def batches(self) -> Iterator[Tensor]:
        """All frames, some at a time."""
        for start in range(0, self.video.num_frames, AT_ONCE):
            yield self.video.frames(range(start, min(start + AT_ONCE, self.video.num_frames)))

    def middle(self, count: int) -> Tensor:
        """`count` frames, each from the middle of its part of the clip; the last one again in a shorter clip."""
        return self.video.frames(middle_of_parts(self.video.num_frames, count))

    def for_detector(self) -> Tensor:
        """The middle frames, not larger than VBench shows them to its detector."""
        frames = self.middle(SEEN)
        side = min(frames.shape[-2:])
        if side <= DETECTOR_ABOVE:
            return frames
        size = [round(length * DETECTOR_SIDE / side) for length in frames.shape[-2:]]
        return F.interpolate(frames.float(), size=size, mode="bilinear", align_corners=False).round().to(torch.uint8)


@dataclass(frozen=True)
class Measured:
    """What one clip gives. result: what VBench writes for it; more: beside that.

    The aggregate of a dimension is the sum of all `total` by the sum of all `weight`. Of dimensions that count frames
    the weight is the number of frames, so that long clips weigh more: as VBench does in one process.
    """

    result: Any
    total: float
    weight: float = 1.0
    more: Mapping[str, Any] = field(default_factory=dict)


def aggregate(found: Sequence[Measured]) -> float | None:
    """The value of a dimension; None when no clip counts."""
    weight = math.fsum(each.weight for each in found)
    return math.fsum(each.total for each in found) / weight if weight else None


class Measure(NamedTuple):
    """How a dimension is measured. network: what VBench looks with, None for nothing."""

    network: str | None
    of_clip: Callable[[Any, MeasuredClip], Measured]


def _one(value: float) -> Measured:
    return Measured(value, value)


def _per_frame(terms: Sequence[float]) -> Measured:
    return Measured(sum(terms) / len(terms), math.fsum(terms), len(terms))


def _hits(hits: int, frames: int = SEEN) -> Measured:
    return Measured(hits / frames, hits, frames, {"success_frame_count": hits, "frame_count": frames})


def _flicker(extractor: None, clip: MeasuredClip) -> Measured:
    return _one(rules.flicker_score(clip.stream()))


def _consistency(features: Any, clip: MeasuredClip) -> Measured:
    return _per_frame(rules.consistency_terms(torch.cat([features(batch) for batch in clip.batches()])))


def _smoothness(between: Any, clip: MeasuredClip) -> Measured:
    frames = list(clip.stream())
    kept, again = frames[::2], list[Tensor]()
    for first, second in pairwise(kept):
        again += [first, between(first, second)]
    return _one(rules.smoothness_score(frames, [*again, *kept[-1:]]))


def _dynamic_degree(flow: Any, clip: MeasuredClip) -> Measured:
    numbers = every(clip.video.num_frames, rules.frame_step(clip.video.fps))
    height, width = next(clip.video.stream([0])).shape[1:]
    speeds = (rules.fastest_mean(flow(*pair)) for pair in pairwise(clip.video.stream(numbers)))
    is_moving = rules.is_moving(speeds, num_frames=len(numbers), height=height, width=width)
    return Measured(is_moving, float(is_moving))


def _mean_of_frames(values: Any, clip: MeasuredClip) -> Measured:
    return _one(float(torch.cat([values(batch) for batch in clip.batches()]).double().mean()))


def _imaging_quality(quality: Any, clip: MeasuredClip) -> Measured:
    values = [quality(for_quality(batch.float() / 255, clip.resize)) for batch in clip.batches()]
    value = float(torch.cat(values).double().mean())
    return Measured(value, value / 100)


def for_quality(pictures: Tensor, resize: str) -> Tensor:
    """Pictures (n, 3, H, W), resized and cut as their quality is measured."""
    height, width = pictures.shape[-2:]
    fitted, kept = rules.quality_size(height, width, resize), rules.quality_crop(height, width, resize)
    if fitted != (height, width):
        pictures = F.interpolate(pictures, size=fitted, mode="bilinear", align_corners=False)
    top, left = (round((have - keep) / 2) for have, keep in zip(fitted, kept, strict=True))
    return pictures[:, :, top : top + kept[0], left : left + kept[1]]


def _objects(detect: Any, clip: MeasuredClip, dimension: str) -> Measured:
    return _hits(rules.object_hits(clip.wanted(dimension, "object"), detect(clip.for_detector())))


def _human_action(classify: Any, clip: MeasuredClip) -> Measured:
    is_right = rules.has_action(rules.action_of(clip.path.name), classify(clip.middle(SEEN)))
    return Measured(is_right, float(is_right))


def _color(describe: Any, clip: MeasuredClip) -> Measured:
    colour = clip.wanted("color", "color")
    word = rules.object_word(clip.prompt, colour)
    coloured, right = rules.colour_count(colour, word, describe(clip.for_detector()))
    share = right / coloured if coloured else 0.0
    # A clip without a frame in which the object has a colour is left out.
    return Measured(share, share, float(coloured > 0), {"success_frame_count": right, "frame_count": coloured})


def _spatial_relationship(locate: Any, clip: MeasuredClip) -> Measured:
    wanted = clip.wanted("spatial_relationship", "spatial_relationship")
    return _per_frame([rules.relation_score(wanted, seen) for seen in locate(clip.for_detector())])


def _scene(caption: Any, clip: MeasuredClip) -> Measured:
    return _hits(rules.scene_hits(clip.wanted("scene", "scene", "scene"), caption(clip.middle(SEEN))))


def _appearance_style(likeness: Any, clip: MeasuredClip) -> Measured:
    style = clip.wanted("appearance_style", "appearance_style")
    return _per_frame(torch.cat([likeness(batch, style) for batch in clip.batches()]).double().tolist())


def _video_and_text(likeness: Any, clip: MeasuredClip) -> Measured:
    return _one(float(likeness(clip.middle(WATCHED), clip.prompt)))


def _picture(features: Any, clip: MeasuredClip) -> Measured:
    if clip.picture is None:
        raise ValueError("the folder of the pictures is not given (--images)")
    with open_pixels(clip.picture, first_only=True) as picture:
        if not isinstance(picture, Tensor):
            raise ValueError(f"{clip.picture} is no picture")
        wanted = features(picture[None])
    return _one(rules.picture_score(wanted, torch.cat([features(batch) for batch in clip.batches()])))


def _camera_motion(track: Any, clip: MeasuredClip) -> Measured:
    side = min(next(clip.video.stream([0])).shape[1:])
    first, last = track(clip.stream())
    is_right = rules.camera_motion_of(clip.path.name) in rules.camera_motions(first, last, side)
    return Measured(is_right, float(is_right))


_GRIT = "GRiT"
#: Extractors by the names of arguments above. features, values: batch -> (n, D), (n,); between, flow: two frames ->
#: one, (2, H, W); quality: pictures in [0, 1] -> (n,) of 0 to 100; detect, describe, locate: of the objects of each
#: frame their names, (caption, class), (class, box); caption: a text for each frame; classify: five (label, score) of
#: the whole batch; likeness: of frames and a text; track: all frames -> positions (100, 2) in the first and the last.
MEASURES: Mapping[str, Measure] = {
    "subject_consistency": Measure("DINO ViT-B/16", _consistency),
    "imaging_quality": Measure("MUSIQ (SPAQ)", _imaging_quality),
    "background_consistency": Measure("CLIP ViT-B/32", _consistency),
    "motion_smoothness": Measure("AMT-S", _smoothness),
    "overall_consistency": Measure("ViCLIP", _video_and_text),
    "human_action": Measure("UMT ViT-L", _human_action),
    "multiple_objects": Measure(_GRIT, partial(_objects, dimension="multiple_objects")),
    "spatial_relationship": Measure(_GRIT, _spatial_relationship),
    "object_class": Measure(_GRIT, partial(_objects, dimension="object_class")),
    "color": Measure(_GRIT, _color),
    "aesthetic_quality": Measure("CLIP ViT-L/14 and the LAION head", _mean_of_frames),
    "appearance_style": Measure("CLIP ViT-B/32", _appearance_style),
    "temporal_flickering": Measure(None, _flicker),
    "scene": Measure("Tag2Text", _scene),
    "temporal_style": Measure("ViCLIP", _video_and_text),
    "dynamic_degree": Measure("RAFT", _dynamic_degree),
    "i2v_subject": Measure("DINO ViT-B/16", _picture),
    "i2v_background": Measure("DreamSim", _picture),
    "camera_motion": Measure("CoTracker2", _camera_motion),
}
