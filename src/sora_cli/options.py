"""How a Typer app of ours is made, and the options that several commands share.

Options that set a value of the configuration default to None, "not given"; only given ones are passed on, so that
environment, files and presets can fill the rest. Their environment variables are named in the help but are read
when the configuration is resolved, not by Typer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer
from typer.models import OptionInfo

from . import complete
from .config.env import variable_name
from .errors import UsageError
from .root import Group
from .video.settings import CRF

Command = TypeVar("Command", bound=Callable[..., Any])
# Parameter name -> dotted key of the configuration; filled by `setting`.
_KEYS: dict[str, str] = {}
# Dotted key -> its flag, for messages; filled by `setting`.
_FLAGS: dict[str, str] = {}


def new_app(*, cls: type[Group] = Group, help: str | None = None, epilog: str | None = None) -> typer.Typer:
    """A Typer app with our conventions: -h, suggestions for misspelt commands, our own errors."""
    return typer.Typer(
        cls=cls,
        help=help,
        epilog=epilog,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def examples(*lines: str) -> str:
    """The epilog of a command: commands that work when pasted."""
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


def setting(
    key: str,
    flags: str,
    help: str,
    metavar: str | None = None,
    *,
    default: str | None = None,
    values: Callable[[str], list[complete.Value]] | None = None,
    parameter: str | None = None,
) -> OptionInfo:
    """An option that sets `key` of the configuration, in the help panel named after the section.

    flags: separated by spaces. default: what happens when nothing sets it, for the help. parameter: the name of the
    command's parameter where it is not the last part of the key.
    """
    section, _, name = key.partition(".")
    _KEYS[parameter or name] = key
    _FLAGS.setdefault(key, next(flag for flag in flags.split() if flag.startswith("--")).partition("/")[0])
    ending = f"default: {default}; " if default else ""
    option: OptionInfo = typer.Option(
        *flags.split(),
        help=f"{help}  ({ending}env: {variable_name(key)})",
        rich_help_panel=section.title(),
        metavar=metavar,
        autocompletion=values,
    )
    return option


def given_settings(parameters: Mapping[str, Any], prompts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What the user gave, as {section: {key: value}}; parameters that are no settings or not given are left out.

    prompts: the positional ones; a single "-" stands for standard input.
    """
    flags: dict[str, dict[str, Any]] = {}
    if prompts:
        if "-" in prompts and len(prompts) > 1:
            raise UsageError("- reads all prompts from standard input", hint="give - alone, or the prompts themselves")
        flags["prompt"] = {"file": "-"} if prompts[0] == "-" else {"prompts": tuple(prompts)}
    for parameter, value in parameters.items():
        if parameter in _KEYS and value not in (None, (None, None)):  # the latter of an option with two values
            section, key = _KEYS[parameter].split(".")
            flags.setdefault(section, {})[key] = value
    return flags


def with_options_of(command: Callable[..., Any], *, without: Sequence[str]) -> Callable[[Command], Command]:
    """Give a command the options of another one behind its own; it takes them as `**options`."""

    def add(function: Command) -> Command:
        hints = {**get_type_hints(command, include_extras=True), **get_type_hints(function, include_extras=True)}
        own = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
        names = {each.name for each in own}
        shared = [
            each for each in inspect.signature(command).parameters.values() if each.name not in {*names, *without}
        ]
        parameters = [each.replace(annotation=hints[each.name]) for each in (*own, *shared)]
        wrapped: Any = function
        wrapped.__signature__ = inspect.Signature(parameters)
        wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
        return function

    return add


def flag_of(key: str) -> str | None:
    """The flag that sets a dotted key, e.g. "--crf"; None when it has none."""
    return _FLAGS.get(key)


def setting_keys() -> dict[str, str]:
    """Parameter name -> dotted key, for all options made with `setting`."""
    return dict(_KEYS)


