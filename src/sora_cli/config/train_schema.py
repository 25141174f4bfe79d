"""The configuration of `sora train`; the conventions are those of `schema`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .schema import ProcessesSection, Section, TextDTypeName

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
#: Replaced as a whole by a stronger layer, not merged key by key, hence not typed as a mapping.
Whole = Any


def with_numbers(buckets: Any) -> Any:
    """Numbers of frames are keys, which YAML files and JSON hold as text."""
    if not isinstance(buckets, Mapping):
        return buckets
    return {
        name: {int(key) if str(key).isdigit() else key: value for key, value in lengths.items()}
        if isinstance(lengths, Mapping)
        else lengths
        for name, lengths in buckets.items()
    }


Buckets = Annotated[Whole, BeforeValidator(with_numbers)]


class LoraSettings(Section):
    """Low-rank adapters. targets: ends of names of linear layers; none are all layers of the blocks."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)]
    dropout: Share = 0.0
    targets: tuple[str, ...] = ()


def _lora(value: Any) -> Any:
    """From a mapping, or from words such as `rank=16 alpha=32 targets=attn.qkv,attn.proj`; alpha is the rank unless
    it is said."""
    if isinstance(value, str):
        pairs = [word.partition("=") for word in value.split()]
        value = {name: text.split(",") if name == "targets" else text for name, _, text in pairs}
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    settings.setdefault("alpha", settings.get("rank", LoraSettings.model_fields["rank"].default))
    return settings


#: Whole, see there.
Lora = Annotated[LoraSettings | None, BeforeValidator(_lora)]


class ClipSection(Section):
    """What is trained on, and how clips are cut."""

    tables: tuple[str, ...] = Field((), description="tables of clips: files, folders, patterns; or extracted features")
    root: Path | None = Field(None, description="folder of relative paths; default: the folder of each table")
    bad_rows: Literal["error", "skip"] = Field("error", description="what rows with missing or wrong values do")
    max_bad_share: Share = Field(0.05, description="share of clips that may be unreadable before the run stops")
    bucket_config: Buckets = Field(
        None, description="{resolution: {frames: [keep, batch size] or [[keep, length], batch size]}}"
    )
    num_frames: Positive | None = Field(None, description="frames of every clip, where there are no buckets")
    size: str | None = Field(None, description="HEIGHTxWIDTH of every clip, where there are no buckets")
    batch_size: Positive | None = Field(None, description="clips of a micro-batch, where there are no buckets")
    transform: Literal["resize_crop", "center"] = Field("resize_crop", description="how clips are fitted to a size")
    frame_interval: Positive = Field(1, description="frames of the file per frame of the clip")
    exact_stride: bool = Field(False, description="take frames exactly frame_interval apart")
    reader: Literal["pyav", "decord"] = Field("pyav", description="what decodes videos")
    workers: Annotated[int, Field(ge=0)] = Field(4, description="processes that decode, for each GPU")
    prefetch: Positive | None = Field(None, description="batches that a worker decodes ahead; default 2")
    pin_memory: bool = Field(False, description="batches wait in page-locked memory, which a GPU fetches faster")


class DataSection(ClipSection):
    """What is trained on, how clips are cut, and what the model is told of them."""

    fps_condition: Literal["effective", "source", "nearest"] = Field(
        "effective", description="rate the model is told: floor(fps / interval), the file's, or the nearest whole one"
    )
    aspect_condition: Literal["h_over_w", "w_over_h"] = Field("h_over_w", description="aspect ratio the model is told")
    score_captions: bool = Field(False, description="append the scores in columns aes, flow and cmotion to captions")
    score_drop: Share = Field(0.2, description="chance that a score is left out of a caption")
    extract_captions: Literal["encoded", "text"] = Field(
        "encoded",
        description="what extracted features hold of captions: one encoded, or all as text, encoded in training",
    )


class ObjectiveSection(Section):
    """What is learned."""

    scheduler: str | None = Field(None, description="scheduler whose training objective is used; default the model's")
    scheduler_options: dict[str, Any] = Field({}, description="options of the scheduler")
    mask_ratios: Whole = Field(None, description="{kind of mask: chance}, in order; the rest is identity")
    text_drop: Share | None = Field(None, description="chance that a caption is dropped; default the model's")
    token_drop: Share = Field(0.0, description="chance of each token of a caption to be left out, drawn at every use")


