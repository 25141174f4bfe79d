"""`sora compare`: clips beside the first of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import measure_options as m
from sora_cli import options as o
from sora_cli import vae_options as v
from sora_cli.root import LightCommand

app = o.new_app()


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora compare a.mp4 b.mp4",
        "sora compare original.mp4 fast.mp4 small.mp4 --fit -o compared/",
        "sora compare a.mp4 b.mp4 --metric-weights alexnet=net.pth --json",
    ),
)
def compare(
    videos: Annotated[
        list[Path], typer.Argument(help="two or more clips; the others are compared with the first", metavar="VIDEO...")
    ],
    metrics: m.PairMetrics = None,
    weights: m.PartWeights = None,
    fit: m.Fit = False,
    device: v.DeviceName = "auto",
    threads: v.ThreadCount = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="folder for the files (default: outputs/compare-NAME)",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: v.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare clips with the first, in numbers, pictures and settings.

    Prints measures and the stored settings that differ, and writes the clips side by side, maps of their differences,
    a sheet of frames and a table of the measures of each frame. Other sizes and lengths are errors without --fit.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.errors import UsageError
        from sora_cli.files import check_files

        # Before torch is loaded.
        if len(videos) < 2:
            raise UsageError("two or more clips are compared", hint="example: sora compare a.mp4 b.mp4")
        check_files(videos)
        from sora_cli.evaluation.compare import CompareOptions, run

        options = CompareOptions(
            metrics=metrics or (),
            weights=weights or (),
            fitted=fit,
            device=device,
            threads=threads,
        )
        run(videos, options, output=output, overwrite=overwrite)
