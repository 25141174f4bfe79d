"""Options of the fake model."""

from pydantic import BaseModel, ConfigDict, Field


class FakeOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    brightness: float = Field(0.0, description="added to every velocity")
