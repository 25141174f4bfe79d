"""What is looked at before anything heavy is loaded: whether pictures and videos can be read and are long enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sora_cli.conditioning.loops import Loop
from sora_cli.conditioning.references import Extension, Given
from sora_cli.conditioning.sources import Sources
from sora_cli.console import counted
from sora_cli.errors import UsageError

if TYPE_CHECKING:
    from sora_cli.config.resolve import Resolved
    from sora_cli.config.schema import GenerateConfig, ShapeSection
    from sora_cli.plugin.specs import VAESpec

#: Setting of conditioning -> the settings one of which it needs to have an effect.
NEEDS = {
    "backward": ("extend",),
    "overlap_strength": ("segments",),
    "overlap_from": ("segments",),
    "strength": ("edit",),
}


def check_given(
    given: Given, vae: VAESpec, latent_frames: int, config: GenerateConfig, fps: float, sources: Sources
) -> list[str]:
    """Notes on what of its references a clip does not use. latent_frames, fps: of the sampled clip.

    Raises SoraError for files that cannot be read, UsageError for videos that are too short, for references that a
    mask strategy names and that are not there, and for places outside the clip or the reference.
    """
    if not given:
        return []
    from .given import count_frames

    counts = {path: count_frames(path, fps) for path in dict.fromkeys(given.read)}
    for video in given.videos:
        name = sources.name(video.file)
        if counts[video.file] == 1 < video.overlap:
            raise UsageError(
                f"{name} is a single picture, and a video goes on from {video.overlap} frames",
                hint="sora i2v makes a video from a picture",
            )
        if counts[video.file] < video.overlap:
            raise UsageError(
                f"{name} has {counted(counts[video.file], 'frame')}, fewer than the overlap of {video.overlap}",
                hint="choose a smaller --overlap",
            )
    parts = config.shape.segments
    if config.conditioning.edit is not None and parts > 1:
        raise UsageError("--edit changes one clip, and --segments makes several", hint="leave out --segments")
    for part in range(parts):
        given.placements(latent_frames, [vae.latent_frames(counts[path]) for path in given.files], part)
    notes = [
        f"the group {group} of the mask strategy is not used: the video has the parts 0 to {parts - 1}"
        for group in given.groups
        if not 0 <= group.loop < parts
    ]
    named = {group.reference for group in given.groups} | {still.reference for still in given.stills}
    unnamed = [sources.name(path) for index, path in enumerate(given.files) if index not in named]
    if unnamed:
        notes.append(f"not used: {', '.join(unnamed)}; no group of the mask strategy names it")
    if config.conditioning.edit is not None and given.files:
        notes += _of_edited(sources.name(given.files[0]), counts[given.files[0]], latent_frames, vae)
    return notes


def _of_edited(name: str, count: int, latent_frames: int, vae: VAESpec) -> list[str]:
    """A note where the video and the clip are not of one length."""
    length = vae.latent_frames(count)
    if length > latent_frames:
        return [f"{name} has {counted(count, 'frame')}, more than the clip: the rest is not used"]
    if length < latent_frames:
        return [
            f"{name} has {counted(count, 'frame')}, fewer than the clip: the rest is made anew; "
            f"--frames {count} is its length"
        ]
    return []


def check_length(
    shape: ShapeSection, asked: int, vae: VAESpec, extension: Extension | None, loop: Loop | None
) -> list[str]:
    """Notes on a length that whole pieces of an autoencoder do not give. asked: frames.

    Raises UsageError where it was asked for in frames.
    """
    if loop is not None:
        what, made = "a loop", loop.frames
    elif extension is not None:
        what, made = "what leads to a video", extension.new
    else:
        return []
    if made == asked:
        return []
    piece = vae.piece_frames or 1
    if shape.frames is not None:
        near = sorted({made, made - piece if made > asked else made + piece})
        raise UsageError(
            f"{what} of {asked} frames is not whole pieces of {vae.name}",
            hint=f"near it: --frames {' or '.join(str(frames) for frames in near if frames > 0)}",
        )
    return [f"{what} is whole pieces of {piece} frames, so it has {made} instead of {asked}"]


def unused_settings(resolved: Resolved, givens: Sequence[Given]) -> list[str]:
    """Notes about settings for pictures and videos that none of the clips is given."""
    conditioning = resolved.config.conditioning
    fields = type(conditioning).model_fields

    def is_set(name: str) -> bool:
        origin = resolved.origins.get(f"conditioning.{name}", "default")
        if origin.startswith("model "):
            return False  # what a model needs whenever it is given something
        return origin == "flag" or getattr(conditioning, name) != fields[name].default

    given = {name for name in fields if getattr(conditioning, name) is not None}
    given |= {"segments"} if resolved.config.shape.segments > 1 else set()
    notes = [
        f"--{name.replace('_', '-')} has no effect without --{' or --'.join(needed)}"
        for name, needed in NEEDS.items()
        if is_set(name) and not given & set(needed)
    ]
    if is_set("overlap") and "segments" not in given and not any(each.videos for each in givens):
        notes.append("--overlap has no effect without --segments or a video that goes on")
    if not resolved.config.prompt.refine and not resolved.config.prompt.refine_motion:
        notes += [
            f"--{name.replace('_', '-')} has no effect without --refine"
            for name in ("refine_model", "refine_timeout")
            if resolved.origins.get(f"prompt.{name}") == "flag"
        ]
    if is_set("align") and not any(given.groups for given in givens):
        notes.append("--align has no effect without --reference and --mask-strategy")
    return notes
