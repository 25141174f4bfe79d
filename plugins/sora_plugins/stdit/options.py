"""Options that only the STDiT models have; apart from the network, which runs without pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class STDiTOptions(BaseModel):
    """Options of the STDiT models (`-O key=value`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference_rounding: bool = Field(
        default=False, description="round timesteps, sizes and position tables to bfloat16, as the reference does"
    )
    cross_attention: Literal["packed", "masked"] = Field(
        default="packed", description="texts of different lengths in a batch: packed one after the other, or masked"
    )


class STDiT1Options(STDiTOptions):
    """Options of Open-Sora 1.0."""

    space_scale: float | None = Field(
        default=None,
        gt=0,
        description="divides positions in a frame: 0.5 at 256 pixels, 1 at 512; default the variant's",
    )
    time_scale: float | None = Field(
        default=None,
        gt=0,
        description="divides positions of frames: 1 for 16 of them, 2/3 for 64; default the variant's",
    )


class STDiT2Options(STDiTOptions):
    """Options of Open-Sora 1.1."""

    qk_norm_legacy: bool | None = Field(
        default=None, description="rotary positions before the norms of queries and keys, as the released weights need"
    )
