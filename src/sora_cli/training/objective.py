"""The loss of a batch: what is noised, what is given, what is dropped, all drawn from keys.

Every random number of a micro-batch comes from (seed, epoch, number of the micro-batch, purpose). So runs on any number
of ranks draw the same, ranks of a sequence group agree, and a resumed run needs no state of generators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sora_cli.conditioning.frame_masks import MaskRatios
from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import TextEncoder, VideoAutoencoder
from sora_cli.video.latents import NoiseShaper, key_seed

from .captions import with_motion
from .dataset import Batch

#: Captions encoded together; a batch of pictures has hundreds, whose attention weights would take gigabytes.
TEXTS_AT_ONCE = 64


class Encoded(NamedTuple):
    """A batch as the network takes it: latents (B, C, T, h, w) float32, y (B, 1, L, D), mask (B, L), sizes (B,).

    texts: what y was made of, with the measured motion where the table has it (`captions.with_motion`).
    """

    number: int
    latents: Tensor
    y: Tensor
    mask: Tensor
    sizes: dict[str, Tensor]
    texts: Sequence[str]

    @property
    def num_positions(self) -> int:
        """Latent positions of all clips."""
        return self.latents[:, 0].numel()


@dataclass(frozen=True)
class Encoders:
    """The frozen parts in front of the network.

    clips_at_once: clips that the autoencoder takes together, None for all of a batch.
    """

    vae: VideoAutoencoder
    text: TextEncoder
    device: torch.device
    clips_at_once: int | None = None
    aspect_condition: str = "h_over_w"

    def encode(self, batch: Batch, seed: int | None, *, update: int = 0) -> Encoded:
        """Latents and text of a batch. seed: of what the autoencoder samples; None to go on with torch's generator."""
        return self._with_texts(batch, *self.encode_clips(batch, seed))

    def encode_each(self, batch: Batch, seeds: Sequence[int]) -> Encoded:
        """As `encode`, every clip by itself with a seed of its own, so that none depends on the others of the batch."""
        one_by_one = zip(batch.pixels.split(1), batch.fps.split(1), seeds, strict=True)
        parts = [self.encode_clips(batch._replace(pixels=pixels, fps=fps), seed) for pixels, fps, seed in one_by_one]
        sizes = {name: torch.cat([of_clip[name] for _, of_clip in parts]) for name in parts[0][1]}
        return self._with_texts(batch, torch.cat([latents for latents, _ in parts]), sizes)

    @torch.no_grad()
    def _with_texts(self, batch: Batch, latents: Tensor, sizes: dict[str, Tensor]) -> Encoded:
        y, mask = encode_texts(self.text, batch.texts, self.device)
        texts = (
            [with_motion(*pair) for pair in zip(batch.texts, batch.clips, strict=True)] if batch.clips else batch.texts
        )
        return Encoded(batch.number, latents, y, mask, sizes, texts)

    @torch.no_grad()
    def encode_clips(self, batch: Batch, seed: int | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents and sizes alone."""
        if seed is not None:
            torch.manual_seed(seed)
        size = self.clips_at_once or len(batch.pixels)
        latents = [self.vae.encode(part.to(self.device, non_blocking=True)) for part in batch.pixels.split(size)]
        sizes = {**batch.sizes(self.aspect_condition), "fps": batch.fps.float()}
        return torch.cat(latents).float(), {name: value.to(self.device) for name, value in sizes.items()}


@torch.no_grad()
def encode_texts(encoder: TextEncoder, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Captions as the network takes them: y (B, 1, L, D) and mask (B, L)."""
    parts = [encoder.encode(list(texts[i : i + TEXTS_AT_ONCE])) for i in range(0, len(texts), TEXTS_AT_ONCE)]
    y, mask = (torch.cat(each) for each in zip(*parts, strict=True))
    # Encoders may run in inference mode, whose tensors no gradient can pass.
    return y.to(device).clone(), mask.to(device).clone()


@dataclass(frozen=True)
class Objective:
    """What is learned. scheduler: with `draw_times` and `loss`; text_drop: chance that a caption is dropped;
    token_drop: chance of each of its tokens to be left out; shaper: makes noise depend on the text, see
    `ModelSpec.noise`.
    """

    scheduler: Any
    seed: int
    masks: MaskRatios | None = None
    text_drop: float = 0.0
    token_drop: float = 0.0
    shaper: NoiseShaper | None = None

    def note(self, name: str, value: Tensor | None) -> None:
        """There are no further terms."""
        raise TypeError(f"a diffusion model is not trained against anything, so there is no {name}")

    def losses(self, model: Any, batch: Encoded, epoch: int) -> Tensor:
        """The loss of each sample, (B,)."""
        latents, device = batch.latents, batch.latents.device
        count, _, frames = latents.shape[:3]
        key = (self.seed, epoch, batch.number)
        noise = torch.randn(latents.shape, generator=_generator(*key, "noise"))
        noise = self.shaped(noise, batch, [(*key, "shared", index) for index in range(count)]).to(device)
        t = self.scheduler.draw_times(
            count,
            height=batch.sizes["height"],
            width=batch.sizes["width"],
            num_frames=batch.sizes["num_frames"],
            latent_frames=torch.full((count,), float(frames), device=device),
            generator=_generator(*key, "times"),
        ).to(device)
        conditioning: dict[str, Any] = {**batch.sizes, "y": batch.y, "mask": self._kept_tokens(batch.mask, key)}
        # Said in any case: a network in training that is not told draws for itself.
        drawn = torch.rand(count, generator=_generator(*key, "text")) < self.text_drop
        conditioning["drop_ids"] = drawn.long().to(device)
        torch.manual_seed(key_seed(*key, "network"))  # for what is random inside the network
        losses: Tensor = self.scheduler.loss(
            model, latents, noise=noise, t=t, frame_mask=self._frame_mask(count, frames, key, device), **conditioning
        )
        return losses

    def _kept_tokens(self, mask: Tensor, key: Sequence[Any]) -> Tensor:
        """The mask (B, L) without the tokens that are left out; a caption that would lose all keeps them."""
        if not self.token_drop:
            return mask
        kept = mask * (torch.rand(mask.shape, generator=_generator(*key, "tokens")) >= self.token_drop).to(mask)
        return torch.where(kept.any(dim=1, keepdim=True), kept, mask)

    def losses_at(
        self, model: Any, batch: Encoded, t: float, *, noise: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """The loss of each sample at one time, (B,), with nothing drawn. frame_mask: (B, T) bool, True = learn."""
        losses: Tensor = self.scheduler.loss(
            model,
            batch.latents,
            noise=noise,
            t=torch.full((len(noise),), t, device=noise.device),
            frame_mask=frame_mask,
            y=batch.y,
            mask=batch.mask,
            **batch.sizes,
        )
        return losses

    def shaped(self, noise: Tensor, batch: Encoded, keys: Sequence[Sequence[Any]]) -> Tensor:
        """The noise of a batch as the model wants it; keys: of each clip, for what is drawn in that.

        Raises SoraError when that needs captions and there are none.
        """
        if self.shaper is None:
            return noise
        if len(batch.texts) != len(noise):
            raise SoraError(
                "these features were extracted without their captions, on which this model's noise depends",
                hint="extract them again",
            )
        rows = zip(noise, batch.texts, batch.sizes["fps"].tolist(), keys, strict=True)
        return torch.stack([self.shaper(row, text, fps=fps, seed=key_seed(*key)) for row, text, fps, key in rows])

    def _frame_mask(self, count: int, frames: int, key: Sequence[Any], device: torch.device) -> Tensor | None:
        if self.masks is None:
            return None
        random = np.random.default_rng(key_seed(*key, "masks"))
        mask = np.stack([self.masks.draw(frames, random) for _ in range(count)])
        return None if mask.all() else torch.from_numpy(mask).to(device)


def _generator(*key: Any) -> torch.Generator:
    return torch.Generator().manual_seed(key_seed(*key))
