"""Options of the discriminators."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


class PatchOptions(BaseModel):
    """Sizes of a PatchGAN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: Positive = Field(3, description="channels of a frame")
    filters: Positive = Field(64, description="channels of the first layer; later ones have up to 8 times as many")
    num_layers: Positive = Field(3, description="layers that halve the sides; each widens what a number judges")


class StyleOptions(BaseModel):
    """Sizes of StyleGAN's discriminator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: Positive = Field(3, description="channels of a frame")
    filters: Positive = Field(128, description="channels of the first layer")
    channel_multipliers: tuple[Positive, ...] = Field(
        (2, 4, 4, 4, 4), description="channels of each block, in filters; each block halves all axes"
    )
    num_groups: Positive = Field(32, description="groups of the last norm")
