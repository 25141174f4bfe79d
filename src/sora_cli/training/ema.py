"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

#: A parameter of this name is a table that was never averaged in the released models.
NEVER_AVERAGED = frozenset({"pos_embed"})


class Ema:
    """The average a <- decay a + (1 - decay) w of weights after every update, in float32."""

    def __init__(self, weights: Mapping[str, Tensor], trainable: Iterable[str], *, decay: float) -> None:
        """weights: all of the network's state, which the average starts from; trainable: names that are averaged."""
        if not 0 <= decay <= 1:
            raise ValueError(f"a decay of {decay} is not in [0, 1]")
        self.decay = decay
        self.average = {name: tensor.detach().to(torch.float32, copy=True) for name, tensor in weights.items()}
        self.names = [name for name in trainable if name not in NEVER_AVERAGED]

    @torch.no_grad()
    def update(self, masters: Mapping[str, Tensor]) -> None:
        """Take in the float32 weights after an update."""
        averages = [self.average[name] for name in self.names]
        current = [masters[name].detach() for name in self.names]
        torch._foreach_lerp_(averages, current, 1 - self.decay)
