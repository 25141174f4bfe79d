"""`sora eval vae`: how well an autoencoder gives clips back, measured on clips or on two folders of files."""

from __future__ import annotations

from typing import Any

import typer

from sora_cli import measure_options as m
from sora_cli import options as o
from sora_cli import vae_options as v
from sora_cli.commands.vae import codec_options, evaluate
from sora_cli.errors import UsageError

from .metrics import metrics_options

EPILOG = o.examples(
    "sora eval vae clips/*.mp4 --vae nano --metric psnr",
    "sora eval vae decoded/ --reference clips/ --resolution 256 --crop 256",
)
#: Options of only one of the two ways.
OF_CLIPS = ("vae", "vae_weights", "dtype", "sample", "seed", "memory", "low_memory", "size")
OF_FOLDERS = (
    *("by_position", "fit", "subset", "reference_aggregate", "batch_size", "sample_rate", "resolution", "crop"),
    *("time_limit", "output", "overwrite"),
)


@o.with_options_of(evaluate, without=("frames",))
def vae(
    ctx: typer.Context,
    videos: v.Videos,
    reference: m.Reference = None,
    frames: m.FirstFrames = None,
    by_position: m.ByPosition = False,
    fit: m.Fit = False,
    subset: m.Subset = None,
    reference_aggregate: m.ReferenceAggregate = False,
    batch_size: m.BatchSize = 2,
    sample_rate: m.SampleRate = 1,
    resolution: m.Resolution = None,
    crop: m.Crop = None,
    time_limit: m.TimeLimit = 3600.0,
    output: m.Report = None,
    overwrite: v.Overwrite = False,
    **shared: Any,
) -> None:
    """Measure reconstructions of videos.

    Videos are encoded and decoded, and measured from the frames, as by `sora vae eval`. With --reference nothing is
    coded: the files are reconstructions, and the reference is the folder of their originals, as in Open-Sora's tool.
    """
    from pathlib import Path

    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        _check_given(ctx, OF_CLIPS if reference is not None else OF_FOLDERS, is_coded=reference is None)
        if reference is not None:
            from sora_cli.evaluation.metrics import run

            places = [Path(video) for video in videos]
            run(places, metrics_options(ctx.params), output=output, overwrite=overwrite)
            return
        from sora_cli.tasks.vae_quality import evaluate as run_clips

        chosen = {"metrics": shared["metrics"] or (), "metric_weights": shared["metric_weights"] or ()}
        run_clips(videos, codec_options(ctx), **chosen)


def _check_given(ctx: typer.Context, others: tuple[str, ...], *, is_coded: bool) -> None:
    """Raise UsageError for options that only the other way has."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in others and source is not None and source.name == "COMMANDLINE":
            why = "is for files beside originals" if is_coded else "is for clips that are coded"
            hint = "give the originals with --reference" if is_coded else "with --reference nothing is coded"
            raise UsageError(f"{parameter.opts[0]} {why}", hint=hint)