class OptimizerSection(Section):
    """How it is learned."""

    name: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the matrices in the network's blocks, AdamW for the rest"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="learning rate of AdamW")
    matrix_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="learning rate of Muon; default that of AdamW"
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(None, description="updates until it is reached")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the learning rate falls towards the end of run.steps"
    )
    decay_start: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share of run.steps after which it falls, unless it is constant"
    )
    decay_final: Share = Field(0.0, description="share of the learning rate that is left at the end")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of the averages of gradients")
    eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="epsilon of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="weight decay")
    gradient_clip: Annotated[float, Field(ge=0)] = Field(1.0, description="limit of the gradient's norm, 0 for none")
    accumulation: Positive = Field(1, description="micro-batches per update on each GPU")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.9999, description="decay of the averaged weights")
    max_bad_updates: Positive = Field(10, description="updates in a row without a finite gradient before a run stops")


class TrainModelSection(Section):
    """Which network, and how its numbers are kept."""

    name: str = Field("auto", description="model name")
    variant: str | None = Field(None, description="size of the model")
    weights: str | None = Field(
        None, description="where training starts: another model's name, hub id, folder, file or training run"
    )
    raw: bool = Field(False, description="of a training run take the last weights, not their average")
    initialize: Literal["released", "random"] = Field("released", description="start without any weights: random")
    strict: bool = Field(True, description="whether starting weights must fit exactly")
    dtype: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="number format of the network in training")
    attention: str = Field("auto", description="attention backend")
    vae: str | None = Field(None, description="video autoencoder")
    vae_weights: str | None = Field(None, description="hub id, folder or file of the video autoencoder")
    vae_batch_size: Positive | None = Field(None, description="clips encoded at a time; default all of a micro-batch")
    text_encoder: str | None = Field(None, description="text encoder")
    text_weights: str | None = Field(None, description="hub id or folder of the text encoder")
    text_dtype: TextDTypeName = Field("auto", description="number format of the text encoder")
    freeze: tuple[str, ...] = Field((), description="parts that are not trained, e.g. y_embedder")
    train_only: tuple[str, ...] = Field((), description="the only parts that are trained, e.g. temporal_blocks")
    lora: Lora = Field(None, description="train adapters instead, e.g. rank=16")
    gradient_checkpointing: bool = Field(True, description="compute blocks again in the backward pass to save memory")
    checkpointing_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the blocks that is computed again, where memory is left"
    )
    compile: bool = Field(False, description="compile each block with torch.compile")
    options: dict[str, Any] = Field({}, description="options that only this model has")


class RunSection(Section):
    """How long, and what is kept."""

    folder: Path | None = Field(None, description="folder of the run; default outputs/train-<preset or model>")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(42, description="seed of everything random")
    epochs: Positive = Field(1000, description="times through the table")
    steps: Positive | None = Field(None, description="updates after which the run is done")
    log_every: Positive = Field(10, description="updates between lines of the log")
    checkpoint_every: Annotated[int, Field(ge=0)] = Field(
        500, description="updates between checkpoints, 0 for one at the end"
    )
    keep: Positive | None = Field(3, description="checkpoints that are kept, newest first; null for all")
    resume: bool = Field(True, description="go on from the newest checkpoint in the folder")
    load: str | None = Field(
        None, description="run or checkpoint whose weights, averages and optimizer state a new run starts from"
    )
    profile: Annotated[int, Field(ge=0)] = Field(0, description="updates to profile, after three others")
    tensorboard: bool = Field(False, description="write TensorBoard events")
    wandb: bool = Field(False, description="report to Weights & Biases")


class ValidationSection(Section):
    """What is looked at between updates."""

    tables: tuple[str, ...] = Field((), description="tables of clips for the validation loss")
    every: Annotated[int, Field(ge=0)] = Field(0, description="updates between validation losses, 0 for none")
    times: Positive = Field(10, description="times between data and noise at which the loss is measured")
    prompts: tuple[str, ...] = Field((), description="prompts of sample videos")
    sample_every: Annotated[int, Field(ge=0)] = Field(0, description="updates between sample videos, 0 for none")
    size: str | None = Field(None, description="HEIGHTxWIDTH of sample videos; default the smallest that is trained")
    frames: Positive | None = Field(None, description="their frames; default the most that are trained at that size")
    steps: Positive | None = Field(None, description="their sampling steps; default the scheduler's")
    guidance: Annotated[float, Field(ge=0, le=100)] = Field(4.0, description="their guidance scale")


class TrainHardwareSection(ProcessesSection):
    """Where it runs."""

    sharding: Literal["none", "zero2", "zero3"] = Field(
        "none", description="what is cut over the GPUs: nothing; gradients and optimizer state; weights too"
    )


class TrainConfig(Section):
    """All settings of `sora train`."""

    data: DataSection = DataSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    model: TrainModelSection = TrainModelSection()
    run: RunSection = RunSection()
    validation: ValidationSection = ValidationSection()
    hardware: TrainHardwareSection = TrainHardwareSection()