# Prompt
Prompts = Annotated[
    list[str] | None,
    typer.Argument(help="what to show, one clip each; - reads one prompt a line from standard input", metavar="PROMPT"),
]
PromptFile = Annotated[
    str | None,
    setting(
        "prompt.file",
        "--prompt-file",
        "text file with one prompt a line; - reads standard input",
        "FILE",
        parameter="prompt_file",
    ),
]
NegativePrompt = Annotated[
    str | None,
    setting(
        "prompt.negative",
        "--negative-prompt",
        "what not to show, where the model's guidance can use it",
        "TEXT",
        parameter="negative_prompt",
    ),
]
StartIndex = Annotated[
    int | None,
    setting(
        "prompt.start_index", "--start-index", "first line of the prompt file to use, counted from 0", "N", default="0"
    ),
]
EndIndex = Annotated[
    int | None,
    setting("prompt.end_index", "--end-index", "line of the prompt file to stop before", "N", default="the last"),
]
Refine = Annotated[
    bool | None,
    setting(
        "prompt.refine",
        "--refine/--no-refine",
        "let a language model (OPENAI_API_KEY, OPENAI_BASE_URL) rewrite the prompts in full, or make up missing ones",
        default="no",
    ),
]
RefineMotion = Annotated[
    bool | None,
    setting(
        "prompt.refine_motion",
        "--refine-motion",
        "let it choose the motion scores",
        default="no",
    ),
]
RefineModel = Annotated[
    str | None,
    setting("prompt.refine_model", "--refine-model", "name of the language model", "NAME", default="gpt-4o"),
]
RefineTimeout = Annotated[
    float | None,
    setting("prompt.refine_timeout", "--refine-timeout", "how long to wait for an answer", "SECONDS", default="60.0"),
]

# Shape
Resolution = Annotated[
    str | None,
    setting(
        "shape.resolution",
        "-r --res --resolution",
        "resolution by name, e.g. 720p",
        "NAME",
        default="the model's",
        values=complete.resolutions,
    ),
]
Duration = Annotated[
    str | None,
    setting(
        "shape.duration",
        "-l --len --duration",
        "length by name, e.g. 4s",
        "NAME",
        default="the model's",
        values=complete.durations,
    ),
]
AspectRatio = Annotated[
    str | None,
    setting(
        "shape.aspect_ratio",
        "--aspect-ratio",
        "width:height; 16:9 is landscape, 9:16 portrait",
        "W:H",
        default="16:9",
        values=complete.aspect_ratios,
    ),
]
Size = Annotated[
    str | None,
    setting("shape.size", "--size", "exact height and width in pixels; wins over the resolution", "HxW"),
]
Frames = Annotated[
    int | None,
    setting("shape.frames", "--frames", "exact number of frames, 1 makes an image; wins over the duration", "N"),
]
Segments = Annotated[
    int | None,
    setting(
        "shape.segments",
        "--segments",
        "parts of this length, each going on from the end of the one before",
        "N",
        default="1",
    ),
]
Fps = Annotated[
    float | None,
    setting("shape.fps", "--fps", "frames per second", "RATE", default="the model's"),
]
SaveFps = Annotated[
    float | None,
    setting("shape.save_fps", "--save-fps", "frame rate of the file only", "RATE", default="--fps"),
]

