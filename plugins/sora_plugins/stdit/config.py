"""Architecture of the STDiT family and the options that only these models have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, kw_only=True)
class STDiT3Config:
    """Sizes of an STDiT3. Field names are those of the released config.json.

    input_sq_size: side in pixels of the square whose positions are unscaled. caption_channels, model_max_length:
    width and number of rows of the "no text" table. class_dropout_prob, drop_path: used in training only.
    pred_sigma: the output has 2 * in_channels channels, the second half unused by rectified flow.
    skip_y_embedder: the caller passes projected, packed text.
    """

    in_channels: int = 4
    patch_size: tuple[int, int, int] = (1, 2, 2)
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    input_sq_size: int = 512
    caption_channels: int = 4096
    model_max_length: int = 300
    class_dropout_prob: float = 0.1
    pred_sigma: bool = True
    drop_path: float = 0.0
    qk_norm: bool = True
    skip_y_embedder: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads} and by 4")
        if (self.hidden_size // self.num_heads) % 2:
            raise ValueError(f"head width {self.hidden_size // self.num_heads} must be even for rotary positions")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> STDiT3Config:
        """Read a released config.json; keys that describe software rather than the network are ignored."""
        known = {field.name for field in fields(cls)}
        chosen = {key: value for key, value in values.items() if key in known}
        if "patch_size" in chosen:
            chosen["patch_size"] = tuple(chosen["patch_size"])
        return cls(**chosen)


class STDiTOptions(BaseModel):
    """Options of the STDiT models (`-O key=value`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference_rounding: bool = Field(
        default=False, description="round timesteps, sizes and position tables to bfloat16, as the reference does"
    )
