"""`sora data run`: all steps from raw videos to a table for training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data run videos/ -o clips/",
    "sora data run videos/ -o clips/ --plan mine.yaml --gpus 8 --dry-run",
    "sora data run videos/ -o clips/ --plan captioned",
    "sora train --preset nano --data clips/clips.csv",
)


def run(
    places: Annotated[list[str], typer.Argument(help="folders, files and patterns of raw videos", metavar="PLACE...")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="folder for clips and tables", metavar="FOLDER", rich_help_panel="Output"),
    ],
    clips: Annotated[
        str | None,
        typer.Option(
            help="folder, or address of one in a store, for clips  (default: that of --output)",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(help="steps: a YAML file, or a preset of `sora presets list --kind data`", metavar="NAME|FILE"),
    ] = "clips",
    workers: d.Workers = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="GPUs for steps that use them", min=1, rich_help_panel="Run")
    ] = None,
    engine: d.Engine = "local",
    address: d.Address = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="also do the rows that failed in steps that are done", rich_help_panel="Run"
        ),
    ] = False,
    dry_run: d.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Turn raw videos into clips and one table, which `sora train --data` takes once it has captions.

    Runs the steps of a plan one after the other. Steps that are done are not run again, an interrupted one goes on, so
    the same command may be given until it is through, and again when there are more videos.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet) as console:
        from sora_cli.data.pipeline import make_steps, read_plan, run_plan

        shared = {
            "workers": workers,
            "gpus": gpus,
            "engine": None if engine == "local" else engine,
            "address": address,
        }
        folder = output.resolve()
        steps = make_steps(read_plan(plan), places, folder, shared, clips=clips)
        if dry_run:
            rows = [
                {
                    "step": step.name,
                    "state": "done" if step.is_done else "to do",
                    "command": shlex.join(["sora", "data", step.name, *step.arguments, "-o", str(step.table)]),
                }
                for step in steps
            ]
            console.table(rows, ["step", "state", "command"])
            return
        made = run_plan(steps, folder, retry_failed=retry_failed)
        console.result(made, {"path": str(made), "steps": [step.name for step in steps]})
