"""Options that single scorers have, `-O key=value`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FramesOptions(BaseModel):
    """Of scorers that look at single frames."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Literal[1, 2, 3] = Field(3, description="frames of a clip that are looked at: 1 (middle), 2 or 3")


class CameraOptions(BaseModel):
    """Of the camera motion by tracked points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(
        0.25, gt=0, description="how far the edges of the picture move before it counts, in shares of the shorter side"
    )
