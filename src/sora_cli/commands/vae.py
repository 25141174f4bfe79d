"""`sora vae`: encode, decode, reconstruct, measure and train video autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sora_cli import options as o
from sora_cli import train_options as t
from sora_cli import vae_options as v
from sora_cli.errors import UsageError
from sora_cli.root import LightCommand

if TYPE_CHECKING:
    from sora_cli.tasks.codec import CodecOptions

app = o.new_app(
    help="Encode, decode, reconstruct, measure and train video autoencoders.",
    epilog=o.examples(
        "sora vae reconstruct clip.mp4",
        "sora vae eval clips/*.mp4 --metric psnr --metric ssim",
        "sora vae train --preset vae-stage1 --data clips.csv --gpus 8",
    ),
)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora vae encode clip.mp4 -o latents.safetensors",
        "sora vae encode clips/*.mp4 -o latents/ --store bf16 --fps 24",
    ),
)
def encode(
    ctx: typer.Context,
    videos: v.Videos,
    vae: v.Name = "auto",
    vae_weights: v.Where = None,
    dtype: v.Format = "auto",
    sample: v.Sample = False,
    seed: v.Seed = 42,
    memory: v.Memory = "plain",
    low_memory: v.LowMemory = False,
    size: v.ClipSize = None,
    frames: v.ClipFrames = None,
    fps: v.ClipFps = None,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    output: v.To = None,
    store: v.Store = "fp32",
    overwrite: v.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write the latents of videos or pictures of any length, and print the files."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.tasks.vae import encode as run

        run(videos, output, codec_options(ctx), store=store, overwrite=overwrite)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora vae decode latents.safetensors -o clip.mp4",
        "sora vae decode latents/*.safetensors -o clips/ --low-memory",
    ),
)
def decode(
    ctx: typer.Context,
    files: v.LatentFiles,
    vae: v.Name = "auto",
    vae_weights: v.Where = None,
    dtype: v.Format = "auto",
    memory: v.Memory = "plain",
    low_memory: v.LowMemory = False,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    output: v.To = None,
    overwrite: v.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write the videos of latents, and print the files. --vae auto is the autoencoder that wrote them."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.tasks.vae import decode as run

        run(files, output, codec_options(ctx), overwrite=overwrite)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora vae reconstruct clip.mp4 -o compared.mp4",
        "sora vae reconstruct clip.mp4 -o compared --separate --size 256x256",
    ),
)
def reconstruct(
    ctx: typer.Context,
    videos: v.Videos,
    vae: v.Name = "auto",
    vae_weights: v.Where = None,
    dtype: v.Format = "auto",
    sample: v.Sample = False,
    seed: v.Seed = 42,
    memory: v.Memory = "plain",
    low_memory: v.LowMemory = False,
    size: v.ClipSize = None,
    frames: v.ClipFrames = None,
    fps: v.ClipFps = None,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    output: v.To = None,
    separate: v.Separate = False,
    overwrite: v.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write each video beside its reconstruction, and beside that of the spatial part alone where there is one."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.tasks.vae_quality import reconstruct as run

        run(videos, output, codec_options(ctx), separate=separate, overwrite=overwrite)


EVALUATE_EXAMPLES = o.examples(
    "sora vae eval clip.mp4",
    "sora vae eval clip.mp4 --metric lpips --metric-weights alexnet=net.pth --json",
)


@app.command("eval", cls=LightCommand, epilog=EVALUATE_EXAMPLES)
def evaluate(
    ctx: typer.Context,
    videos: v.Videos,
    vae: v.Name = "auto",
    vae_weights: v.Where = None,
    dtype: v.Format = "auto",
    sample: v.Sample = False,
    seed: v.Seed = 42,
    memory: v.Memory = "plain",
    low_memory: v.LowMemory = False,
    size: v.ClipSize = None,
    frames: v.ClipFrames = None,
    fps: v.ClipFps = None,
    metrics: v.Metrics = None,
    metric_weights: v.MetricWeights = None,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Measure how well videos are reconstructed, each and all together; from the frames, not from files of them."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.tasks.vae_quality import evaluate as run

        run(videos, codec_options(ctx), metrics=metrics or (), metric_weights=metric_weights or ())


@app.command(
    cls=LightCommand, epilog=o.examples("sora vae stats clips/*.mp4", "sora vae stats clips/*.mp4 --sample --json")
)
def stats(
    ctx: typer.Context,
    videos: v.Videos,
    vae: v.Name = "auto",
    vae_weights: v.Where = None,
    dtype: v.Format = "auto",
    sample: v.Sample = False,
    seed: v.Seed = 42,
    memory: v.Memory = "plain",
    low_memory: v.LowMemory = False,
    size: v.ClipSize = None,
    frames: v.ClipFrames = None,
    fps: v.ClipFps = None,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Print mean and deviation of the latents of videos, whole and by channel, to scale them with."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.tasks.vae_quality import statistics as run

        run(videos, codec_options(ctx))


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora vae train --preset vae-stage1 --data clips.csv --gpus 8",
        "sora vae train --preset vae-stage3 --data clips.csv --discriminator patch-3d",
        "sora vae train --vae nano --data clips.csv --size 64x64 --frames 17 --batch-size 4",
    ),
)
def train(
    ctx: typer.Context,
    tables: t.Data = None,
    data_root: t.DataRoot = None,
    bad_rows: t.BadRows = None,
    train_size: t.Size = None,
    train_frames: t.Frames = None,
    train_batch_size: t.BatchSize = None,
    frame_interval: t.FrameInterval = None,
    mixing: v.Mixing = None,
    workers: t.Workers = None,
    vae_name: v.Vae = None,
    vae_start: v.Weights = None,
    vae_raw: v.Raw = None,
    vae_init: v.Initialize = None,
    vae_config: v.NetworkConfig = None,
    vae_dtype: v.Dtype = None,
    vae_freeze: v.Freeze = None,
    vae_checkpointing: v.Checkpointing = None,
    perceptual_weight: v.PerceptualWeight = None,
    perceptual_weights: v.PerceptualWeights = None,
    kl_weight: v.KlWeight = None,
    discriminator: v.Discriminator = None,
    learning_rate: t.LearningRate = None,
    warmup_steps: t.Warmup = None,
    accumulation: t.Accumulation = None,
    ema_decay: t.EmaDecay = None,
    run_folder: t.Run = None,
    train_steps: t.Steps = None,
    epochs: t.Epochs = None,
    train_seed: t.Seed = None,
    log_every: t.LogEvery = None,
    checkpoint_every: t.CheckpointEvery = None,
    keep: t.Keep = None,
    resume: t.Resume = None,
    load: t.Load = None,
    profile: t.Profile = None,
    tensorboard: t.TensorBoard = None,
    wandb: t.Wandb = None,
    validate: t.Validate = None,
    validate_every: t.ValidateEvery = None,
    samples: v.Samples = None,
    device: o.Device = None,
    gpus: o.Gpus = None,
    parallel: o.Parallel = None,
    sharding: t.Sharding = None,
    nnodes: o.Nnodes = None,
    node_rank: o.NodeRank = None,
    rdzv_endpoint: o.RdzvEndpoint = None,
    hostfile: t.HostFile = None,
    host_port: t.HostPort = 29500,
    threads: o.Threads = None,
    dry_run: o.DryRun = False,
    preset: v.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a video autoencoder on a table of clips; the same command after a stop goes on as if nothing had happened.

    The folder of the run is printed; `sora vae eval --vae NAME --vae-weights FOLDER` uses what was trained.
    """
    import sys

    from sora_cli.config.resolve_vae import resolve_vae_train
    from sora_cli.console import command_output
    from sora_cli.launch.hosts import read_hosts, run_on_hosts, without_option
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.train import run

    with command_output(json=as_json, quiet=quiet):
        if hostfile is not None:
            run_on_hosts(
                read_hosts(hostfile), without_option(sys.argv[1:], "--hostfile", "--host-port"), port=host_port
            )
            return
        resolved = resolve_vae_train(
            o.given_settings(ctx.params, None),
            config_file=config,
            preset=preset,
            sets=sets or (),
            plugins=get_plugins(),
            check_devices=not dry_run,
        )
        run(resolved, dry_run=dry_run)


def codec_options(ctx: typer.Context) -> CodecOptions:
    """How clips are coded, from the options of a command."""
    from sora_cli.tasks.codec import CodecOptions

    values = dict(ctx.params)
    if values.get("low_memory"):
        if values["memory"] == "tiled":
            raise UsageError("--low-memory and --memory tiled are two ways", hint="give one of them")
        values["memory"] = "low"
    names = ("dtype", "device", "threads", "memory", "sample", "seed", "size", "frames", "fps")
    chosen = {name: values[name] for name in names if name in values}
    return CodecOptions(name=values["vae"], weights=values["vae_weights"], **chosen)
