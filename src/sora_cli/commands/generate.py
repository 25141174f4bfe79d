"""`sora generate`: videos and images from text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from sora_cli import options as o
from sora_cli.errors import UsageError
from sora_cli.root import LightCommand

if TYPE_CHECKING:
    from sora_cli.conditioning.sources import Sources
    from sora_cli.config.resolve import Resolved

app = o.new_app()


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        'sora generate "a waterfall"',
        'sora generate "a red fox in the snow" --res 240p --len 2s --seed 7 -o fox.mp4',
        "sora generate --prompt-file prompts.txt --num-samples 4 -o clips/",
        'sora generate "a harbour at dusk" --frames 1 --aspect-ratio 1:1',
        'sora generate "a red waterfall" --edit waterfall.mp4 --strength 0.4',
        'sora generate "clouds in a blue sky" --segments 4',
        'sora generate "une cascade" --refine',
        'sora generate "clouds gather" --connect morning.mp4 evening.mp4 --len 2s',
        'sora generate "a campfire" --seamless',
        'sora generate "a waterfall" --dry-run',
    ),
)
def generate(
    ctx: typer.Context,
    prompts: o.Prompts = None,
    prompt_file: o.PromptFile = None,
    negative_prompt: o.NegativePrompt = None,
    start_index: o.StartIndex = None,
    end_index: o.EndIndex = None,
    refine: o.Refine = None,
    refine_motion: o.RefineMotion = None,
    refine_model: o.RefineModel = None,
    refine_timeout: o.RefineTimeout = None,
    resolution: o.Resolution = None,
    duration: o.Duration = None,
    aspect_ratio: o.AspectRatio = None,
    size: o.Size = None,
    frames: o.Frames = None,
    segments: o.Segments = None,
    fps: o.Fps = None,
    save_fps: o.SaveFps = None,
    output: o.Output = None,
    overwrite: o.Overwrite = None,
    crf: o.Crf = None,
    upscaler: o.Upscaler = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    scheduler: o.Scheduler = None,
    seed: o.Seed = None,
    num_samples: o.NumSamples = None,
    batch_size: o.BatchSize = None,
    aes: o.Aes = None,
    motion: o.Motion = None,
    camera: o.Camera = None,
    first_picture: o.First = None,
    last_picture: o.Last = None,
    keyframes: o.Keyframes = None,
    extend: o.Extend = None,
    backward: o.Backward = None,
    overlap: o.Overlap = None,
    overlap_strength: o.OverlapStrength = None,
    overlap_from: o.OverlapFrom = None,
    connect: o.Connect = None,
    seamless: o.Seamless = None,
    edit: o.Edit = None,
    strength: o.Strength = None,
    references: o.References = None,
    mask_strategy: o.MaskStrategy = None,
    align: o.Align = None,
    allow_private_urls: o.AllowPrivateUrls = False,
    model: o.Model = None,
    variant: o.Variant = None,
    model_options: o.ModelOptions = None,
    weights: o.Weights = None,
    raw: o.Raw = None,
    lora: o.Lora = None,
    strict: o.Strict = None,
    dtype: o.Dtype = None,
    attention: o.Attention = None,
    vae: o.Vae = None,
    vae_weights: o.VaeWeights = None,
    text_encoder: o.TextEncoder = None,
    text_weights: o.TextWeights = None,
    text_dtype: o.TextDtype = None,
    device: o.Device = None,
    gpus: o.Gpus = None,
    parallel: o.Parallel = None,
    sequence_parallel: o.SequenceParallel = None,
    offload: o.Offload = None,
    decode_frames: o.DecodeFrames = None,
    text_device: o.TextDevice = None,
    nnodes: o.Nnodes = None,
    node_rank: o.NodeRank = None,
    rdzv_endpoint: o.RdzvEndpoint = None,
    threads: o.Threads = None,
    dry_run: o.DryRun = False,
    preset: o.Preset = None,
    config: o.Config = None,
    from_video: o.From = None,
    debug: o.Debug = False,
) -> None:
    """Make videos (or images) from text.

    Each prompt becomes a clip; its path is printed when it is done.

    A clip that was made before with the same settings is kept; one that was interrupted goes on where it stopped.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        make(o.given_settings(ctx.params, prompts), ctx.params)


def sources_of(options: Mapping[str, Any]) -> Sources:
    """Where the references of a run are found. options: of `generate`, by the names of its parameters."""
    from sora_cli.conditioning.sources import Sources
    from sora_cli.video.settings import find_settings

    # What references were when the clip was made whose settings are used again.
    made = find_settings(options["from_video"]) if options["from_video"] else None
    return Sources(allow_private=options["allow_private_urls"], expected=(made or {}).get("sources"))


def needs_prompt(options: Mapping[str, Any]) -> bool:
    """Whether the argument alone can give a prompt: no file of settings, and no language model that makes one up."""
    return not (options["config"] or options["from_video"] or options["refine"])


def no_prompt(example: str) -> UsageError:
    """The error for a command without its prompt. example: one that works."""
    return UsageError("a prompt is needed: what happens in the video", hint=f"for example: {example}")


def make(given: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], *, sources: Sources | None = None) -> None:
    """Make the clips of these settings. options: as above. sources: of the run, if some are known already."""
    from sora_cli.conditioning.sources import check_standard_input
    from sora_cli.config.schema import ConditioningSection
    from sora_cli.tasks.generate import run

    found = sources or sources_of(options)
    said = {name: value for name, value in given.get("conditioning", {}).items() if value is not None}
    check_standard_input(ConditioningSection.model_construct(**said), given.get("prompt", {}).get("file"))
    run(resolved_run(given, options, found), dry_run=options["dry_run"], sources=found)


def resolved_run(given: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], sources: Sources) -> Resolved:
    """The complete configuration of a run. options: as above."""
    from sora_cli.config.resolve import resolve_generate
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.video.settings import read_generate_settings

    def video_shape(text: str) -> tuple[str, float] | None:
        from sora_cli.video.clips import size_and_rate
        from sora_cli.video.pictures import is_still

        path = sources(text).path
        return None if is_still(path) else size_and_rate(path)

    video = options["from_video"]
    return resolve_generate(
        given,
        config_file=options["config"],
        from_settings=read_generate_settings(video) if video else None,
        preset=options["preset"],
        options=options["model_options"] or (),
        plugins=get_plugins(),
        video_shape=video_shape,
        check_devices=not options["dry_run"],
    )
