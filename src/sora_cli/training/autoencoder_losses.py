"""What a video autoencoder learns: to reconstruct, to keep its latents near normal, and to fool a discriminator.

All sums are in float32, whatever the network computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["l1", "l2"]
DiscriminatorKind = Literal["hinge", "vanilla", "non-saturating"]
GeneratorKind = Literal["hinge", "non-saturating"]
#: Limits of the adaptive weight, and what keeps it from dividing by nothing (Esser et al. 2021, arXiv 2012.09841).
LARGEST_WEIGHT, SMALLEST_NORM = 1e4, 1e-4
LECAM_DECAY = 0.999


class Posterior(Protocol):
    """A distribution over latents."""

    def kl(self) -> Tensor:
        """Divergence from the standard normal, one number per row of the batch."""
        ...


def reconstruction_loss(
    reference: Tensor,
    decoded: Tensor,
    *,
    distance: Distance = "l1",
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    perceptual_weight: float = 0.1,
    logvar: float | Tensor = 0.0,
    weights: float | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of a clip given its reconstruction, and the same with `weights`.

    reference, decoded: (B, C, T, H, W). Summed over C, H and W, mean over frames. perceptual: (N, C, H, W) twice ->
    (N,); it is added to every number of a frame, so it counts C H W times, as the released autoencoder was trained.
    logvar: log-variance of the noise that the distance stands for.
    """
    ours, theirs = (x.transpose(1, 2).flatten(0, 1) for x in (reference, decoded))
    difference = ours.float() - theirs.float()
    error = difference.abs() if distance == "l1" else difference.square()
    if perceptual is not None and perceptual_weight > 0:
        error = error + perceptual_weight * perceptual(ours, theirs).float()[:, None, None, None]
    variance = torch.as_tensor(logvar, dtype=torch.float32, device=error.device)
    nll = error / variance.exp() + variance
    total = nll.sum() / len(ours)
    return total, total if weights is None else (weights * nll).sum() / len(ours)


def kl_loss(posteriors: Sequence[Posterior], batch: int) -> Tensor:
    """Divergence from the standard normal, summed over the latents of all pieces, mean over the clips of the batch."""
    return torch.stack([posterior.kl().float().sum() for posterior in posteriors]).sum() / batch


def sigmoid_cross_entropy(label: float, logits: Tensor) -> Tensor:
    """Cross-entropy of logits with one label for all, element by element."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")


def discriminator_loss(kind: DiscriminatorKind, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of a discriminator from its logits of real and of decoded videos."""
    real, fake = real.float(), fake.float()
    if kind == "hinge":
        return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
    # The vanilla and the non-saturating loss of a discriminator are the same function.
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(kind: GeneratorKind, fake: Tensor) -> Tensor:
    """Loss of the autoencoder from the logits of what it decoded."""
    fake = fake.float()
    return -fake.mean() if kind == "hinge" else sigmoid_cross_entropy(1.0, fake).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight that makes both losses pull equally at the last layer, without gradients, between 0 and 10 000."""
    pulls = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction, adversarial)]
    ours, theirs = (pull.float().norm() for pull in pulls)
    return (ours / (theirs + SMALLEST_NORM)).clamp(0.0, LARGEST_WEIGHT).detach()


class LecamAverages:
    """Averages of a discriminator's logits, which its loss is anchored to (Tseng et al. 2021, arXiv 2104.03310)."""

    def __init__(self, real: float = 0.0, fake: float = 0.0, decay: float = LECAM_DECAY) -> None:
        self.real, self.fake, self.decay = real, fake, decay

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Move towards the means of new logits."""
        means = (float(logits.detach().float().mean()) for logits in (real, fake))
        olds = (self.real, self.fake)
        self.real, self.fake = (
            old * self.decay + new * (1.0 - self.decay) for old, new in zip(olds, means, strict=True)
        )

    def loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far the logits have gone beyond the averages of the other side, squared."""
        return F.relu(real.float().mean() - self.fake).square() + F.relu(self.real - fake.float().mean()).square()


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], videos: Tensor) -> Tensor:
    """Squared distance from 1 of the gradient's norm at each video, mean (Gulrajani et al. 2017, arXiv 1704.00028)."""
    videos = videos.detach().requires_grad_(True)
    (pull,) = torch.autograd.grad(discriminate(videos).float().sum(), videos, create_graph=True)
    return (pull.float().flatten(1).norm(dim=1) - 1.0).square().mean()


def clip_of_length(clips: Tensor, num_frames: int) -> Tensor:
    """Clips (B, C, T, H, W) with at least `num_frames`; shorter ones repeat their last frame."""
    missing = num_frames - clips.shape[2]
    if missing <= 0:
        return clips
    last: Any = clips[:, :, -1:]
    return torch.cat([clips, last.expand(-1, -1, missing, -1, -1)], dim=2)
