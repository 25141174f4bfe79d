"""Training against a discriminator, which learns from the same batches with an engine of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sora_cli.launch.mesh import Team

from .autoencoder_losses import (
    LecamAverages,
    adaptive_weight,
    clip_of_length,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from .engine import AVERAGE, MODEL, OPTIMIZER, Engine, Update

if TYPE_CHECKING:
    from sora_cli.config.vae_schema import DiscriminatorSection

#: Names of its files in a checkpoint.
WEIGHTS, MOMENTS = "discriminator", "discriminator_optimizer"


class Adversary:
    """A discriminator and its training. step: the update that is being made, set by the loop."""

    def __init__(
        self,
        engine: Engine,
        options: DiscriminatorSection,
        *,
        takes: str,
        num_frames: int,
        team: Team | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """engine: in float32; takes: "frames" or "clips"; dtype: what it computes in, but for its norms.

        num_frames: what shorter clips are lengthened to for one that takes clips.
        """
        self.engine, self.options, self.takes, self.num_frames, self.dtype = engine, options, takes, num_frames, dtype
        self.team = team or Team()
        self.lecam = LecamAverages()
        self._logits: list[Tensor] = []
        self.step = 0
        self._seen: tuple[Tensor, Tensor] | None = None
        self._buffers: dict[str, Tensor] = {}

    @property
    def is_on(self) -> bool:
        """Whether it takes part in this update."""
        return self.options.weight > 0 and self.step >= self.options.start

    def pull(self, real: Tensor, decoded: Tensor, reconstruction: Tensor, last_layer: Tensor) -> Tensor:
        """The autoencoder's loss from it, weighted; the discriminator itself gets no gradient.

        real, decoded: (B, 3, T, H, W); reconstruction: the loss that its pull is scaled to, at `last_layer`.
        """
        if not self.is_on:
            return 0.0 * decoded.float().sum()  # DDP expects a gradient in every update
        options, network = self.options, self.engine.network
        network.requires_grad_(False)
        network.train()
        with self._computing(decoded):
            logits = network(self._input(decoded))
        loss = generator_loss(options.generator_loss, logits)
        network.requires_grad_(True)
        self._seen = real.detach(), decoded.detach()
        weight = options.weight * options.generator_weight
        if options.adaptive:
            return weight * adaptive_weight(reconstruction, loss, last_layer) * loss
        return weight * loss

    def learn(self, *, is_last: bool, share: float) -> Tensor | None:
        """Add its gradients for the videos it has just seen, and return its loss; None when it takes no part.

        share: of this micro-batch in the update.
        """
        if self._seen is None:
            return None
        if not self._buffers:
            self._buffers = {name: buffer.clone() for name, buffer in self.engine.network.named_buffers()}
        real, fake = map(self._input, self._seen)
        self._seen = None
        options = self.options
        with self.engine.accumulating(is_last):
            with self._computing(real):
                of_real, of_fake = self.engine.model(real), self.engine.model(fake)
            loss = options.weight * discriminator_loss(options.loss, of_real, of_fake)
            said = loss.detach()
            if options.lecam_weight > 0:
                self._logits.append(torch.stack([of_real.detach().float().mean(), of_fake.detach().float().mean()]))
                loss = loss + options.lecam_weight * self.lecam.loss(of_real, of_fake)
            if options.gradient_penalty > 0:
                loss = loss + options.gradient_penalty * gradient_penalty(self.engine.network, real)
            self.engine.backward(loss * share)
        return said

    def update(self, learning_rate: float, max_norm: float, *, is_wanted: bool) -> Update | None:
        """Update it from the gradients so far; None when it took no part.

        is_wanted: whether the autoencoder was updated; otherwise, as after a gradient that is not finite, everything
        that the batch changed is undone.
        """
        if not self.is_on:
            return None
        logits, buffers, self._logits, self._buffers = self._logits, self._buffers, [], {}
        result = None
        if is_wanted:
            result = self.engine.update(self.options.learning_rate or learning_rate, max_norm)
            if result.is_applied:
                if logits:  # the same on all ranks, however many there are
                    self.lecam.update(*self.team.mean(torch.stack(logits).mean(dim=0)))
                return result
        self.engine.discard()
        for name, buffer in self.engine.network.named_buffers():
            buffer.copy_(buffers[name])
        return result

    def _input(self, clips: Tensor) -> Tensor:
        if self.takes == "frames":
            return clips.transpose(1, 2).flatten(0, 1).float()
        return clip_of_length(clips, self.num_frames).float()

    def _computing(self, clips: Tensor) -> torch.autocast:
        return torch.autocast(clips.device.type, self.dtype, enabled=self.dtype != torch.float32)

    # -- state -------------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, dict[str, Tensor]]:
        """All its tensors to go on from; running statistics of norms are as they are now."""
        files = self.engine.files()
        buffers = {name: buffer.detach() for name, buffer in self.engine.network.named_buffers()}
        return {WEIGHTS: {**files[MODEL], **buffers}, MOMENTS: files[OPTIMIZER]}

    def load(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from `files`. Raises ValueError when they are of another network."""
        if WEIGHTS not in files:
            raise ValueError("the checkpoint has no discriminator")
        weights = files[WEIGHTS]
        self.engine.load({MODEL: weights, AVERAGE: weights, OPTIMIZER: files.get(MOMENTS, {})})
        for name, buffer in self.engine.network.named_buffers():
            buffer.copy_(weights[name])

    def record(self) -> dict[str, Any]:
        """The rest of its state, for JSON."""
        return {"engine": self.engine.record(), "lecam": [self.lecam.real, self.lecam.fake]}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Go on from `record`."""
        self.engine.load_record(record["engine"])
        self.lecam.real, self.lecam.fake = record["lecam"]
