"""`sora show`: the settings stored in a video or image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app()


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora show outputs/a-waterfall-42.mp4",
        "sora generate --from outputs/a-waterfall-42.mp4 --seed 7",
    ),
)
def show(
    file: Annotated[Path, typer.Argument(help="video, image, or the .json beside it", metavar="FILE")],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print the settings stored in a video."""
    from sora_cli.console import command_output
    from sora_cli.video.settings import read_settings

    with command_output(json=as_json, quiet=quiet) as console:
        console.record(read_settings(file), title=str(file))
