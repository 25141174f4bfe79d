"""`sora data split`: balanced sets and parts of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sora_cli import data_options as d
from sora_cli import options as o
from sora_cli import train_options as t

EPILOG = o.examples(
    "sora data split clips.csv -o small.csv --preset v1.2-stage1 --limit 20",
    "sora data split clips.csv -o parts/ --val 0.02",
)
BALANCED, PARTS = "A balanced set", "Parts"


def split(
    tables: d.Tables,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="table to write; with --val or --test a folder", metavar="PATH")
    ],
    limit: Annotated[
        int, typer.Option("--limit", "-l", help="clips of each bucket", rich_help_panel=BALANCED, metavar="N")
    ] = 200,
    preset: t.Preset = None,
    config: o.Config = None,
    val: Annotated[
        float | None,
        typer.Option("--val", help="share of the videos that goes to val", rich_help_panel=PARTS, metavar="SHARE"),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option("--test", help="share of the videos that goes to test", rich_help_panel=PARTS, metavar="SHARE"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="column whose equal values stay together  (default: source, or the path up to _scene-N)",
            rich_help_panel=PARTS,
            metavar="COLUMN",
        ),
    ] = None,
    format: Annotated[
        Literal["csv", "parquet"], typer.Option("--format", help="kind of the parts", rich_help_panel=PARTS)
    ] = "csv",
    seed: Annotated[int, typer.Option("--seed", help="of the parts", rich_help_panel=PARTS)] = 42,
    overwrite: d.Overwrite = False,
    no_header: d.NoHeader = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Take as many clips of every bucket of a training recipe, or split a table so that parts share no source video."""
    from sora_cli.console import command_output
    from sora_cli.errors import UsageError

    with command_output(json=as_json, quiet=quiet):
        shares = {name: share for name, share in (("val", val), ("test", test)) if share is not None}
        if shares and (preset or config):
            raise UsageError("--val and --test make parts, --preset and --config a balanced set", hint="give one kind")
        if not shares and not (preset or config):
            raise UsageError(
                "it is not said how to split", hint="give --val SHARE, or --preset or --config for buckets"
            )
        from sora_cli.data.splitting import split_by_bucket, split_by_source

        if shares:
            split_by_source(
                tables,
                output,
                shares,
                kind=format,
                column=by,
                seed=seed,
                has_header=not no_header,
                overwrite=overwrite,
            )
            return
        buckets, interval = read_buckets(preset, config)
        split_by_bucket(
            tables,
            str(output),
            buckets,
            frame_interval=interval,
            limit=limit,
            has_header=not no_header,
            overwrite=overwrite,
        )


def read_buckets(preset: str | None, config: Path | None) -> tuple[dict, int]:
    """The bucket configuration and the frame interval of a training recipe. Raises UsageError where there is none."""
    from sora_cli.config.resolve_train import resolve_train
    from sora_cli.errors import UsageError
    from sora_cli.plugin.manager import get_plugins

    data = resolve_train({}, config_file=config, preset=preset, plugins=get_plugins(), check_devices=False).config.data
    if not data.bucket_config:
        raise UsageError("there are no buckets in this recipe", hint="give --preset, or data.bucket_config in a file")
    return data.bucket_config, data.frame_interval
