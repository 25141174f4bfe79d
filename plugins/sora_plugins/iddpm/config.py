"""Options of discrete diffusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class IddpmOptions(BaseModel):
    """Options of the iddpm scheduler. Step 0 is the least noisy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    diffusion_steps: Annotated[int, Field(ge=2)] = Field(1000, description="steps of the whole process")
    timestep_respacing: str = Field(
        "", description='steps that are kept: "" all, counts per section such as "10,15,20", or "ddimK"'
    )
    noise_schedule: Literal["linear", "squaredcos_cap_v2"] = Field("linear", description="how noise grows")
    predict_xstart: bool = Field(False, description="the network predicts the data instead of the noise")
    learn_sigma: bool = Field(True, description="the network predicts the variance too")
    sigma_small: bool = Field(False, description="without a learned variance, take the smaller of the two fixed ones")
    use_kl: bool = Field(False, description="train on the variational bound alone")
    rescale_learned_sigmas: bool = Field(False, description="scale the bound by steps / 1000 in training")
    cfg_channel: Annotated[int, Field(ge=1)] | None = Field(
        None, description="channels that guidance acts on, the first ones; 1.0 at 256 pixels and 1.1 use 3"
    )
    ddim_eta: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="sample with DDIM and this share of its noise, instead of DDPM"
    )
    speed: bool = Field(False, description="train more on informative steps, and weigh them (SPEED)")

    @model_validator(mode="after")
    def _variances(self) -> IddpmOptions:
        if self.use_kl and not self.learn_sigma:
            raise ValueError("use_kl needs learn_sigma")
        return self
