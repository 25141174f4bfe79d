"""`sora extend`: a video goes on."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

from .generate import generate, make, needs_prompt, no_prompt, sources_of

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
        "sora extend campfire.mp4 -o longer.mp4",
        'sora extend clip.mp4 "clouds" --by 1s --backward -o longer.mp4',
    ),
)
@o.with_options_of(generate, without=NOT_HERE)
def extend(
    ctx: typer.Context, video: o.ExtendedVideo, prompt: o.ExtendedPrompt = None, by: o.By = None, **options: Any
) -> None:
    """Make a video go on, at its end or at its beginning.

    The whole video is written again with the new part, in its own size and rate unless another one is asked for.

    A clip that was made here goes on with its own prompt where none is given.
    """
    from sora_cli.conditioning.sources import check_standard_input
    from sora_cli.config.schema import ConditioningSection
    from sora_cli.console import command_output
    from sora_cli.video.clips import size_and_rate

    with command_output(json=options["as_json"], quiet=options["quiet"]):
        check_standard_input(ConditioningSection(extend=video), "-" if prompt == "-" else None)
        sources = sources_of(options)
        if prompt is None and needs_prompt(options):
            prompt = _prompt_of(sources(video).path, video)
        given = o.given_settings(ctx.params, None if prompt is None else [prompt])
        given.setdefault("conditioning", {})["extend"] = video
        seconds = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)s", by or "")
        if seconds:  # of the file, not the length that a name stands for at the model's rate
            shape = given["shape"]
            shape.pop("duration")
            rate = shape.get("fps") or size_and_rate(sources(video).path)[1]
            shape["frames"] = max(1, round(float(seconds[1]) * rate))
        make(given, options, sources=sources)


def _prompt_of(path: Path, video: str) -> str:
    """The prompt in the settings stored in a clip, which is said. Raises UsageError where there is none."""
    from sora_cli.console import get_console
    from sora_cli.video.settings import find_settings

    stored = (find_settings(path) or {}).get("prompt")
    if not isinstance(stored, str) or not stored.strip():
        raise no_prompt(f'sora extend {shlex.quote(video)} "a waterfall"')
    get_console().note(f"the prompt that {video} was made from: {stored}")
    return stored
