"""Options of rectified flow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RectifiedFlowOptions(BaseModel):
    """Options of the rectified-flow scheduler. Times run from 0 (data) to num_timesteps (noise)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_timesteps: Annotated[int, Field(ge=1)] = Field(1000, description="the time of pure noise")
    use_discrete_timesteps: bool = Field(False, description="round times to integers")
    use_timestep_transform: bool = Field(False, description="shift times towards noise for larger and longer videos")
    transform_scale: Annotated[float, Field(gt=0)] = Field(1.0, description="factor of the time shift in training")
    sampling_scale: Annotated[float, Field(gt=0)] = Field(1.0, description="factor of the time shift in sampling")
    solver: Literal["euler", "adams-bashforth"] = Field(
        "euler", description="how steps are taken; adams-bashforth looks back at the step before, for the same time"
    )
    sample_method: Literal["uniform", "logit-normal"] = Field("uniform", description="how training times are drawn")
    loc: float = Field(0.0, description="mean of the logit of training times")
    scale: Annotated[float, Field(gt=0)] = Field(1.0, description="deviation of the logit of training times")
    info_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="number format of the size ratio; bfloat16 gives the reference's rounding"
    )

    @model_validator(mode="after")
    def _discrete_is_uniform(self) -> RectifiedFlowOptions:
        if self.use_discrete_timesteps and self.sample_method != "uniform":
            raise ValueError("use_discrete_timesteps works with sample_method uniform only")
        return self
