"""Mean and deviation of numbers that come in pieces, exact up to the rounding of float64."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """What is known of all values so far, per channel: how many, their mean, their squared deviations from it.

    Pieces of any size can be added in any order: every number counts the same.
    """

    def __init__(self) -> None:
        self.count = 0  # numbers per channel
        self._mean = torch.zeros((), dtype=torch.float64)
        self._deviations = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count values (B, C, ...), such as latents (B, C, T, h, w).

        Source: Chan, Golub and LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances"; sums of plain squares would lose digits where the mean is large.
        """
        rows = values.detach().transpose(0, 1).flatten(1).cpu().double()
        added = rows.shape[1]
        if not added:
            return
        total = self.count + added
        mean = rows.mean(dim=1)
        step = mean - self._mean
        within = (rows - mean[:, None]).square().sum(dim=1)
        self._deviations = self._deviations + within + step.square() * (self.count * added / total)
        self._mean = self._mean + step * (added / total)
        self.count = total

    @property
    def channel_mean(self) -> Tensor:
        """(C,) float64."""
        return self._mean

    @property
    def channel_std(self) -> Tensor:
        """(C,) float64: the root of the mean squared deviation from the channel's mean."""
        return (self._deviations / self.count).sqrt()

    @property
    def mean(self) -> float:
        """Over all channels."""
        return float(self._mean.mean())

    @property
    def std(self) -> float:
        """Over all channels, about their common mean."""
        between = (self._mean - self._mean.mean()).square().mean()
        return float((self._deviations.mean() / self.count + between).sqrt())
