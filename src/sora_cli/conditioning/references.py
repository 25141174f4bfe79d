"""What a clip is given beside its prompt: pictures and videos, and where in it they go. No deep-learning library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError

from .mask_strategy import Group, Placement, parse_strategy, place

if TYPE_CHECKING:
    from sora_cli.config.schema import ConditioningSection
    from sora_cli.plugin.specs import VAESpec

_KEYFRAME = re.compile(r"(?P<path>.+)@(?P<time>\d+(?:\.\d+)?)(?P<unit>s?)\Z")
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Still:
    """A picture at one place of a clip. reference: its number; latent: the latent frame it becomes."""

    reference: int
    latent: int


@dataclass(frozen=True)
class Given:
    """Everything that one clip is given. files: the references; groups: of a mask strategy; stills: of named modes."""

    files: tuple[Path, ...] = ()
    digests: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    stills: tuple[Still, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.groups or self.stills)

    def record(self) -> dict[str, Any]:
        """For the settings of a clip and their hash; {} without anything."""
        if not self:
            return {}
        return {
            "given": {
                "references": list(self.digests),
                "mask_strategy": ";".join(map(str, self.groups)),
                "stills": [[still.reference, still.latent] for still in self.stills],
            }
        }

    def placements(self, latent_frames: int, reference_frames: Sequence[int], align: int | None) -> list[Placement]:
        """Where whole references go; see `mask_strategy.place`."""
        return place(self.groups, loop=0, latent_frames=latent_frames, reference_frames=reference_frames, align=align)


def given_to(
    conditioning: ConditioningSection,
    settings: dict[str, Any],
    *,
    prompt: int,
    num_prompts: int,
    vae: VAESpec,
    num_frames: int,
    fps: float,
) -> Given:
    """What the clip of a prompt is given. settings: of the prompt's own JSON, which win.

    Raises UsageError for files that are not there, grammar errors, times outside the clip, two pictures at one place.
    """
    named = _named_stills(conditioning, vae, num_frames, fps)
    references = _of_prompt(conditioning.references, "reference", prompt, num_prompts)
    strategy = _of_prompt(conditioning.mask_strategy, "mask strategy", prompt, num_prompts)
    if "reference_path" in settings:
        references = settings["reference_path"]
    if "mask_strategy" in settings:
        strategy = settings["mask_strategy"]
    texts = [text for text in (references or "").split(";") if text]
    groups = parse_strategy(strategy)
    if conditioning.edit is not None:
        if texts:
            raise UsageError("--edit and --reference are two ways to give a video", hint="give one of them")
        texts = [conditioning.edit]
        groups = (Group(length=vae.latent_frames(num_frames), edit_ratio=conditioning.strength),)
    if groups and not texts:
        raise UsageError(f"the mask strategy {strategy!r} has no reference", hint="give one with --reference")
    if texts and not groups:
        groups = (Group(),)  # the first frame, as a picture alone is meant
    count = len(texts)
    files = _files([*texts, *(path for path, _ in named)])
    stills = tuple(Still(count + index, latent) for index, (_, latent) in enumerate(named))
    return Given(files, tuple(map(digest, files)), groups, stills)


def _of_prompt(entries: Sequence[str], what: str, prompt: int, num_prompts: int) -> str | None:
    """The entry of a prompt: each has its own, or one is for all."""
    if not entries:
        return None
    if len(entries) == 1:
        return entries[0]
    if len(entries) != num_prompts:
        raise UsageError(f"there are {len(entries)} of --{what.replace(' ', '-')} and {num_prompts} prompts")
    return entries[prompt]


def _named_stills(
    conditioning: ConditioningSection, vae: VAESpec, num_frames: int, fps: float
) -> list[tuple[str, int]]:
    """(path, latent frame) of the first, the last and the key pictures. Raises UsageError."""
    frames: list[tuple[str, int]] = []
    if conditioning.first is not None:
        frames.append((conditioning.first, 0))
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
    if conditioning.last is not None:
        frames.append((conditioning.last, num_frames - 1))
    found = [(path, vae.latent_frames(frame + 1) - 1) for path, frame in frames]
    places = [latent for _, latent in found]
    for (path, latent), (_, frame) in zip(found, frames, strict=True):
        if places.count(latent) > 1:
            raise UsageError(f"{path} and another picture are at frame {frame}, or too near to it")
    return found


def _files(texts: Sequence[str]) -> tuple[Path, ...]:
    paths = tuple(Path(text).expanduser() for text in texts)
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no picture or video {path}")
    return paths


def digest(path: Path) -> str:
    """16 hex digits of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()[:16]


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
