"""The options of `sora train` and its subcommands; conventions and shared options are those of `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import complete
from .options import setting

# Data
Data = Annotated[
    list[str] | None,
    setting(
        "data.tables",
        "--data",
        "table of clips (.csv, .parquet), folder of tables or pattern; repeatable",
        "PATH",
        parameter="tables",
    ),
]
DataRoot = Annotated[
    Path | None,
    setting(
        "data.root",
        "--data-root",
        "folder that relative paths start from",
        "FOLDER",
        default="each table's folder",
        parameter="data_root",
    ),
]
BadRows = Annotated[
    Literal["error", "skip"] | None,
    setting("data.bad_rows", "--bad-rows", "what rows with wrong values do: error or skip", "NAME", default="error"),
]
Frames = Annotated[
    int | None,
    setting(
        "data.num_frames", "--frames", "frames of every clip, where there are no buckets", "N", parameter="train_frames"
    ),
]
Size = Annotated[
    str | None,
    setting(
        "data.size", "--size", "height and width of every clip; switches buckets off", "HxW", parameter="train_size"
    ),
]
BatchSize = Annotated[
    int | None,
    setting(
        "data.batch_size",
        "--batch-size",
        "clips of a micro-batch, where there are no buckets",
        "N",
        parameter="train_batch_size",
    ),
]
FrameInterval = Annotated[
    int | None,
    setting("data.frame_interval", "--frame-interval", "frames of the file per frame of the clip", "N", default="1"),
]
Workers = Annotated[
    int | None,
    setting("data.workers", "--workers", "processes that decode, for each GPU", "N", default="4", parameter="workers"),
]

# Optimizer
LearningRate = Annotated[
    float | None,
    setting("optimizer.learning_rate", "--lr", "learning rate", "RATE", default="1e-4", parameter="learning_rate"),
]
Warmup = Annotated[
    int | None,
    setting("optimizer.warmup_steps", "--warmup-steps", "updates until the learning rate is reached", "N"),
]
Accumulation = Annotated[
    int | None,
    setting("optimizer.accumulation", "--accumulate", "micro-batches per update on each GPU", "N", default="1"),
]
EmaDecay = Annotated[
    float | None,
    setting("optimizer.ema_decay", "--ema-decay", "decay of the averaged weights", "DECAY", default="0.9999"),
]

# Model
Dtype = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    setting(
        "model.dtype",
        "--dtype",
        "number format of the network: fp32, bf16 or fp16",
        "NAME",
        default="bf16",
        parameter="train_dtype",
    ),
]
Initialize = Annotated[
    Literal["released", "random"] | None,
    setting(
        "model.initialize", "--init", "start from released weights or from random ones", "NAME", default="released"
    ),
]
Lora = Annotated[
    str | None,
    setting(
        "model.lora",
        "--lora",
        'train low-rank adapters instead of the weights: "rank=16 alpha=16 dropout=0 targets=attn.qkv,attn.proj"',
        "SETTINGS",
        parameter="train_lora",
    ),
]
Freeze = Annotated[
    list[str] | None,
    setting("model.freeze", "--freeze", "part of the network that is not trained; repeatable", "NAME"),
]
TrainOnly = Annotated[
    list[str] | None,
    setting("model.train_only", "--train-only", "the only part that is trained; repeatable", "NAME"),
]
Checkpointing = Annotated[
    bool | None,
    setting(
        "model.gradient_checkpointing",
        "--gradient-checkpointing/--no-gradient-checkpointing",
        "compute blocks again in the backward pass: less memory, a third more time",
        default="yes",
    ),
]
Compile = Annotated[
    bool | None,
    setting("model.compile", "--compile/--no-compile", "compile each block", default="no"),
]

# Run
Run = Annotated[
    Path | None,
    setting(
        "run.folder",
        "-o --run",
        "folder of the run; the same command goes on with the run in it",
        "FOLDER",
        default="outputs/train-<preset>",
        parameter="run_folder",
    ),
]
Steps = Annotated[
    int | None,
    setting("run.steps", "--steps", "updates after which the run is done", "N", parameter="train_steps"),
]
Epochs = Annotated[int | None, setting("run.epochs", "--epochs", "times through the table", "N", default="1000")]
Seed = Annotated[
    int | None,
    setting("run.seed", "--seed", "seed of everything random", "N", default="42", parameter="train_seed"),
]
LogEvery = Annotated[
    int | None, setting("run.log_every", "--log-every", "updates between log lines", "N", default="10")
]
CheckpointEvery = Annotated[
    int | None,
    setting("run.checkpoint_every", "--checkpoint-every", "updates between checkpoints", "N", default="500"),
]
Keep = Annotated[int | None, setting("run.keep", "--keep", "checkpoints that are kept", "N", default="3")]
Resume = Annotated[
    bool | None,
    setting("run.resume", "--resume/--no-resume", "go on with the run in the folder", default="yes"),
]
Load = Annotated[
    str | None,
    setting(
        "run.load",
        "--load",
        "run or checkpoint whose weights, averages and optimizer state a new run starts from",
        "WHERE",
    ),
]
Profile = Annotated[
    int | None,
    setting("run.profile", "--profile", "updates to profile; the trace goes to the run's folder", "N"),
]
TensorBoard = Annotated[
    bool | None, setting("run.tensorboard", "--tensorboard/--no-tensorboard", "write TensorBoard events", default="no")
]
Wandb = Annotated[bool | None, setting("run.wandb", "--wandb/--no-wandb", "report to Weights & Biases", default="no")]

# Validation
Validate = Annotated[
    list[str] | None,
    setting(
        "validation.tables",
        "--validate",
        "table of clips for a validation loss; repeatable",
        "PATH",
        parameter="validate",
    ),
]
ValidateEvery = Annotated[
    int | None,
    setting(
        "validation.every", "--validate-every", "updates between validation losses", "N", parameter="validate_every"
    ),
]
SamplePrompts = Annotated[
    list[str] | None,
    setting(
        "validation.prompts",
        "--sample-prompt",
        "prompt of a sample video; repeatable",
        "TEXT",
        parameter="sample_prompts",
    ),
]
SampleEvery = Annotated[
    int | None,
    setting("validation.sample_every", "--sample-every", "updates between sample videos", "N"),
]

# Hardware
Sharding = Annotated[
    Literal["none", "zero2", "zero3"] | None,
    setting(
        "hardware.sharding",
        "--sharding",
        "what is cut over the GPUs: none, zero2 (gradients, optimizer) or zero3 (weights too)",
        "NAME",
        default="none",
    ),
]

HostFile = Annotated[
    Path | None,
    typer.Option(
        "--hostfile",
        help="start on the machines that this file names, one a line, through ssh",
        rich_help_panel="Hardware",
        metavar="FILE",
    ),
]
HostPort = Annotated[
    int, typer.Option("--host-port", help="port on the first of them", rich_help_panel="Hardware", metavar="PORT")
]

# Of the command itself
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="recipe to start from; `sora presets list --kind train` shows them",
        rich_help_panel="Run",
        metavar="NAME",
        autocompletion=complete.train_presets,
    ),
]
Epoch = Annotated[
    int, typer.Option("--epoch", help="whose draws of chance are shown", metavar="N", min=0, rich_help_panel="Run")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="any other setting, in YAML, repeatable: --set optimizer.eps=1e-15",
        rich_help_panel="Run",
        metavar="KEY=VALUE",
    ),
]

# sora train extract
ExtractTo = Annotated[Path, typer.Option("-o", "--output", help="folder to write", metavar="FOLDER")]
BinSize = Annotated[int, typer.Option("--bin-size", help="micro-batches in a file", metavar="N", min=1)]

# sora train search-batch-size
SearchOnly = Annotated[
    list[str] | None,
    typer.Option("--bucket", help="bucket to search, repeatable (default: all)", metavar="RES:FRAMES"),
]
SearchBase = Annotated[
    str | None,
    typer.Option("--base", help="bucket whose largest batch sets the time of an update", metavar="RES:FRAMES"),
]
SearchSeconds = Annotated[
    float | None, typer.Option("--seconds", help="time that an update may take", metavar="S", min=0.0)
]
SearchMost = Annotated[
    int | None,
    typer.Option("--most", help="largest batch tried (default: 4 x the recipe's)", metavar="N", min=1),
]
SearchUpdates = Annotated[int, typer.Option("--updates", help="updates measured per batch size", metavar="N", min=1)]

# sora train export
Source = Annotated[Path, typer.Argument(help="folder of a run, or one of its checkpoints step-N", metavar="RUN")]
ExportTo = Annotated[
    Path,
    typer.Option("-o", "--output", help=".safetensors file, or folder for weights and config.json", metavar="PATH"),
]
ExportFormat = Annotated[
    Literal["sora", "diffusers"],
    typer.Option(
        "--format", help="sora: names of this program; diffusers: a folder that diffusers loads", metavar="NAME"
    ),
]
RawExport = Annotated[bool, typer.Option("--raw", help="the weights as the last update left them, not their average")]
ExportDtype = Annotated[
    Literal["fp32", "bf16", "fp16"], typer.Option("--dtype", help="number format: fp32, bf16 or fp16", metavar="NAME")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]
