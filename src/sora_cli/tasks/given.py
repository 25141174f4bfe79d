"""Latents of what clips are given, written into their noise, and the masks that keep them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sora_cli.conditioning.mask_strategy import frame_mask
from sora_cli.conditioning.references import Extension, Still, still_window
from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError

if TYPE_CHECKING:
    from sora_cli.video.shapes import Size

    from .components import Parts
    from .plan import Clip, GeneratePlan


#: Frames of a video that are read at a time.
FRAMES_AT_ONCE = 16


class GivenLatents:
    """Encodes references, each once for all clips of a run."""

    def __init__(self, plan: GeneratePlan, parts: Parts) -> None:
        self.plan, self.parts = plan, parts
        self._known: dict[tuple[Path, Still | int], Tensor] = {}
        self._overlaps: dict[Extension, Tensor] = {}
        self._said: set[Path] = set()

    def into(
        self, noise: Tensor, clips: Sequence[Clip], part: int = 0, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Noise (n, C, T, h, w) with what each clip is given in it, and the mask (n, T); None when nothing is given.

        part: of the clips; before: (n, C, t, h, w), what each goes on from, which lies over all else.
        """
        if before is None and not any(clip.given for clip in clips):
            return noise, None
        rows, masks = [], []
        for row, clip in zip(noise, clips, strict=True):
            given, mask = self._into(row.clone(), clip, part)
            rows.append(given)
            masks.append(mask)
        given, mask = torch.stack(rows), torch.stack(masks).to(noise.device)
        if before is not None:
            given[:, :, : before.shape[2]] = before.to(given)
            mask[:, : before.shape[2]] = self.plan.segments.strength
        return given, mask

    def _into(self, row: Tensor, clip: Clip, part: int) -> tuple[Tensor, Tensor]:
        frames = row.shape[1]
        files = clip.given.files
        groups = [group for group in clip.given.groups if group.loop == part]
        named = {group.reference for group in groups if 0 <= group.reference < len(files)}
        vae = self.plan.components.vae
        fps = float(self.plan.shape.fps)
        lengths = [
            vae.latent_frames(count_frames(path, fps)) if index in named else 0 for index, path in enumerate(files)
        ]
        placements = [
            each for each in clip.given.placements(frames, lengths, part) if each.edit_ratio < 1
        ]  # 1 is noise
        ends: dict[int, int] = {}
        for each in placements:
            ends[each.reference] = max(ends.get(each.reference, 0), each.source + each.length)
        encoded = {index: self._latents(files[index], end) for index, end in ends.items()}
        mask = frame_mask(placements, frames)
        for each in placements:
            piece = encoded[each.reference][:, each.source : each.source + each.length]
            row[:, each.target : each.target + each.length] = piece.to(row)
        for extension in clip.given.videos if not part else ():
            latents = self._overlap(extension)
            start = frames - latents.shape[1] if extension.is_backward else 0
            row[:, start : start + latents.shape[1]] = latents.to(row)
            mask[start : start + latents.shape[1]] = [0.0] * latents.shape[1]
        for still in (each for each in clip.given.stills if each.part == part):
            row[:, still.latent] = self._latents(clip.given.files[still.reference], still)[:, 0].to(row)
            mask[still.latent] = 0.0
        return row, torch.tensor(mask)

    def _overlap(self, extension: Extension) -> Tensor:
        """(C, T, h, w) of the frames of a video that its continuation is made from.

        What leads to a video ends with its first frame standing still for a piece, where the decoder looks back and
        makes a movement of that: a network leads into what it is given less well than it goes on from it.
        """
        if extension not in self._overlaps:
            vae = self.plan.components.vae
            self._say_changes(extension.file)
            frames = list(source_frames(self.plan, extension, only_overlap=True))
            continues = {"continues": True} if extension.is_backward and vae.leading_frames else {}
            if continues and vae.piece_frames and extension.new >= 2 * vae.piece_frames:
                frames.insert(0, frames[0][:, :, :1].expand(-1, -1, vae.piece_frames, -1, -1))
            self._overlaps[extension] = self.coded(torch.cat(frames, dim=2), **continues)
        return self._overlaps[extension]

    def _latents(self, path: Path, still: Still | int) -> Tensor:
        """(C, 1, h, w) of a picture at a place, or (C, T, h, w) of at least so many latent frames of a reference."""
        key = (path, still)
        if key not in self._known:
            if not isinstance(still, Still):
                self._say_changes(path)
            self._known[key] = self._encode(path, still)
        return self._known[key]

    def _encode(self, path: Path, still: Still | int) -> Tensor:
        plan, vae = self.plan, self.plan.components.vae
        if isinstance(still, Still):
            count, place = still_window(vae, plan.shape.num_frames, still.latent)
            pixels = load_reference(path, fitted_to(plan), 1).expand(-1, -1, count, -1, -1)
            return self.coded(pixels)[:, place : place + 1]
        needed = 1
        while vae.latent_frames(needed) < still:
            needed += 1
        whole = needed  # up to the end of its piece, which is coded together
        if vae.piece_frames:
            whole = vae.leading_frames + -(-(needed - vae.leading_frames) // vae.piece_frames) * vae.piece_frames
        return self.coded(load_reference(path, fitted_to(plan), max(needed, whole), float(plan.shape.fps)))

    def _say_changes(self, path: Path) -> None:
        from sora_cli.video.clips import changes_in_clip

        if path not in self._said:
            self._said.add(path)
            for note in changes_in_clip(path, float(self.plan.shape.fps), self.plan.sources.name(path)):
                get_console().note(note)

    def coded(self, pixels: Tensor, **options: Any) -> Tensor:
        """The mean latents (C, T, h, w) of (1, 3, T, H, W)."""
        vae = self.plan.components.vae
        self.parts.enter("vae")
        if not hasattr(self.parts.vae, "encode"):
            raise MissingError(f"the autoencoder {vae.name} cannot encode, which pictures and videos need")
        if vae.is_sampled:
            options["sample"] = False
        latents: Tensor = self.parts.vae.encode(pixels.to(self.parts.device), **options)[0].float()
        return latents


def source_frames(
    plan: GeneratePlan, extension: Extension, *, only_overlap: bool = False, size: Size | None = None
) -> Iterator[Tensor]:
    """Frames (1, 3, T, H, W) in [-1, 1] of a video that goes on: all, or those that overlap.

    size: None takes that of the clip as it is made.

    Raises SoraError for a video that cannot be read.
    """
    from sora_cli.video.clips import open_clip

    fitted = "{}x{}".format(*(size or fitted_to(plan)))
    with open_clip(extension.file, size=fitted, clip_fps=float(plan.shape.fps)) as video:
        skipped = 0 if extension.is_backward else video.num_frames - extension.overlap
        first, count = (skipped, extension.overlap) if only_overlap else (0, video.num_frames)
        yield from video.only(first, count).pieces(FRAMES_AT_ONCE)


def fitted_to(plan: GeneratePlan) -> tuple[int, int]:
    """The height and width that pictures and videos are fitted to: what the latents of the clip cover."""
    shape = plan.shape
    if plan.components.vae.covers_edges:
        return shape.height, shape.width
    return shape.asked_height, shape.asked_width


def count_frames(path: Path, fps: float) -> int:
    """Frames of a picture, or of a video in a clip with `fps`. Raises SoraError."""
    from sora_cli.video.clips import open_clip

    with open_clip(path, clip_fps=fps) as clip:
        return clip.num_frames


def load_reference(path: Path, size: tuple[int, int], most: int, fps: float | None = None) -> Tensor:
    """A picture or the first frames of a video in a clip with `fps`, resized to cover (height, width) and cropped.

    fps: None for the place of a single picture, where an animation is one too. Returns (1, 3, T, H, W) in [-1, 1].

    Pictures are resized as 8-bit values, bicubic; videos bilinear (generation.md section 9). Raises SoraError.
    """
    from sora_cli.training.clip_reader import BadClipError
    from sora_cli.training.transforms import TRANSFORMS
    from sora_cli.video.clips import chosen_frames
    from sora_cli.video.pictures import open_pixels

    for_video, for_image = TRANSFORMS["resize_crop"]
    try:
        with open_pixels(path, first_only=fps is None) as source:
            if isinstance(source, Tensor):
                return for_image(source, size)[:, None][None]
            numbers = chosen_frames(source, fps) if fps is not None else list(range(source.num_frames))
            frames = [for_video(frame[None], size)[0] for frame in source.stream(numbers[:most])] if numbers else []
    except BadClipError as error:
        raise SoraError(f"{path}: {error}", hint="give a picture or a video that can be played") from error
    if not frames:
        raise SoraError(f"{path} has no frames")
    return torch.stack(frames, dim=1)[None]