# Output
Output = Annotated[
    Path | None,
    setting(
        "output.path",
        "-o --output",
        "file or folder to write",
        "PATH",
        default="outputs/<prompt>-<seed>.mp4",
        parameter="output",
    ),
]
Overwrite = Annotated[
    bool | None,
    setting(
        "output.overwrite",
        "--overwrite/--no-overwrite",
        "replace a file that was made with other settings",
        default="no",
    ),
]
Crf = Annotated[
    int | None,
    setting("output.crf", "--crf", "quality of videos: lower is better and larger", "N", default=str(CRF)),
]
Upscaler = Annotated[
    str | None,
    setting(
        "output.upscaler",
        "--upscaler",
        "how clips are enlarged that are larger than the model makes",
        "NAME",
        default="the model's",
        values=complete.upscalers,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document", rich_help_panel="Output")]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="print only paths or names, one a line", rich_help_panel="Output")
]

# Sampling
Steps = Annotated[
    int | None,
    setting("sampling.steps", "--steps", "sampling steps; more is slower and finer", "N", default="the model's"),
]
Guidance = Annotated[
    float | None,
    setting(
        "sampling.guidance",
        "--guidance",
        "how closely to follow the prompt (classifier-free guidance scale)",
        "SCALE",
        default="the model's",
    ),
]
Scheduler = Annotated[
    str | None,
    setting(
        "sampling.scheduler",
        "--scheduler",
        "how the noise is taken away",
        "NAME",
        default="the model's",
        values=complete.schedulers,
    ),
]
Seed = Annotated[
    int | None,
    setting("sampling.seed", "--seed", "sample k of a prompt uses seed + k", "N", default="42"),
]
NumSamples = Annotated[
    int | None,
    setting("sampling.num_samples", "--num-samples", "clips per prompt", "N", default="1"),
]
BatchSize = Annotated[
    int | None,
    setting("sampling.batch_size", "--batch-size", "clips sampled together", "N", default="1"),
]

# Conditioning
Aes = Annotated[
    float | None,
    setting("conditioning.aes", "--aes", "aesthetic score put into the prompt, 4 to 7; above 6 looks best", "SCORE"),
]
Motion = Annotated[
    float | None,
    setting(
        "conditioning.motion",
        "--motion",
        "motion score put into the prompt, 0 to 100; low is smooth, high is lively",
        "SCORE",
    ),
]
Camera = Annotated[
    str | None,
    setting(
        "conditioning.camera",
        "--camera",
        'camera motion put into the prompt, e.g. "pan left"',
        "TEXT",
        values=complete.camera_motions,
    ),
]

Picture = Annotated[
    str,
    typer.Argument(
        help="picture (or video, whose first frame counts): a file, an http(s) address, or - for standard input",
        metavar="PICTURE",
    ),
]
PicturePrompt = Annotated[str | None, typer.Argument(help="what happens in the video", metavar="PROMPT")]
First = Annotated[
    str | None,
    setting("conditioning.first", "--first", "picture of the first frame", "PICTURE", parameter="first_picture"),
]
Last = Annotated[
    str | None,
    setting("conditioning.last", "--last", "picture of the last frame", "PICTURE", parameter="last_picture"),
]
Keyframes = Annotated[
    list[str] | None,
    setting("conditioning.keyframes", "--keyframe", "picture at a time, repeatable", "IMAGE@2.5s"),
]
Extend = Annotated[
    str | None,
    setting("conditioning.extend", "--extend", "video that goes on; the length is that of the new part", "VIDEO"),
]
Backward = Annotated[
    bool | None,
    setting(
        "conditioning.backward",
        "--backward",
        "the new part comes before the video instead of after it",
        default="no",
    ),
]
Overlap = Annotated[
    int | None,
    setting(
        "conditioning.overlap",
        "--overlap",
        "frames of the video, or of the segment before, that a new part is made from",
        "N",
        default="17, or 4 where every frame is coded alone",
    ),
]
OverlapStrength = Annotated[
    float | None,
    setting(
        "conditioning.overlap_strength",
        "--overlap-strength",
        "how much a segment changes what it goes on from: 0 keeps it, near 1 makes it anew",
        "SHARE",
        default="0.0",
    ),
]
OverlapFrom = Annotated[
    Literal["latents", "frames"] | None,
    setting(
        "conditioning.overlap_from",
        "--overlap-from",
        "what a segment goes on from: sampled latents, or decoded frames that are encoded again",
        "NAME",
        default="latents",
    ),
]
Connect = Annotated[
    tuple[str, str] | None,
    setting(
        "conditioning.connect",
        "--connect",
        "two pictures or videos; the clip leads from the end of the first to the beginning of the second",
        "A B",
    ),
]
Seamless = Annotated[
    bool | None,
    setting(
        "conditioning.seamless",
        "--seamless",
        "the end of the clip meets its beginning, to be played in a loop",
        default="no",
    ),
]
ExtendedPrompt = Annotated[
    str | None,
    typer.Argument(help="what happens in the video (default: the prompt that VIDEO was made from)", metavar="PROMPT"),
]
ExtendedVideo = Annotated[
    str, typer.Argument(help="video that goes on: a file, an http(s) address, or - for standard input", metavar="VIDEO")
]
By = Annotated[
    str | None,
    setting(
        "shape.duration",
        "--by",
        "length of the new part, e.g. 2s",
        "LENGTH",
        default="the model's",
        values=complete.durations,
        parameter="by",
    ),
]
Edit = Annotated[
    str | None,
    setting("conditioning.edit", "--edit", "video that is changed instead of starting from noise", "VIDEO"),
]
Strength = Annotated[
    float | None,
    setting(
        "conditioning.strength",
        "--strength",
        "how much it is changed: 0 keeps it, 1 makes it anew",
        "SHARE",
        default="0.5",
    ),
]
References = Annotated[
    list[str] | None,
    setting(
        "conditioning.references",
        "--reference",
        "pictures and videos of each prompt, or of all: files, http(s) addresses, - for standard input; several "
        "separated by ;",
        "FILES",
    ),
]
MaskStrategy = Annotated[
    list[str] | None,
    setting(
        "conditioning.mask_strategy",
        "--mask-strategy",
        "where references go, in the grammar of the released models, e.g. 0;0,1,0,-1,1",
        "TEXT",
    ),
]
Align = Annotated[
    int | None,
    setting("conditioning.align", "--align", "latent frames to whose multiples a mask strategy is moved", "N"),
]
AllowPrivateUrls = Annotated[
    bool,
    typer.Option(
        "--allow-private-urls",
        help="fetch pictures and videos also from addresses that are not on the open internet",
        rich_help_panel="Conditioning",
    ),
]

# Model
Model = Annotated[
    str | None,
    setting(
        "model.name",
        "-m --model",
        "model; auto takes the best that fits this machine",
        "NAME",
        default="auto",
        values=complete.models,
        parameter="model",
    ),
]
Variant = Annotated[
    str | None,
    setting("model.variant", "--variant", "size of the model", "NAME", default="the model's first"),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "-O",
        help=f"option of the model, repeatable; `sora plugins show MODEL` lists them  "
        f"(env: {variable_name('model.options')}__KEY)",
        rich_help_panel="Model",
        metavar="KEY=VALUE",
    ),
]
Weights = Annotated[
    str | None,
    setting(
        "model.weights",
        "--weights",
        "hub id, folder, file or training run to load instead of the released weights",
        "WHERE",
    ),
]
Lora = Annotated[
    list[str] | None,
    setting("model.lora", "--lora", "adapter to merge: a training run, file or folder; repeatable", "PLACE[:SCALE]"),
]
Raw = Annotated[
    bool | None,
    setting(
        "model.raw",
        "--raw/--averaged",
        "of a training run take the weights as the last update left them, not their average",
        default="no",
    ),
]
Dtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None,
    setting("model.dtype", "--dtype", "number format of the network: auto, fp32, bf16 or fp16", "NAME", default="auto"),
]
Attention = Annotated[
    str | None,
    setting(
        "model.attention",
        "--attention",
        "attention backend",
        "NAME",
        default="auto",
        values=complete.attention_backends,
    ),
]
Vae = Annotated[
    str | None,
    setting("model.vae", "--vae", "video autoencoder", "NAME", default="the model's", values=complete.vaes),
]
TextEncoder = Annotated[
    str | None,
    setting(
        "model.text_encoder",
        "--text-encoder",
        "text encoder",
        "NAME",
        default="the model's",
        values=complete.text_encoders,
    ),
]
Strict = Annotated[
    bool | None,
    setting(
        "model.strict",
        "--strict/--no-strict",
        "refuse weights that do not fit exactly; otherwise what fits is loaded",
        default="yes",
    ),
]
VaeWeights = Annotated[
    str | None,
    setting("model.vae_weights", "--vae-weights", "the same for the video autoencoder", "WHERE"),
]
TextWeights = Annotated[
    str | None,
    setting("model.text_weights", "--text-weights", "the same for the text encoder", "WHERE"),
]
TextDtype = Annotated[
    Literal["auto", "fp32", "bf16", "int8"] | None,
    setting(
        "model.text_dtype",
        "--text-dtype",
        "number format of the text encoder: auto, fp32, bf16 or int8",
        "NAME",
        default="auto",
    ),
]

