"""`sora data dedup`: videos that show the same."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data dedup clips.csv -o unique.csv",
    "sora data dedup clips.csv -o marked.csv --mark",
)


def dedup(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    bits: Annotated[
        float, typer.Option(help="bits of 64 that hashes of duplicates may differ in, on average", min=0, max=32)
    ] = 6.0,
    mark: Annotated[
        bool, typer.Option("--mark", help="keep all rows, and name in column duplicate_of which one each repeats")
    ] = False,
    root: d.Root = None,
    workers: d.Workers = None,
    seconds: d.Seconds = 600.0,
    engine: d.Engine = "local",
    address: d.Address = None,
    restart: d.Restart = False,
    restart_changed: d.RestartChanged = False,
    keep_log: d.KeepLog = False,
    overwrite: d.Overwrite = False,
    dry_run: d.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Leave out videos and pictures that show the same as a better one: other sizes, encodings, qualities.

    Of a group of duplicates the largest is kept, then the longest, then the first.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.data.dedup import run_dedup
        from sora_cli.data.run import open_rows

        run_dedup(open_rows(tables, root), d.step_options(ctx), most_bits=bits, keeps=mark)
