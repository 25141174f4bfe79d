"""`sora data interpolate`: more frames per second."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data interpolate clips.csv --clips smooth/ -o smooth.csv",
    "sora data interpolate clips.csv --clips smooth/ -o smooth.csv --method amt-g --gpus 1",
)


@o.with_options_of(d.of_every_step, without=())
def interpolate(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    clips: Annotated[
        str, typer.Option(help="folder, or address of one in a store, to write videos to", metavar="FOLDER")
    ],
    method: Annotated[
        str, typer.Option(help="how frames are made", metavar="NAME", autocompletion=complete.interpolators)
    ] = "flow",
    doublings: Annotated[int, typer.Option(help="2 to this power times the frame rate", min=1, max=5)] = 1,
    weights: Annotated[
        list[str] | None, typer.Option(help="weights of the method, repeatable", metavar="PART=FILE")
    ] = None,
    gpus: d.Gpus = 0,
    seconds: d.Seconds = 3600.0,
    **shared: Any,
) -> None:
    """Write the videos of a table at 2, 4, 8... times their frame rate, and a table of them. Sound is not kept."""
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.data.interpolating import run_interpolate
        from sora_cli.data.run import open_rows
        from sora_cli.weights.locate import part_files

        run_interpolate(
            open_rows(tables, shared["root"]),
            d.step_options(ctx),
            method=method,
            weights=part_files(weights or (), option="--weights", example="amt=amt-g.pth"),
            doublings=doublings,
            clips=clips,
        )
