"""Options that only the PixArt models have; apart from the network, which runs without pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PixArtOptions(BaseModel):
    """Options of the PixArt models (`-O key=value`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference_rounding: bool = Field(default=False, description="round timesteps to bfloat16, as the reference does")
    cross_attention: Literal["packed", "masked"] = Field(
        default="packed", description="texts of different lengths in a batch: packed one after the other, or masked"
    )
    space_scale: float | None = Field(
        default=None, gt=0, description="divides positions in a frame; default the variant's"
    )
    time_scale: float | None = Field(
        default=None, gt=0, description="divides positions of frames; default the variant's"
    )
    no_temporal_pos_emb: bool | None = Field(
        default=None,
        description="frames get no position of their own, as in networks of pictures; default the variant's",
    )
