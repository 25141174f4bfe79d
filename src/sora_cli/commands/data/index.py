"""`sora data index`: a table of the videos and pictures in folders."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data index videos/ -o videos.csv",
    "sora data index 'films/*.mkv' more/ -o videos.parquet --fast",
    "sora data index clips.csv -o indexed.csv",
    "sora data index UCF-101/ -o ucf101.csv --kind ucf101 --split train",
)


@o.with_options_of(d.of_every_step, without=("root",))
def index(
    ctx: typer.Context,
    places: Annotated[
        list[str], typer.Argument(help="folders, files, patterns, and tables with a column path", metavar="PLACE...")
    ],
    output: d.Output,
    kind: Annotated[
        str,
        typer.Option(help="all|video|image: files by their names; imagenet|ucf101|vidprom: layouts", metavar="KIND"),
    ] = "all",
    split: Annotated[str, typer.Option(help="part of a set that has parts", metavar="NAME")] = "train",
    info: Annotated[
        str | None, typer.Option(help="table of vidprom, list of words of imagenet", metavar="FILE")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="look into the files, and leave out broken ones")
    ] = True,
    fast: Annotated[
        bool, typer.Option("--fast", help="believe the files' headers instead of decoding every frame")
    ] = False,
    keep_bad: Annotated[bool, typer.Option("--keep-bad", help="keep broken files, with 0 frames")] = False,
    **shared: Any,
) -> None:
    """Write a table of videos and pictures: which there are, their frames, sizes and rates.

    Rows of a table keep their other columns. Files that cannot be read are left out and listed with the reason in a
    file beside the table. An interrupted run goes on with the same command.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]) as console:
        from sora_cli.data.index import find_files, probe_work
        from sora_cli.data.run import run_step
        from sora_cli.data.tables import check_output, write_table

        check_output(str(output), overwrite=shared["overwrite"])
        found = find_files(places, kind, split=split, info=info)
        if not probe and not shared["dry_run"]:
            write_table(found, output, overwrite=shared["overwrite"])
            console.result(output, {"path": str(output), "rows": found.height})
            return
        options = d.step_options(ctx)
        work = probe_work(fast=fast, seconds=shared["seconds"])
        run_step(found, work, options, verb="looking into", bad="keep" if keep_bad else "drop")
