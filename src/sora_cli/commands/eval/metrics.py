"""`sora eval metrics`: measures of videos beside their originals, of videos alone, and of sets of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from sora_cli import measure_options as m
from sora_cli import options as o
from sora_cli import vae_options as v

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sora_cli.evaluation.metrics import MetricsOptions

EPILOG = o.examples(
    "sora eval metrics outputs/",
    "sora eval metrics outputs/ --metric match -o report.json",
    "sora eval metrics decoded/ --reference clips/ --metric psnr --metric lpips",
    "sora eval metrics outputs/ --reference clips/ --metric fid --frames 16",
)


def metrics(
    ctx: typer.Context,
    videos: m.VideoPlaces,
    reference: m.Reference = None,
    by_position: m.ByPosition = False,
    fit: m.Fit = False,
    subset: m.Subset = None,
    measures: m.Measures = None,
    weights: m.PartWeights = None,
    prompts: m.Prompts = None,
    reference_aggregate: m.ReferenceAggregate = False,
    batch_size: m.BatchSize = 2,
    frames: m.SampleFrames = None,
    sample_rate: m.SampleRate = 1,
    fps: m.Rate = None,
    resolution: m.Resolution = None,
    crop: m.Crop = None,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    time_limit: m.TimeLimit = 3600.0,
    output: m.Report = None,
    overwrite: v.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Measure videos: beside originals of the same name, alone, or as sets.

    With --reference frames are compared one by one, and measures of sets compare all videos with all originals. The
    mean is that over videos of the mean over their frames. Videos that cannot be measured are named with the reason.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.evaluation.metrics import run

        run(videos, metrics_options(ctx.params), output=output, overwrite=overwrite)


def metrics_options(values: Mapping[str, Any]) -> MetricsOptions:
    """What is measured and how, from the options of a command."""
    from sora_cli.evaluation.metrics import MetricsOptions
    from sora_cli.evaluation.pairs import Look

    look = Look(**{name: values[name] for name in ("frames", "sample_rate", "fps", "resolution", "crop")})
    shared = {name: values[name] for name in ("reference", "by_position", "subset", "device", "threads")}
    return MetricsOptions(
        metrics=values.get("measures") or values.get("metrics") or (),
        weights=values.get("weights") or values.get("metric_weights") or (),
        fitted=values["fit"],
        batch_size=values["batch_size"] if values["reference_aggregate"] else None,
        prompts=values.get("prompts"),
        look=look,
        seconds=values["time_limit"],
        **shared,
    )
