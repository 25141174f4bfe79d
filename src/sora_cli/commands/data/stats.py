"""`sora data stats`: what is in tables of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import data_options as d
from sora_cli import options as o
from sora_cli import train_options as t

EPILOG = o.examples(
    "sora data stats clips.csv",
    "sora data stats clips.parquet --html report.html --preset v1.2-stage1",
)


def stats(
    tables: d.Tables,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="write a report with histograms and the best and worst clips of each score", metavar="FILE"
        ),
    ] = None,
    root: d.Root = None,
    preset: t.Preset = None,
    config: o.Config = None,
    overwrite: d.Overwrite = False,
    no_header: d.NoHeader = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Print counts, hours, quantiles, missing cells, camera motion, words and tags of tables.

    With the recipe of a training (--preset, --config) also how many clips each of its buckets gets.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.data.statistics import run_stats

        from .split import read_buckets

        buckets, interval = read_buckets(preset, config) if preset or config else (None, 1)
        run_stats(
            tables,
            html=html,
            root=root,
            bucket_config=buckets,
            frame_interval=interval,
            has_header=not no_header,
            overwrite=overwrite,
        )
