"""`sora train`: from a table of clips to a trained model."""

from __future__ import annotations

import typer

from sora_cli import options as o
from sora_cli import train_options as t
from sora_cli.root import LightCommand

app = o.new_app(
    help="Train a model on a table of clips.",
    epilog=o.examples(
        "sora train --preset v1.2-stage1 --data clips.csv --gpus 8",
        "sora train --preset v1.2-stage1 --data clips.csv --dry-run",
        "sora train -m nano --data clips.csv --size 144x256 --frames 49 --batch-size 2 --steps 1000",
        "sora train buckets --preset v1.2-stage1 --data clips.csv",
    ),
)


@app.callback(invoke_without_command=True)
def train(
    ctx: typer.Context,
    tables: t.Data = None,
    data_root: t.DataRoot = None,
    bad_rows: t.BadRows = None,
    train_size: t.Size = None,
    train_frames: t.Frames = None,
    train_batch_size: t.BatchSize = None,
    frame_interval: t.FrameInterval = None,
    workers: t.Workers = None,
    learning_rate: t.LearningRate = None,
    warmup_steps: t.Warmup = None,
    accumulation: t.Accumulation = None,
    ema_decay: t.EmaDecay = None,
    model: o.Model = None,
    variant: o.Variant = None,
    model_options: o.ModelOptions = None,
    weights: o.Weights = None,
    raw: o.Raw = None,
    strict: o.Strict = None,
    initialize: t.Initialize = None,
    train_dtype: t.Dtype = None,
    attention: o.Attention = None,
    vae: o.Vae = None,
    vae_weights: o.VaeWeights = None,
    text_encoder: o.TextEncoder = None,
    text_weights: o.TextWeights = None,
    text_dtype: o.TextDtype = None,
    train_lora: t.Lora = None,
    freeze: t.Freeze = None,
    train_only: t.TrainOnly = None,
    gradient_checkpointing: t.Checkpointing = None,
    compile: t.Compile = None,
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
    sample_prompts: t.SamplePrompts = None,
    sample_every: t.SampleEvery = None,
    device: o.Device = None,
    gpus: o.Gpus = None,
    parallel: o.Parallel = None,
    sequence_parallel: o.SequenceParallel = None,
    sharding: t.Sharding = None,
    nnodes: o.Nnodes = None,
    node_rank: o.NodeRank = None,
    rdzv_endpoint: o.RdzvEndpoint = None,
    hostfile: t.HostFile = None,
    host_port: t.HostPort = 29500,
    threads: o.Threads = None,
    dry_run: o.DryRun = False,
    preset: t.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a model on a table of clips; the same command after a stop goes on as if nothing had happened.

    The folder of the run is printed; `sora generate --weights FOLDER` uses what was trained. Ctrl-C and SIGTERM stop
    after the running update and keep the state.
    """
    if ctx.invoked_subcommand is not None:
        return
    import sys

    from sora_cli.config.resolve_train import resolve_train
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
        resolved = resolve_train(
            o.given_settings(ctx.params, None),
            config_file=config,
            preset=preset,
            options=model_options or (),
            sets=sets or (),
            plugins=get_plugins(),
            check_devices=not dry_run,
        )
        run(resolved, dry_run=dry_run)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora train buckets --preset v1.2-stage1 --data clips.csv",
        "sora train buckets --data clips.csv --config run.yaml --json",
    ),
)
def buckets(
    ctx: typer.Context,
    tables: t.Data = None,
    data_root: t.DataRoot = None,
    bad_rows: t.BadRows = None,
    frame_interval: t.FrameInterval = None,
    model: o.Model = None,
    train_seed: t.Seed = None,
    gpus: o.Gpus = None,
    accumulation: t.Accumulation = None,
    preset: t.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    epoch: t.Epoch = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Say where the clips of a table go: rows and batches by size and shape, and what is left out and why."""
    from sora_cli.config.resolve_train import resolve_train
    from sora_cli.console import command_output
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.train import show_buckets

    with command_output(json=as_json, quiet=quiet):
        resolved = resolve_train(
            {**o.given_settings(ctx.params, None)},
            config_file=config,
            preset=preset,
            sets=sets or (),
            plugins=get_plugins(),
            check_devices=False,
        )
        show_buckets(resolved, epoch=epoch)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora train extract --preset v1.2-stage1 --data clips.csv --gpus 8 -o features",
        "sora train --preset v1.2-stage1-features --data features --gpus 8",
    ),
)
def extract(
    ctx: typer.Context,
    output: t.ExtractTo,
    tables: t.Data = None,
    data_root: t.DataRoot = None,
    bad_rows: t.BadRows = None,
    train_size: t.Size = None,
    train_frames: t.Frames = None,
    train_batch_size: t.BatchSize = None,
    frame_interval: t.FrameInterval = None,
    workers: t.Workers = None,
    model: o.Model = None,
    vae: o.Vae = None,
    vae_weights: o.VaeWeights = None,
    text_encoder: o.TextEncoder = None,
    text_weights: o.TextWeights = None,
    text_dtype: o.TextDtype = None,
    train_dtype: t.Dtype = None,
    train_seed: t.Seed = None,
    device: o.Device = None,
    gpus: o.Gpus = None,
    threads: o.Threads = None,
    bin_size: t.BinSize = 64,
    preset: t.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Encode the clips and captions of one epoch, to train from them without autoencoder and text encoder.

    The folder is printed. What is there already is kept, so the same command goes on after a stop.
    """
    from sora_cli.config.resolve_train import resolve_train
    from sora_cli.console import command_output
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.extract import run

    with command_output(json=as_json, quiet=quiet):
        given = o.given_settings({name: value for name, value in ctx.params.items() if name != "output"}, None)
        given.setdefault("model", {})["initialize"] = "random"  # the network is not needed
        resolved = resolve_train(given, config_file=config, preset=preset, sets=sets or (), plugins=get_plugins())
        run(resolved, output, bin_size=bin_size)


@app.command(
    "search-batch-size",
    cls=LightCommand,
    epilog=o.examples(
        "sora train search-batch-size --preset v1.2-stage1 --base 512:408 > buckets.yaml",
        "sora train search-batch-size --preset v1.2-stage1 --bucket 144p:51 --most 64",
    ),
)
def search_batch_size(
    ctx: typer.Context,
    only: t.SearchOnly = None,
    base: t.SearchBase = None,
    seconds: t.SearchSeconds = None,
    most: t.SearchMost = None,
    updates: t.SearchUpdates = 5,
    model: o.Model = None,
    variant: o.Variant = None,
    model_options: o.ModelOptions = None,
    train_dtype: t.Dtype = None,
    attention: o.Attention = None,
    vae_weights: o.VaeWeights = None,
    text_weights: o.TextWeights = None,
    text_dtype: o.TextDtype = None,
    gradient_checkpointing: t.Checkpointing = None,
    compile: t.Compile = None,
    device: o.Device = None,
    threads: o.Threads = None,
    preset: t.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Find the batch size of every bucket on this machine, and print a bucket table in YAML.

    Clips of noise are trained with random weights, so no data is needed. With --base or --seconds the buckets get
    batches that take about that time, otherwise the largest that fit.
    """
    from sora_cli.config.resolve_train import resolve_train
    from sora_cli.console import command_output
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.search import run

    with command_output(json=as_json, quiet=quiet):
        given = o.given_settings(ctx.params, None)
        given.setdefault("model", {})["initialize"] = "random"
        given["run"] = {"folder": "outputs/search"}
        resolved = resolve_train(
            given,
            config_file=config,
            preset=preset,
            options=model_options or (),
            sets=sets or (),
            plugins=get_plugins(),
        )
        run(resolved, only=only or (), base=base, seconds=seconds, most=most, updates=updates)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora train export outputs/train-nano -o my-model",
        "sora train export outputs/train-nano/step-500 -o weights.safetensors --raw --dtype fp32",
        "sora train export outputs/train-pixart -o transformer --format diffusers",
    ),
)
def export(
    source: t.Source,
    output: t.ExportTo,
    layout: t.ExportFormat = "sora",
    raw: t.RawExport = False,
    dtype: t.ExportDtype = "bf16",
    overwrite: t.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write the weights of a run as one file, or as a folder like a repository of the hub."""
    from sora_cli.console import command_output
    from sora_cli.tasks.export import export as run

    with command_output(json=as_json, quiet=quiet):
        run(source, output, layout=layout, raw=raw, dtype=dtype, overwrite=overwrite)
