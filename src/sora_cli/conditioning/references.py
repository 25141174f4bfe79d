"""What a clip is given beside its prompt: pictures and videos, and where in it they go. No deep-learning library."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError

from .long_video import Segments, overlap_of
from .mask_strategy import Group, Placement, frame_mask, parse_strategy, place
from .sources import Source, Sources

if TYPE_CHECKING:
    from sora_cli.config.schema import ConditioningSection
    from sora_cli.plugin.specs import VAESpec

#: Latent frames; more than any reference has.
ANY_LENGTH = 10**6
_KEYFRAME = re.compile(r"(?P<path>.+)@(?P<time>\d+(?:\.\d+)?)(?P<unit>s?)\Z")


@dataclass(frozen=True)
class Still:
    """A picture at one place of a clip. reference: its number; latent: the latent frame it becomes in a part."""

    reference: int
    latent: int
    part: int = 0


@dataclass(frozen=True)
class Extension:
    """A video that goes on. overlap: its frames that are in the sampled clip too, at its start or, backward, its end.

    new: frames that are added; sampled: frames of the sampled clip. then: a backward one, to which the new part leads.
    """

    file: Path
    digest: str
    overlap: int
    new: int
    sampled: int
    is_backward: bool = False
    then: Extension | None = None

    @property
    def videos(self) -> tuple[Extension, ...]:
        """This one and the one after the new part."""
        return (self,) if self.then is None else (self, self.then)

    @property
    def start(self) -> int:
        """The first of the sampled frames that is new."""
        return self.sampled - self.overlap - self.new if self.is_backward else self.overlap


@dataclass(frozen=True)
class Given:
    """Everything that one clip is given. files: the references; groups: of a mask strategy; stills: of named modes.

    reference_text, strategy_text: as they are said for this clip alone. align: see `mask_strategy.place`.
    """

    files: tuple[Path, ...] = ()
    digests: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    stills: tuple[Still, ...] = ()
    extension: Extension | None = None
    reference_text: str = ""
    strategy_text: str = ""
    align: int | None = None

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.groups or self.stills or self.extension)

    def record(self) -> dict[str, Any]:
        """For the settings of a clip and their hash; {} without anything."""
        if not self:
            return {}
        return {
            "given": {
                "references": list(self.digests),
                "mask_strategy": ";".join(map(str, self.groups)),
                **({"align": self.align} if self.groups and self.align is not None else {}),
                "stills": [
                    [still.reference, still.latent, *([still.part] if still.part else [])] for still in self.stills
                ],
                **dict(zip(("extension", "then"), map(_record, self.videos), strict=False)),
            }
        }

    @property
    def videos(self) -> tuple[Extension, ...]:
        """The videos that go on, in their order."""
        return self.extension.videos if self.extension else ()

    @property
    def read(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (*self.files, *(each.file for each in self.videos))

    def placements(self, latent_frames: int, reference_frames: Sequence[int], part: int = 0) -> list[Placement]:
        """Where whole references go in a part of the clip; see `mask_strategy.place`."""
        return place(
            self.groups, loop=part, latent_frames=latent_frames, reference_frames=reference_frames, align=self.align
        )

    def keeps_first(self, latent_frames: int) -> bool:
        """Whether the first latent frame of a clip is given, and kept as it is."""
        anything = [ANY_LENGTH] * len(self.files)  # how long references are does not matter here
        mask = frame_mask(self.placements(latent_frames, anything), latent_frames)
        return mask[0] == 0 or any(still.latent == 0 for still in self.stills)


def _record(extension: Extension) -> dict[str, Any]:
    record = {name: getattr(extension, name) for name in ("digest", "overlap", "new", "is_backward")}
    # How new frames meet those of the video: clips made without it are other clips.
    return {**record, "seam": "carried"}


def given_to(
    conditioning: ConditioningSection,
    settings: dict[str, Any],
    *,
    prompt: int,
    num_prompts: int,
    vae: VAESpec,
    num_frames: int,
    fps: float,
    segments: Segments | None = None,
    sources: Sources | None = None,
) -> Given:
    """What the clip of a prompt is given. settings: of the prompt's own JSON, which win. segments: None for one part.
    sources: of the run.

    Raises UsageError for files that are not there, grammar errors, times outside the clip, two pictures at one place.
    """
    sources = sources or Sources()
    references = _of_prompt(conditioning.references, "reference", prompt, num_prompts)
    strategy = _of_prompt(conditioning.mask_strategy, "mask strategy", prompt, num_prompts)
    if "reference_path" in settings:
        references = settings["reference_path"]
    if "mask_strategy" in settings:
        strategy = settings["mask_strategy"]
    texts = [text for text in (references or "").split(";") if text]
    groups = parse_strategy(strategy)
    if (conditioning.extend or conditioning.connect) and (texts or strategy):
        raise UsageError("a video that goes on takes no other pictures or videos, and the prompt names some")
    if conditioning.edit is not None:
        if texts or strategy:
            raise UsageError("--edit and --reference are two ways to give a video", hint="give one of them")
        if conditioning.strength < 1:  # at 1 nothing of the video is left
            texts = [conditioning.edit]
            groups = (Group(length=vae.latent_frames(num_frames), edit_ratio=conditioning.strength),)
    if groups and not texts:
        raise UsageError(f"the mask strategy {strategy!r} has no reference", hint="give one with --reference")
    if texts and not groups:
        groups = (Group(),)  # the first frame, as a picture alone is meant
    count, latent_frames = len(texts), vae.latent_frames(num_frames)
    starts = Given(tuple(map(Path, texts)), groups=groups, align=conditioning.align)
    # A loop ends with the beginning that it is given; without one, it leaves out the frames in front of its ring.
    is_loop = conditioning.seamless and vae.leading_frames > 0
    is_given = is_loop and (conditioning.first is not None or starts.keeps_first(latent_frames))
    lead = vae.leading_frames if is_loop and not is_given else 0
    parts = segments or Segments(1, num_frames, num_frames)
    named = _named_stills(conditioning, vae, parts, fps, sources, lead=lead)
    found = [sources(text) for text in (*texts, *(path for path, _ in named))]
    stills = tuple(Still(count + index, latent, part) for index, (_, (part, latent)) in enumerate(named))
    said = (";".join(map(sources.said, texts)), ";".join(map(str, groups)))
    said = ("", "") if conditioning.edit is not None else said
    files, digests = (tuple(each.path for each in found), tuple(each.digest for each in found))
    given = Given(files, digests, groups, stills, None, *said, conditioning.align)
    return _end_of_loop(given, latent_frames) if is_given else given


def extension_of(
    conditioning: ConditioningSection,
    vae: VAESpec,
    num_frames: int,
    accepted: Callable[[int], int],
    sources: Sources | None = None,
) -> Extension | None:
    """How a video goes on by `num_frames`; None when none does. accepted: the least length from one that can be made.

    Between two videos the new part may be longer than asked for: the second one starts where a piece does. A picture
    that leads to a video is the first of the new frames. Raises UsageError for an overlap that the autoencoder cannot
    code by itself, and a video that is not there.
    """
    texts: tuple[str, ...] = conditioning.connect or (() if conditioning.extend is None else (conditioning.extend,))
    if not texts:
        return None
    others = ("first", "last", "keyframes", "edit", "references", "mask_strategy", *(("extend",) if texts[1:] else ()))
    if rival := next((name for name in others if getattr(conditioning, name)), None):
        what = "--connect" if conditioning.connect else "a video that goes on"
        raise UsageError(f"{what} takes no other pictures or videos, and {rival} is given")
    videos = list(map(sources or Sources(), texts))
    is_backward = conditioning.backward
    if conditioning.connect:
        is_backward = _is_picture(videos[0])
        videos = [video for video in videos if not _is_picture(video)]
        if not videos:
            return None
    overlap, piece = overlap_of(vae, conditioning.overlap, is_backward=is_backward)
    if len(videos) == 2:
        second = overlap - vae.leading_frames  # as many pieces as of the first, or one
        second, _ = overlap_of(vae, second or piece, is_backward=True)
        sampled = _whole_length(overlap + num_frames + second, vae.leading_frames, piece, accepted)
        new = sampled - overlap - second
        then = Extension(videos[1].path, videos[1].digest, second, new, sampled, is_backward=True)
        return Extension(videos[0].path, videos[0].digest, overlap, new, sampled, then=then)
    sampled = num_frames + overlap
    if is_backward:  # the end of the clip must be the end of a piece
        sampled = _whole_length(sampled, vae.leading_frames, piece, accepted)
    else:
        sampled = accepted(sampled)
    new = sampled - overlap if is_backward and conditioning.connect else num_frames
    return Extension(videos[0].path, videos[0].digest, overlap, new, sampled, is_backward)


def _whole_length(least: int, leading: int, piece: int, accepted: Callable[[int], int]) -> int:
    """The least number of frames, from `least` on, that is whole pieces and can be made."""
    while True:
        whole = leading + -(-(least - leading) // piece) * piece
        least = accepted(whole)
        if least == whole:
            return whole


def _of_prompt(entries: Sequence[str], what: str, prompt: int, num_prompts: int) -> str | None:
    """The entry of a prompt: each has its own, or one is for all."""
    if not entries:
        return None
    if len(entries) == 1:
        return entries[0]
    if len(entries) != num_prompts:
        raise UsageError(
            f"there are {len(entries)} of --{what.replace(' ', '-')} and {num_prompts} prompts",
            hint="give one for all prompts, or one for each",
        )
    return entries[prompt]


def _named_stills(
    conditioning: ConditioningSection, vae: VAESpec, segments: Segments, fps: float, sources: Sources, *, lead: int
) -> list[tuple[str, tuple[int, int]]]:
    """(path, (part, latent frame)) of the first, the last and the key pictures. Raises UsageError.

    lead: sampled frames in front of the video.
    """
    num_frames = segments.total
    frames: list[tuple[str, int]] = []
    first, last = conditioning.first, conditioning.last
    if conditioning.connect is not None:
        first, last = (text if _is_picture(sources(text)) else None for text in conditioning.connect)
    if first is not None:
        frames.append((first, 0))
    for text in conditioning.keyframes:
        match = _KEYFRAME.match(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no picture with a time", hint="the form is --keyframe IMAGE@2.5s, or @60 frames"
            )
        frame = round(float(match["time"]) * (fps if match["unit"] else 1))
        if frame >= num_frames:
            raise UsageError(f"{text!r} is after the end: the clip has {num_frames} frames, {num_frames / fps:.2f} s")
        frames.append((match["path"], frame))
    if last is not None:
        frames.append((last, num_frames - 1))
    located = [(path, *segments.locate(frame)) for path, frame in frames]
    found = [(path, (part, vae.latent_frames(lead + frame + 1) - 1)) for path, part, frame in located]
    places = [where for _, where in found]
    for (path, where), (_, frame) in zip(found, frames, strict=True):
        if places.count(where) > 1:
            raise UsageError(f"{path} and another picture are at frame {frame}, or too near to it")
    return found


def _end_of_loop(given: Given, latent_frames: int) -> Given:
    """The same with what is in the first latent frame in the last one too: the clip leads back into it.

    Raises UsageError where something else is given there.
    """
    end = latent_frames - 1
    anything = [ANY_LENGTH] * len(given.files)
    placed = zip(
        given.placements(latent_frames, anything), (each for each in given.groups if not each.loop), strict=True
    )
    starts = {each.target: group for each, group in placed}
    if end in starts or any(still.latent == end for still in given.stills):
        raise UsageError(
            "something is given at the end of a loop, where it leads back into its beginning",
            hint="leave out --seamless, or what is given there",
        )
    if first := next((still for still in given.stills if still.latent == 0), None):
        return replace(given, stills=(*given.stills, replace(first, latent=end)))
    return replace(given, groups=(*given.groups, replace(starts[0], target_start=end, length=1)))


def _is_picture(source: Source) -> bool:
    from sora_cli.video.pictures import is_still

    return is_still(source.path)


def still_window(vae: VAESpec, num_frames: int, latent: int) -> tuple[int, int]:
    """How often a picture is repeated to be encoded for a place in a clip, and which of its latent frames is taken.

    A latent frame codes several frames, and depends on the piece that it is coded in: what comes out is the latent of a
    clip that stands still there. The first frame is coded as a picture, as the released models were used.
    """
    if latent == 0:
        return 1, 0
    if vae.piece_frames is None:
        return num_frames, latent
    if vae.leading_frames:
        count = vae.leading_frames + vae.piece_frames
        return count, vae.latent_frames(count) - 1
    start = 0
    while vae.latent_frames(start + vae.piece_frames) <= latent:
        start += vae.piece_frames
    return min(vae.piece_frames, num_frames - start), latent - vae.latent_frames(start) if start else latent
