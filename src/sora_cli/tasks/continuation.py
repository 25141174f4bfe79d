"""Decoding the parts of a clip one after the other, and what the next part goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.plugin.blame import wrong_result
from sora_cli.video.latents import to_frames

from .components import Parts, is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .given import GivenLatents
    from .plan import GeneratePlan


class Continuation:
    """The end of a clip that is made part by part: as many latents and frames after ten parts as after one.

    latents: (C, t, h, w), those that decoding the next part and sampling it need. frames: (1, 3, T, H, W), the last
    ones as they were decoded, where they have to be encoded.
    """

    def __init__(self, plan: GeneratePlan, parts: Parts, *, lead: int = 0) -> None:
        """lead: first latent frames of a loop that are not in the video: its own end is before its beginning."""
        self.plan, self.parts, self.lead = plan, parts, lead
        self.latents: Tensor | None = None
        self.frames: Tensor | None = None

    def decode(self, latents: Tensor, index: int, title: str) -> Iterator[NDArray[np.uint8]]:
        """Frames (T, H, W, 3) uint8 that a part adds to the clip, piece by piece.

        latents: (C, T, h, w) of the part; index: its number. Each clip is decoded alone: no batch changes its bytes.
        An autoencoder that looks back sees the latents before the part, so nothing shows where parts meet. Out of
        memory, what is missing is decoded once more, one frame at a time. Raises ValueError when the decoder gives
        another shape than planned.
        """
        plan, vae, shape = self.plan, self.plan.components.vae, self.plan.shape
        start, end = plan.segments.span(index)
        new = latents[:, vae.latent_frames(start) if start else 0 : vae.latent_frames(end)]
        if self.lead:
            self.latents = new = latents[:, self.lead :]
        stream, known = new, 0
        before = max(vae.context_latents, self.lead)
        if self.latents is not None and before:
            context = self.latents[:, -before:].to(new)
            stream, known = torch.cat([context, new], dim=1), vae.most_frames(context.shape[1])
        done = known
        with get_console().progress(title, end - start) as progress:
            for pixels in self._decode(stream, known + end - start, known):
                # An autoencoder of whole blocks decodes a little more than the clip at the right and bottom.
                frames = to_frames(pixels[0, :, :, : shape.height, : shape.width])
                if frames.shape[1:] != (shape.height, shape.width, 3):
                    wanted = (shape.height, shape.width, 3)
                    raise wrong_result(vae, f"decoded frames of {frames.shape[1:]}, not {wanted}")
                self._keep_frames(pixels)
                done += len(frames)
                yield frames
                progress.update(done - known)
        if done != known + end - start:
            raise wrong_result(vae, f"decoded {done} frames, not {known + end - start}")
        self._keep_latents(new)

    def _decode(self, stream: Tensor, num_frames: int, done: int) -> Iterator[Tensor]:
        """Pixels (1, 3, some, H, W) of latents (C, T, h, w) from frame `done` on."""
        self.parts.enter("vae")
        try:
            for pixels in self._frames_from(done, stream, num_frames):
                done += pixels.shape[2]
                yield pixels
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.parts.decode_frames == 1:
                raise
        get_console().note("out of memory; once more, decoding one frame at a time")
        self.parts.decode_frames = 1
        self.parts.free_memory()
        yield from self._frames_from(done, stream, num_frames)

    def _frames_from(self, first: int, stream: Tensor, num_frames: int) -> Iterator[Tensor]:
        place = 0
        for pixels in self.parts.vae.decode(stream[None], num_frames, frames_at_once=self.parts.decode_frames):
            skipped = min(max(0, first - place), pixels.shape[2])
            place += pixels.shape[2]
            if skipped < pixels.shape[2]:
                yield pixels[:, :, skipped:]

    def _keep_latents(self, new: Tensor) -> None:
        segments, vae = self.plan.segments, self.plan.components.vae
        joined = new if self.latents is None else torch.cat([self.latents, new], dim=1)
        most = max(vae.context_latents, segments.overlap_latents)
        self.latents = joined[:, joined.shape[1] - min(most, joined.shape[1]) :].clone() if segments.count > 1 else None

    def _keep_frames(self, pixels: Tensor) -> None:
        segments = self.plan.segments
        if segments.count == 1 or (segments.source == "latents" and not self.plan.components.vae.leading_frames):
            return
        pixels = pixels.cpu()
        joined = pixels if self.frames is None else torch.cat([self.frames, pixels], dim=2)
        self.frames = joined[:, :, -segments.overlap :].clone()

    def overlap(self, encoder: GivenLatents) -> Tensor:
        """Latents (C, t, h, w) that the next part starts with.

        Sampled latents are taken as they are, except where the first latents of a clip are of another kind than later
        ones: those code frames alone, and are encoded from the decoded frames at their place.
        """
        segments, vae = self.plan.segments, self.plan.components.vae
        assert self.latents is not None  # a part was decoded
        if segments.source == "frames":
            assert self.frames is not None
            return encoder.coded(self.frames)
        leading = vae.latent_frames(vae.leading_frames) if vae.leading_frames else 0
        count = segments.overlap_latents - leading
        taken = self.latents[:, self.latents.shape[1] - count :].float()
        if not leading:
            return taken
        assert self.frames is not None
        return torch.cat([encoder.coded(self.frames[:, :, : vae.leading_frames]).to(taken), taken], dim=1)
