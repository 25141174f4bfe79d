"""Latte: a DiT whose blocks attend in turn within frames and over them (Ma et al. 2024).

The network of classes and of one vector of text per clip, not that of Latte-1, which reads whole captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .config import DiTConfig
from .dit import DiT
from .layers import OVER_FRAMES, WITHIN_FRAMES


class Latte(DiT):
    """The parameters and arguments of DiT."""

    def transform(self, tokens: Tensor, c: Tensor) -> Tensor:
        """All blocks on (B, T, S, D). Positions in time come in before the first block over frames.

        They come in whatever `no_temporal_pos_emb` says, as the weights were trained.
        """
        for index, block in enumerate(self.blocks):
            if index == 1:
                tokens = tokens + self.frame_positions(tokens)
            tokens = block(tokens, c, OVER_FRAMES if index % 2 else WITHIN_FRAMES)
        return tokens


def build(config: Mapping[str, Any], options: object = None) -> Latte:
    """A Latte from the fields of a config.json; used as the target of model specs, which have no options."""
    return Latte(DiTConfig.from_mapping(config))
