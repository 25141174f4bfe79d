"""The options of the `sora data` commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sora_cli import complete
from sora_cli.errors import UsageError

from . import options as o

if TYPE_CHECKING:
    from sora_cli.data.run import StepOptions

Tables = Annotated[
    list[str], typer.Argument(help="tables: CSV or Parquet files, folders of them, patterns", metavar="TABLE...")
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="folder of relative paths  (default: that of the table)", metavar="FOLDER", rich_help_panel="Run"
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="table to write: .csv, .csv.gz or .parquet", metavar="FILE", rich_help_panel="Output"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the output", rich_help_panel="Output")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="processes  (default: the cores)", min=1, metavar="N", rich_help_panel="Run"),
]
Gpus = Annotated[
    int, typer.Option("--gpus", help="GPUs, a process each instead of --workers", min=0, rich_help_panel="Run")
]
Seconds = Annotated[
    float,
    typer.Option("--time-limit", help="seconds a file may take before it counts as bad", min=1, rich_help_panel="Run"),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="this machine, or a Ray cluster", rich_help_panel="Run"),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="HOST:PORT of the Ray cluster, or auto  (default: this machine)", rich_help_panel="Run"
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="throw away what an interrupted run did, do not go on", rich_help_panel="Run"),
]
#: For `sora data run`, whose plan says what is wanted.
RestartChanged = Annotated[bool, typer.Option("--restart-changed", hidden=True)]
KeepLog = Annotated[
    bool,
    typer.Option(
        "--keep-log",
        help="keep the results beside the table, so that more rows later need only theirs",
        rich_help_panel="Run",
    ),
]
DryRun = Annotated[
    bool, typer.Option("-n", "--dry-run", help="say what would be done, and do nothing", rich_help_panel="Run")
]
NoHeader = Annotated[
    bool,
    typer.Option(
        "--no-header", help="CSV files start with data: path, text and perhaps num_frames", rich_help_panel="Run"
    ),
]
Captioner = Annotated[
    str,
    typer.Option("--captioner", help="who is asked", metavar="NAME", autocompletion=complete.captioners),
]
CaptionModel = Annotated[
    str | None,
    typer.Option("--model", help="its model  (default: the captioner's)", metavar="NAME"),
]
CaptionerOptions = Annotated[
    list[str] | None, typer.Option("-O", help="option of the captioner, repeatable", metavar="KEY=VALUE")
]
KeepUncaptioned = Annotated[bool, typer.Option("--keep-bad", help="keep rows without a usable answer")]


def of_every_step(
    root: Root = None,
    workers: Workers = None,
    seconds: Seconds = 600.0,
    engine: Engine = "local",
    address: Address = None,
    restart: Restart = False,
    restart_changed: RestartChanged = False,
    keep_log: KeepLog = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """What every step that works on rows can be told, for `options.with_options_of`; does nothing."""


def step_options(ctx: typer.Context) -> StepOptions:
    """How a step runs, from the options of its command. Raises UsageError for an output in an object store."""
    from sora_cli.data.run import StepOptions

    output = str(ctx.params["output"])
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", output):  # a Path has one slash of two
        hint = "write it here, and copy it with `sora data filter TABLE -o ADDRESS`"
        raise UsageError(f"{output}: this step keeps its results beside the table, so that is a file here", hint=hint)
    names = (
        "output",
        "workers",
        "gpus",
        "seconds",
        "restart",
        "restart_changed",
        "keep_log",
        "overwrite",
        "dry_run",
        "engine",
        "address",
    )
    return StepOptions(**{name: ctx.params[name] for name in names if name in ctx.params})
