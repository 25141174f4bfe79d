"""`sora i2v`: a video from a picture."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

from .generate import generate, make, needs_prompt, no_prompt

app = o.new_app()
#: Options of `sora generate` for many prompts, or said otherwise here.
NOT_HERE = (
    "prompts",
    "prompt_file",
    "start_index",
    "end_index",
    "first_picture",
    "edit",
    "strength",
    "extend",
    "backward",
    "connect",
)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        'sora i2v photo.png "a waterfall"',
        'sora i2v first.png "waves at sunset" --last last.png --len 2s',
        'sora i2v a.png "clouds" --keyframe b.png@1s -o clouds.mp4',
    ),
)
@o.with_options_of(generate, without=NOT_HERE)
def i2v(ctx: typer.Context, picture: o.Picture, prompt: o.PicturePrompt = None, **options: Any) -> None:
    """Make a video that starts with a picture.

    --last gives the picture it ends with, --keyframe pictures in between. Pictures are fitted to the size of the clip.
    """
    from sora_cli.console import command_output

    with command_output(json=options["as_json"], quiet=options["quiet"]):
        if prompt is None and needs_prompt(options):
            raise no_prompt(f'sora i2v {shlex.quote(picture)} "a waterfall"')
        given = o.given_settings(ctx.params, None if prompt is None else [prompt])
        given.setdefault("conditioning", {})["first"] = picture
        make(given, options)
