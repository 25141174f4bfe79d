"""The diagonal Gaussian that an autoencoder's encoder predicts."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DiagonalGaussian:
    """Mean and log-variance from moments (B, 2 C, ...), the mean first; the log-variance is clamped to [-30, 20].

    deterministic: no variance; the KL divergence and the negative log-likelihood are then `[0.]`.
    """

    def __init__(self, moments: Tensor, *, deterministic: bool = False) -> None:
        self.mean, logvar = moments.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.deterministic = deterministic
        self.std = torch.zeros_like(self.mean) if deterministic else (0.5 * self.logvar).exp()
        self.var = torch.zeros_like(self.mean) if deterministic else self.logvar.exp()

    def sample(self, noise: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """A draw. noise: standard normal like the mean; else drawn in float32 on the CPU, the same on every device."""
        if noise is None:
            noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32)
        return self.mean + self.std * noise.to(self.mean)

    def mode(self) -> Tensor:
        """The most likely value."""
        return self.mean

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """Kullback-Leibler divergence (B,) from `other`, by default from the standard normal."""
        if self.deterministic:
            return torch.zeros(1)
        mean, logvar = self.mean.float(), self.logvar.float()  # in another format sums of many would be rounded
        if other is None:
            terms = mean**2 + logvar.exp() - 1.0 - logvar
        else:
            var = other.logvar.float().exp()
            terms = (mean - other.mean.float()) ** 2 / var + logvar.exp() / var - 1.0 - logvar + other.logvar.float()
        return 0.5 * terms.flatten(1).sum(dim=1)

    def nll(self, value: Tensor) -> Tensor:
        """Negative log-likelihood (B,) of a value."""
        if self.deterministic:
            return torch.zeros(1)
        logvar = self.logvar.float()
        terms = math.log(2.0 * math.pi) + logvar + (value.float() - self.mean.float()) ** 2 / logvar.exp()
        return 0.5 * terms.flatten(1).sum(dim=1)
