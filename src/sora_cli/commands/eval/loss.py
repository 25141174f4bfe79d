"""`sora eval loss`: the mean training loss on clips of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import options as o
from sora_cli import train_options as t

EPILOG = o.examples(
    "sora eval loss clips.csv",
    "sora eval loss clips.csv --weights outputs/train-nano",
    "sora eval loss clips.csv --bucket 144p:51:4 --gpus 2",
    "sora eval loss clips.csv -m opensora-v1.2 --res 144p --res 240p",
    "sora eval loss --from-logs eval/",
)
BUCKETS = "Buckets"


def loss(
    ctx: typer.Context,
    tables: Annotated[
        list[str] | None, typer.Argument(help="table of clips, as for `sora train`", metavar="TABLE")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="JSON file to write, and a chart .svg beside it  (default: outputs/eval-loss-<model>.json)",
            rich_help_panel="Output",
            metavar="FILE",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a result of other settings", rich_help_panel="Output")
    ] = False,
    resolutions: Annotated[
        list[str] | None,
        typer.Option(
            "--res",
            help="row of the bucket table, repeatable  (default: all)",
            rich_help_panel=BUCKETS,
            metavar="NAME",
            autocompletion=complete.resolutions,
        ),
    ] = None,
    start: Annotated[
        int,
        typer.Option("--start-index", help="first row, counted from 0", rich_help_panel=BUCKETS, metavar="N", min=0),
    ] = 0,
    end: Annotated[
        int | None,
        typer.Option("--end-index", help="row to stop before", rich_help_panel=BUCKETS, metavar="N", min=0),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--bucket",
            help="a bucket and clips at a time, instead of the table; repeatable",
            rich_help_panel=BUCKETS,
            metavar="RES:FRAMES:BATCH",
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="clips at a time at most, whatever the table says",
            rich_help_panel=BUCKETS,
            metavar="N",
            min=1,
        ),
    ] = None,
    times: Annotated[
        int, typer.Option("--timesteps", help="times between data and noise", rich_help_panel="Run", metavar="N", min=1)
    ] = 10,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference",
            help="measure as Open-Sora does: times and sizes in bfloat16, noise from torch's generator in the order of "
            "the work, batches filled up with clips that count twice, and the last ones not seen; one process",
            rich_help_panel="Run",
        ),
    ] = False,
    from_logs: Annotated[
        Path | None,
        typer.Option(
            "--from-logs",
            help="write loss.json from the eight logs of Open-Sora in this folder, and measure nothing",
            rich_help_panel="Run",
            metavar="FOLDER",
        ),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            help="adapter to merge: a training run, file or folder; repeatable",
            rich_help_panel="Model",
            metavar="PLACE[:SCALE]",
        ),
    ] = None,
    data_root: t.DataRoot = None,
    bad_rows: t.BadRows = None,
    frame_interval: t.FrameInterval = None,
    workers: t.Workers = None,
    model: o.Model = None,
    variant: o.Variant = None,
    model_options: o.ModelOptions = None,
    weights: o.Weights = None,
    raw: o.Raw = None,
    strict: o.Strict = None,
    train_dtype: t.Dtype = None,
    attention: o.Attention = None,
    vae: o.Vae = None,
    vae_weights: o.VaeWeights = None,
    text_encoder: o.TextEncoder = None,
    text_weights: o.TextWeights = None,
    text_dtype: o.TextDtype = None,
    train_seed: t.Seed = None,
    device: o.Device = None,
    gpus: o.Gpus = None,
    threads: o.Threads = None,
    preset: t.Preset = None,
    config: o.Config = None,
    sets: t.Sets = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Measure the loss that training lowers, by size, length and time between data and noise.

    A clip is measured once in every bucket that it fits: it needs more frames than the bucket has, and 0.8 of its
    pixels. Noise and crops depend on the seed and the clip's row alone, so batches and processes change nothing.
    Settings are those of `sora train`: data.bucket_config is the table of buckets, objective.mask_ratios gives frames.
    What is measured is kept, so the same command goes on after a stop, and one with more buckets adds them.
    """
    from sora_cli.config.resolve_train import resolve_train
    from sora_cli.console import command_output
    from sora_cli.errors import UsageError
    from sora_cli.evaluation.loss import LossOptions, convert_logs, run
    from sora_cli.evaluation.loss_buckets import parse_bucket
    from sora_cli.plugin.manager import get_plugins

    with command_output(json=as_json, quiet=quiet):
        if from_logs is not None:
            if tables:
                raise UsageError("--from-logs measures nothing", hint="leave the tables out")
            convert_logs(from_logs, overwrite=overwrite)
            return
        if only and (resolutions or start or end is not None):
            raise UsageError("--bucket stands instead of the table", hint="leave --res and the indices out")
        options = LossOptions(
            times=times,
            reference=reference,
            rows=resolutions or (),
            start=start,
            end=end,
            most=most,
            only=[parse_bucket(text) for text in only or ()],
            loras=adapters or (),
        )
        own = ("output", "overwrite")  # settings of sampling have these names too
        given = o.given_settings({name: value for name, value in ctx.params.items() if name not in own}, None)
        given.setdefault("hardware", {})["sequence_parallel"] = 1  # every process measures clips of its own
        resolved = resolve_train(
            given,
            config_file=config,
            preset=preset,
            options=model_options or (),
            sets=sets or (),
            plugins=get_plugins(),
            as_trained=True,
        )
        run(resolved, output, options, overwrite=overwrite)
