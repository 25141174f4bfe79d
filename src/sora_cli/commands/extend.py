"""`sora extend`: a video goes on."""

from __future__ import annotations

import re
from typing import Any

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

from .generate import generate, make, sources_of

app = o.new_app()
#: Options of `sora generate` for many prompts, for other ways to give pictures, or said otherwise here.
NOT_HERE = (
    *("prompts", "prompt_file", "start_index", "end_index", "duration", "frames"),
    *("first_picture", "last_picture", "keyframes", "edit", "strength", "extend"),
    *("connect", "seamless"),
    *("references", "mask_strategy", "align"),
)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        'sora extend waterfall.mp4 "a waterfall" --by 2s',
        'sora extend clip.mp4 "clouds" --by 1s --backward -o longer.mp4',
    ),
)
@o.with_options_of(generate, without=NOT_HERE)
def extend(
    ctx: typer.Context, video: o.ExtendedVideo, prompt: o.PicturePrompt, by: o.By = None, **options: Any
) -> None:
    """Make a video go on, at its end or at its beginning.

    The whole video is written again with the new part, in its own size and rate unless another one is asked for.
    """
    from sora_cli.conditioning.sources import check_standard_input
    from sora_cli.config.schema import ConditioningSection
    from sora_cli.console import command_output
    from sora_cli.video.clips import size_and_rate

    with command_output(json=options["as_json"], quiet=options["quiet"]):
        given = o.given_settings(ctx.params, [prompt])
        given.setdefault("conditioning", {})["extend"] = video
        check_standard_input(ConditioningSection(extend=video), given.get("prompt", {}).get("file"))
        sources = sources_of(options)
        seconds = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)s", by or "")
        if seconds:  # of the file, not the length that a name stands for at the model's rate
            shape = given["shape"]
            shape.pop("duration")
            rate = shape.get("fps") or size_and_rate(sources(video).path)[1]
            shape["frames"] = max(1, round(float(seconds[1]) * rate))
        make(given, options, sources=sources)
