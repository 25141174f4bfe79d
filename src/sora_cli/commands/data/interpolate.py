"""`sora data interpolate`: more frames per second."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data interpolate clips.csv --clips smooth/ -o smooth.csv",
    "sora data interpolate clips.csv --clips smooth/ -o smooth.csv --method amt-g --gpus 1",
)


def interpolate(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    clips: Annotated[Path, typer.Option(help="folder to write videos to", metavar="FOLDER")],
    method: Annotated[
        str, typer.Option(help="how frames are made", metavar="NAME", autocompletion=complete.interpolators)
    ] = "flow",
    doublings: Annotated[int, typer.Option(help="2 to this power times the frame rate", min=1, max=5)] = 1,
    weights: Annotated[
        list[str] | None, typer.Option(help="weights of the method, repeatable", metavar="PART=FILE")
    ] = None,
    root: d.Root = None,
    workers: d.Workers = None,
    gpus: d.Gpus = 0,
    seconds: d.Seconds = 3600.0,
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
    """Write the videos of a table at 2, 4, 8... times their frame rate, and a table of them. Sound is not kept."""
    from sora_cli.console import command_output
    from sora_cli.errors import UsageError

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.data.interpolating import run_interpolate
        from sora_cli.data.run import open_rows

        pairs = [text.partition("=") for text in weights or ()]
        if any(not equals for _, equals, _ in pairs):
            raise UsageError("--weights takes PART=FILE")
        run_interpolate(
            open_rows(tables, root),
            d.step_options(ctx),
            method=method,
            weights={part: file for part, _, file in pairs},
            doublings=doublings,
            clips=clips,
        )
