"""The loss of an autoencoder on a batch, from the terms that are switched on.

Chance is drawn from keys, as in `objective`: posteriors from seed, epoch and number of the micro-batch, lengths from
seed and update.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sora_cli.plugin.protocols import Reconstruction
from sora_cli.video.latents import key_seed

from .autoencoder_losses import kl_loss, reconstruction_loss
from .dataset import Batch

if TYPE_CHECKING:
    from sora_cli.config.vae_schema import LossSection, VaeDataSection

    from .adversary import Adversary


class Clips(NamedTuple):
    """A batch as an autoencoder takes it: pixels (B, 3, T, H, W), and how many latent positions it has."""

    number: int
    pixels: Tensor
    num_positions: int


@dataclass(frozen=True)
class ClipMixer:
    """Brings batches to the device, and cuts them to mixed lengths.

    latent_size: (frames, height, width) in pixels -> latent positions of a clip.
    """

    data: VaeDataSection
    seed: int
    device: torch.device
    latent_size: Callable[[int, int, int], int]

    def encode(self, batch: Batch, seed: int, *, update: int = 0) -> Clips:
        """The length is drawn from the number of the update alone: the same on all ranks.

        With shards it must be, because a longer clip has more pieces, and ranks meet at each call of a block.
        """
        length = self.length(batch.pixels.shape[2], update)
        pixels = batch.pixels[:, :, :length].to(self.device, non_blocking=True)
        return Clips(batch.number, pixels, len(pixels) * self.latent_size(*pixels.shape[2:]))

    def length(self, num_frames: int, update: int) -> int:
        """How many of the first frames are kept in an update."""
        generator = torch.Generator().manual_seed(key_seed(self.seed, update, "length"))
        match self.data.mixing:
            case "image":
                is_image = float(torch.rand((), generator=generator)) < self.data.image_share
                return 1 if is_image else num_frames
            case "length":
                return int(torch.randint(1, num_frames + 1, (), generator=generator))
        return num_frames


@dataclass
class AutoencoderObjective:
    """The loss. parts: the terms of the last batch that apply to it, scalars by their name; see `part_names`.

    perceptual: (N, 3, H, W) twice -> (N,). adversary: what the autoencoder is trained against.
    """

    options: LossSection
    seed: int
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    adversary: Adversary | None = None
    last_layer: Callable[[], Tensor] | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def needs_pixels(self) -> bool:
        """Whether anything is compared in pixels."""
        return self.options.pixels or self.adversary is not None

    @property
    def part_names(self) -> tuple[str, ...]:
        """The terms that may be in `parts`, always the same."""
        options = self.options
        chosen = {
            "pixel_loss": options.pixels,
            "kl_loss": options.pixels and options.kl_weight > 0,
            "frame_latent_loss": options.frame_latents,
            "identity_loss": options.identity,
            "adversarial_loss": self.adversary is not None,
            "discriminator_loss": self.adversary is not None,
        }
        return tuple(name for name, is_on in chosen.items() if is_on)

    def losses(self, model: Callable[..., Reconstruction], clips: Clips, epoch: int) -> Tensor:
        """The loss of a batch, ()."""
        generator = torch.Generator().manual_seed(key_seed(self.seed, epoch, clips.number, "posterior"))
        out = model(clips.pixels, generator=generator, decodes_pixels=self.needs_pixels)
        return self.total(clips.pixels, out)

    def total(self, pixels: Tensor, out: Reconstruction, *, with_adversary: bool = True) -> Tensor:
        """The loss of a reconstruction, float32, ()."""
        options, parts = self.options, dict[str, Tensor]()
        distance = functools.partial(reconstruction_loss, distance=options.distance)
        if options.pixels:
            assert out.pixels is not None
            parts["pixel_loss"], _ = distance(
                pixels, out.pixels, perceptual=self.perceptual, perceptual_weight=options.perceptual_weight
            )
            if options.kl_weight > 0 and out.posteriors:
                parts["kl_loss"] = options.kl_weight * kl_loss(out.posteriors, len(pixels))
        if options.frame_latents:
            assert out.encoded_frames is not None
            assert out.frame_latents is not None
            wanted = out.encoded_frames.detach() if options.detach_frame_latents else out.encoded_frames
            parts["frame_latent_loss"], _ = distance(wanted, out.frame_latents)
        if options.identity and pixels.shape[2] == 1:
            assert out.encoded_frames is not None
            parts["identity_loss"], _ = distance(out.encoded_frames, out.latents)
        if self.adversary is not None and with_adversary:
            assert out.pixels is not None
            assert self.last_layer is not None
            reference = parts.get("pixel_loss")
            if reference is None:
                reference, _ = distance(pixels, out.pixels, perceptual=None)
            pull = self.adversary.pull(pixels, out.pixels, reference, self.last_layer())
            parts["adversarial_loss"] = pull
        total = sum(parts.values(), torch.zeros((), device=pixels.device))
        if self.adversary is not None and not self.adversary.is_on:
            parts.pop("adversarial_loss", None)  # it is nothing yet, not 0
        self.parts = {name: part.detach() for name, part in parts.items()}
        return total

    def note(self, name: str, value: Tensor | None) -> None:
        """Count a term that is known only after the loss, such as that of the discriminator."""
        if value is not None:
            self.parts[name] = value


def parts_tensor(objective: Any, device: torch.device) -> Tensor:
    """The terms of the last batch, (terms, 2): value and 1, or 0 and 0 where one does not apply; (0, 2) if none can."""
    rows = [
        torch.stack([objective.parts[name], torch.ones_like(objective.parts[name])])
        if name in objective.parts
        else torch.zeros(2, device=device)
        for name in getattr(objective, "part_names", ())
    ]
    return torch.stack(rows).float() if rows else torch.zeros(0, 2, device=device)
