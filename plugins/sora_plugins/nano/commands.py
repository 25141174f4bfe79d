"""Render captioned scenes: videos and a training table without downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import options as o

app = o.new_app(help="List nano's scenes, and render them as clips with captions: a training table without downloads.")


def _scene_names(incomplete: str) -> list[complete.Value]:
    from .scenes.catalogue import SCENES

    return [(name, "") for name in SCENES]


def _listed(values: dict[str, tuple[str, ...]]) -> list[str]:
    return [f"{name}: {'|'.join(words)}" for name, words in values.items()]


@app.command("list", epilog=o.examples("sora scenes list", "sora scenes list --json"))
def list_command(as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the scenes with their times of day and attributes."""
    from sora_cli.console import command_output

    from .scenes.catalogue import SCENES

    with command_output(json=as_json, quiet=quiet) as console:
        rows = []
        for name, kind in SCENES.items():
            attributes = dict(kind.attributes)
            shown = attributes if console.mode == "json" else _listed(attributes)
            rows.append({"name": name, "times": list(kind.times), "attributes": shown})
        console.table(rows, ["name", "times", "attributes"])


@app.command(
    "render",
    epilog=o.examples(
        "sora scenes render -o clips --count 120",
        "sora scenes render -o fires --scene fire --scene fireworks --count 20 --seed 7",
        "sora scenes render -o clips --captions 8",
        "sora scenes render -o large --res 240p --frames 102 --dry-run",
    ),
)
def render_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="folder to write", metavar="FOLDER", rich_help_panel="Output")
    ],
    count: Annotated[int, typer.Option(help="clips", min=1, metavar="N")] = 24,
    seed: Annotated[int, typer.Option(help="clip i depends on the seed and i only", metavar="N")] = 1,
    scene: Annotated[
        list[str] | None,
        typer.Option(
            help="scene to render, repeatable; they take turns  (default: all)",
            metavar="NAME",
            autocompletion=_scene_names,
        ),
    ] = None,
    captions: Annotated[
        int, typer.Option(help="captions of each clip, in columns text, text_2 and so on", min=1, metavar="N")
    ] = 1,
    frames: Annotated[
        int, typer.Option(help="frames of a clip; 1 makes images", min=1, metavar="N", rich_help_panel="Shape")
    ] = 51,
    resolution: Annotated[
        str,
        typer.Option(
            "-r",
            "--res",
            "--resolution",
            help="resolution by name",
            metavar="NAME",
            autocompletion=complete.resolutions,
            rich_help_panel="Shape",
        ),
    ] = "144p",
    aspect_ratio: Annotated[
        str,
        typer.Option(
            help="width:height", metavar="W:H", autocompletion=complete.aspect_ratios, rich_help_panel="Shape"
        ),
    ] = "16:9",
    size: Annotated[
        str | None,
        typer.Option(
            help="exact height and width in pixels; wins over the resolution", metavar="HxW", rich_help_panel="Shape"
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(help="frames per second", min=1, max=240, metavar="RATE", rich_help_panel="Shape")
    ] = 24.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files made with other settings", rich_help_panel="Output")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    debug: o.Debug = False,
) -> None:
    """Render clips and write the table clips.csv that training reads.

    The same command makes the same clips. Clips that are there already are kept, so an interrupted run goes on where
    it stopped, and a larger --count adds to a folder.
    """
    from sora_cli.console import command_output

    from .scene_clips import RenderJob, frame_size, known_scenes, run

    with command_output(json=as_json, quiet=quiet):
        height, width = frame_size(resolution, aspect_ratio, size)
        job = RenderJob(output, count, seed, known_scenes(scene or ()), frames, height, width, fps, captions)
        run(job, overwrite=overwrite, dry_run=dry_run)