# Hardware
Device = Annotated[
    Literal["auto", "cuda", "mps", "cpu"] | None,
    setting("hardware.device", "--device", "where to run: auto, cuda, mps or cpu", "NAME", default="auto"),
]
Gpus = Annotated[
    int | None,
    setting("hardware.gpus", "--gpus", "number of GPUs (processes)", "N", default="1"),
]
Parallel = Annotated[
    str | None,
    setting(
        "hardware.parallel", "--parallel", "how the model is spread over the GPUs", "NAME", values=complete.parallelism
    ),
]
SequenceParallel = Annotated[
    int | None,
    setting("hardware.sequence_parallel", "--sequence-parallel", "GPUs that share one clip", "N"),
]
Offload = Annotated[
    Literal["auto", "none", "model", "block"] | None,
    setting(
        "hardware.offload",
        "--offload",
        "what is moved off the device while it is not used: auto, none, model or block",
        "NAME",
        default="auto",
    ),
]
DecodeFrames = Annotated[
    int | None,
    setting(
        "hardware.decode_frames",
        "--decode-frames",
        "frames decoded at a time; fewer needs less memory",
        "N",
        default="by memory",
    ),
]
TextDevice = Annotated[
    Literal["auto", "same", "cpu"] | None,
    setting(
        "hardware.text_device",
        "--text-device",
        "where prompts are encoded: auto, same (as the model) or cpu",
        "NAME",
        default="auto",
    ),
]
Nnodes = Annotated[
    int | None,
    setting("hardware.nnodes", "--nnodes", "number of machines, each with --gpus GPUs", "N", default="1"),
]
NodeRank = Annotated[
    int | None,
    setting("hardware.node_rank", "--node-rank", "number of this machine, from 0", "N", default="0"),
]
RdzvEndpoint = Annotated[
    str | None,
    setting("hardware.rdzv_endpoint", "--rdzv-endpoint", "where the machines find each other", "HOST:PORT"),
]
Threads = Annotated[
    int | None,
    setting("hardware.threads", "--threads", "CPU threads", "N", default="the cores it may use"),
]

# Run
DryRun = Annotated[
    bool,
    typer.Option(
        "-n",
        "--dry-run",
        help="print the settings with their origins and what would be written, and do nothing",
        rich_help_panel="Run",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="preset to start from; `sora presets list` shows them",
        rich_help_panel="Run",
        metavar="NAME",
        autocompletion=complete.presets,
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings", rich_help_panel="Run", metavar="FILE")
]
From = Annotated[
    Path | None,
    typer.Option("-i", "--from", help="use the settings stored in this video", rich_help_panel="Run", metavar="VIDEO"),
]


def _debug(value: bool) -> bool:
    if value:
        from .debug import enable_debug

        enable_debug()
    return value


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="show tracebacks  (env: SORA_DEBUG)", rich_help_panel="Run", callback=_debug, is_eager=True
    ),
]
