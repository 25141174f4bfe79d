"""Architecture of the per-frame autoencoders; the field names are those of the released config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SpatialConfig:
    """Sizes of a spatial autoencoder.

    block_out_channels: width of each level; each level but the last halves the sides. layers_per_block: residual blocks
    per level of the encoder (the decoder has one more). norm_num_groups: of GroupNorm.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32

    @property
    def stride(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SpatialConfig:
        """Read a released config.json; keys that do not describe this network are ignored."""
        known = {field.name for field in fields(cls)}
        chosen = {key: value for key, value in values.items() if key in known}
        if "block_out_channels" in chosen:
            chosen["block_out_channels"] = tuple(chosen["block_out_channels"])
        return cls(**chosen)
