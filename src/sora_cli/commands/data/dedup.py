"""`sora data dedup`: videos that show the same."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data dedup clips.csv -o unique.csv",
    "sora data dedup clips.csv -o marked.csv --mark",
)


@o.with_options_of(d.of_every_step, without=())
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
    **shared: Any,
) -> None:
    """Leave out videos and pictures that show the same as a better one: other sizes, encodings, qualities.

    Of a group of duplicates the largest is kept, then the longest, then the first.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.data.dedup import run_dedup
        from sora_cli.data.run import open_rows

        run_dedup(open_rows(tables, shared["root"]), d.step_options(ctx), most_bits=bits, keeps=mark)
