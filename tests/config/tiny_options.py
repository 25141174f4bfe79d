"""Options classes of the tiny plugins, in a module that can be imported by name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TinyOptions(BaseModel):
    """Options of the model `tiny`."""

    model_config = ConfigDict(extra="forbid")

    reference_rounding: bool = False
    window: int = Field(4, ge=1)


class FlowOptions(BaseModel):
    """Options of the scheduler `flow`."""

    model_config = ConfigDict(extra="forbid")

    shift: float = 1.0
