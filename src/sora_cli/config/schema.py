"""The configuration of each task, as frozen pydantic models that refuse unknown keys.

One word per thing: the flag `--steps`, the YAML key `sampling: {steps: ...}`, the environment variable
`SORA_SAMPLING__STEPS` and the field `config.sampling.steps` are the same value. `None` means "not set": the
value then comes from the model, the size or the machine when the task is planned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..video.settings import CRF

DTypeName = Literal["auto", "fp32", "bf16", "fp16"]
TextDTypeName = Literal["auto", "fp32", "bf16", "int8"]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
OffloadName = Literal["auto", "none", "model", "block"]
Score = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, protected_namespaces=())


class Refinement(Section):
    """What a language model made of a prompt."""

    text: str | None = Field(None, description="the new prompt; none where the prompt stayed as it is")
    motion: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="motion score that it chose")
    model: str = Field(description="its name")


class PromptSection(Section):
    """What to show."""

    prompts: tuple[str, ...] = Field((), description="the prompts, each one clip")
    file: str | None = Field(None, description="text file with one prompt a line; - reads standard input")
    negative: str | None = Field(None, description="what not to show, where the model's guidance can use it")
    start_index: Annotated[int, Field(ge=0)] = Field(0, description="first line of the prompt file to use")
    end_index: int | None = Field(None, description="line of the prompt file to stop before")
    refine: bool = Field(False, description="let a language model rewrite the prompts, or make up missing ones")
    refine_motion: bool = Field(False, description="let a language model choose the motion scores")
    refine_model: str = Field("gpt-4o", min_length=1, description="the language model")
    refine_timeout: Annotated[float, Field(gt=0, le=3600)] = Field(60.0, description="seconds to wait for an answer")
    refined: tuple[Refinement, ...] = Field((), description="what became of each prompt; nobody is asked again")


class ShapeSection(Section):
    """How large and how long."""

    resolution: str | None = Field(None, description="resolution name, e.g. 720p")
    aspect_ratio: str | None = Field(None, description="width:height, e.g. 16:9 (landscape)")
    duration: str | None = Field(None, description="length name, e.g. 4s")
    size: str | None = Field(None, description="exact size HEIGHTxWIDTH in pixels, wins over resolution")
    frames: Annotated[int, Field(ge=1)] | None = Field(None, description="exact number of frames, wins over duration")
    segments: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1, description="parts of this length, each going on from the last"
    )
    fps: Annotated[float, Field(gt=0, le=240)] | None = Field(None, description="frames per second")
    save_fps: Annotated[float, Field(gt=0, le=240)] | None = Field(None, description="frame rate of the file only")


class OutputFile(Section):
    """The file of one clip, and its seed."""

    path: Path = Field(description="file to write")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(description="seed of this clip")


class OutputSection(Section):
    """Where the result goes."""

    path: Path | None = Field(None, description="file or folder; default outputs/<prompt>-<seed>.mp4")
    files: tuple[OutputFile, ...] = Field((), description="file and seed of each prompt, instead of path and seed")
    overwrite: bool = Field(False, description="replace an existing file made with other settings")
    crf: Annotated[int, Field(ge=0, le=51)] = Field(CRF, description="quality of videos: lower is better and larger")
    upscaler: str | None = Field(None, description="how clips are enlarged that are larger than the model makes")
    sidecar: bool = Field(True, description="write the settings beside the file too, not only into it")


class SamplingSection(Section):
    """How the video is sampled."""

    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="sampling steps")
    guidance: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="classifier-free guidance scale")
    scheduler: str | None = Field(None, description="scheduler name")
    scheduler_options: dict[str, Any] = Field({}, description="options of the scheduler")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(42, description="sample k of a prompt uses seed + k")
    num_samples: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="clips per prompt")
    batch_size: Annotated[int, Field(ge=1)] = Field(1, description="clips sampled together")


class ConditioningSection(Section):
    """What the clip is conditioned on besides the prompt."""

    aes: Score | None = Field(None, description="aesthetic score put into the prompt, 4 to 7")
    motion: Score | None = Field(None, description="motion score put into the prompt, 0 to 100")
    camera: str | None = Field(None, description="camera motion put into the prompt, e.g. pan left")
    first: str | None = Field(None, description="picture of the first frame")
    last: str | None = Field(None, description="picture of the last frame")
    keyframes: tuple[str, ...] = Field((), description="pictures in between: PICTURE@2.5s, or PICTURE@60 in frames")
    extend: str | None = Field(None, description="video that goes on; the length is then that of the new part")
    backward: bool = Field(False, description="the new part comes before the video instead of after it")
    overlap: Annotated[int, Field(ge=1)] | None = Field(
        None, description="frames of the video that a new part is made from; default 17, or 4 without pieces"
    )
    overlap_strength: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="how much they are changed in the next segment, though not in the video"
    )
    overlap_from: Literal["latents", "frames"] = Field(
        "latents", description="a segment goes on from sampled latents, or from decoded frames that are encoded again"
    )
    connect: tuple[str, str] | None = Field(
        None, description="two pictures or videos; the clip leads from the end of one to the beginning of the other"
    )
    seamless: bool = Field(False, description="the end of the clip meets its beginning, to be played in a loop")
    edit: str | None = Field(None, description="video that is changed instead of starting from noise")
    strength: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="how much it is changed: 0 keeps it, 1 makes it anew"
    )
    references: tuple[str, ...] = Field(
        (), description="pictures and videos of each prompt, or of all; several separated by ;"
    )
    mask_strategy: tuple[str, ...] = Field((), description="where they go, in the grammar of the released models")
    align: Annotated[int, Field(ge=1)] | None = Field(
        None, description="latent frames to whose multiples a mask strategy is moved"
    )


class ModelSection(Section):
    """Which model, and how its numbers are kept."""

    name: str = Field("auto", description="model name; auto takes the best that fits this machine")
    variant: str | None = Field(None, description="size of the model")
    weights: str | None = Field(None, description="hub id, folder, file or training run to load instead")
    raw: bool = Field(False, description="of a training run take the last weights, not their average")
    dtype: DTypeName = Field("auto", description="number format of the network")
    attention: str = Field("auto", description="attention backend")
    strict: bool = Field(True, description="whether weights must fit the model exactly")
    lora: tuple[str, ...] = Field((), description="adapters to merge: run, file or folder, with :scale if not 1")
    vae: str | None = Field(None, description="video autoencoder")
    vae_weights: str | None = Field(None, description="hub id, folder or file of the video autoencoder")
    text_encoder: str | None = Field(None, description="text encoder")
    text_weights: str | None = Field(None, description="hub id or folder of the text encoder")
    text_dtype: TextDTypeName = Field("auto", description="number format of the text encoder")
    options: dict[str, Any] = Field({}, description="options that only this model has")


class ProcessesSection(Section):
    """On which devices a run goes, and in how many processes."""

    device: DeviceName = Field("auto", description="device")
    gpus: Annotated[int, Field(ge=1)] = Field(1, description="number of GPUs (processes)")
    parallel: str | None = Field(None, description="parallelism plugin")
    sequence_parallel: Annotated[int, Field(ge=1)] | None = Field(None, description="GPUs that share one clip")
    nnodes: Annotated[int, Field(ge=1)] = Field(1, description="number of machines")
    node_rank: Annotated[int, Field(ge=0)] = Field(0, description="number of this machine, from 0")
    rdzv_endpoint: str | None = Field(None, description="HOST:PORT where the machines find each other")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="CPU threads; default: the cores this process may use"
    )


class HardwareSection(ProcessesSection):
    """Where it runs."""

    offload: OffloadName = Field("auto", description="what is moved off the device while unused")
    text_device: Literal["auto", "same", "cpu"] = Field(
        "auto", description="where prompts are encoded: on the device of the run or on the CPU"
    )
    decode_frames: Annotated[int, Field(ge=1)] | None = Field(None, description="frames decoded at a time")


class GenerateConfig(Section):
    """All settings of `sora generate`."""

    prompt: PromptSection = PromptSection()
    shape: ShapeSection = ShapeSection()
    output: OutputSection = OutputSection()
    sampling: SamplingSection = SamplingSection()
    conditioning: ConditioningSection = ConditioningSection()
    model: ModelSection = ModelSection()
    hardware: HardwareSection = HardwareSection()
