"""The configuration of `sora vae train`; sections that it shares with `sora train` are those of `train_schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .schema import Section
from .train_schema import ClipSection, OptimizerSection, RunSection, Share, TrainHardwareSection

Weight = Annotated[float, Field(ge=0)]


class VaeDataSection(ClipSection):
    """What is trained on, how clips are cut, and how lengths are mixed."""

    mixing: Literal["none", "image", "length"] = Field(
        "none",
        description="lengths, drawn for each update: whole clips, now and then the first frame, or any number",
    )
    image_share: Share = Field(0.2, description="chance that only the first frame is kept, with mixing image")


class VaeSection(Section):
    """Which autoencoder, and how its numbers are kept."""

    name: str | None = Field(None, description="video autoencoder")
    weights: str | None = Field(
        None, description="where training starts: another autoencoder's name, hub id, folder, file or training run"
    )
    raw: bool = Field(False, description="of a training run take the last weights, not their average")
    initialize: Literal["released", "random"] = Field("released", description="start without any weights: random")
    strict: bool = Field(True, description="whether starting weights must fit exactly")
    config: Path | None = Field(None, description="config.json of a network of other sizes")
    dtype: Literal["fp32", "bf16"] = Field("bf16", description="number format of the network in training")
    freeze: tuple[str, ...] = Field((), description="parts that are not trained, e.g. spatial_vae")
    train_only: tuple[str, ...] = Field((), description="the only parts that are trained")
    gradient_checkpointing: bool = Field(True, description="compute blocks again in the backward pass to save memory")
    checkpointing_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the blocks that is computed again, where memory is left"
    )
    compile: bool = Field(False, description="compile each block with torch.compile")


class LossSection(Section):
    """What is learned. Losses of pictures are sums over their numbers, mean over frames."""

    pixels: bool = Field(True, description="learn to reconstruct pixels, with perceptual and KL term")
    frame_latents: bool = Field(False, description="learn to reconstruct the latents of frames")
    identity: bool = Field(False, description="learn to give a single picture the latents of its frame")
    distance: Literal["l1", "l2"] = Field("l1", description="absolute or squared difference")
    perceptual: str | None = Field("lpips-vgg", description="measure of quality that is part of the pixel loss")
    perceptual_weight: Weight = Field(0.1, description="its weight")
    perceptual_weights: str | None = Field(None, description="file with the weights of the network it looks with")
    kl_weight: Weight = Field(1e-6, description="weight of the posteriors' divergence, part of the pixel loss")
    detach_frame_latents: bool = Field(
        False, description="let no gradient flow into the frame latents that are reconstructed"
    )


class DiscriminatorSection(Section):
    """The network that the autoencoder is trained against."""

    name: str | None = Field(None, description="discriminator; default none")
    options: dict[str, Any] = Field({}, description="options that only this discriminator has")
    start: Annotated[int, Field(ge=0)] = Field(0, description="update from which it takes part")
    weight: Weight = Field(1.0, description="weight of its own loss and of its pull on the autoencoder")
    generator_weight: Weight = Field(0.5, description="further weight of its pull on the autoencoder")
    adaptive: bool = Field(True, description="scale its pull to that of the reconstruction at the last layer")
    loss: Literal["hinge", "vanilla", "non-saturating"] = Field("hinge", description="its loss")
    generator_loss: Literal["hinge", "non-saturating"] = Field("hinge", description="the autoencoder's loss from it")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="default the autoencoder's")
    lecam_weight: Weight = Field(0.0, description="weight of the anchor to averages of its logits")
    gradient_penalty: Weight = Field(0.0, description="weight of the penalty on gradients that are not 1")


class VaeValidationSection(Section):
    """What is looked at between updates."""

    tables: tuple[str, ...] = Field((), description="tables of clips for loss and PSNR of reconstructions")
    every: Annotated[int, Field(ge=0)] = Field(0, description="updates between them, 0 for none")
    samples: Annotated[int, Field(ge=0)] = Field(0, description="clips of them that are written beside their originals")


class VaeTrainConfig(Section):
    """All settings of `sora vae train`."""

    data: VaeDataSection = VaeDataSection()
    vae: VaeSection = VaeSection()
    loss: LossSection = LossSection()
    discriminator: DiscriminatorSection = DiscriminatorSection()
    optimizer: OptimizerSection = OptimizerSection()
    run: RunSection = RunSection()
    validation: VaeValidationSection = VaeValidationSection()
    hardware: TrainHardwareSection = TrainHardwareSection()
