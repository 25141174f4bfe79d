"""`sora data caption`: captions by a vision-language model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data caption clips.csv -o captioned.csv --model gpt-4o -O in_flight=16",
    "sora data caption clips.csv -o out.csv --prompt f3 --strip-opening",
    'sora data caption clips.csv -o captioned.csv --prompt "What moves here?" --frames 6',
    "sora data caption clips.csv -o out.csv --captioner transformers --model llava/",
)
_CAPTIONS = "Captions"


@o.with_options_of(d.of_every_step, without=())
def caption(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    captioner: d.Captioner = "openai",
    model: d.CaptionModel = None,
    captioner_options: d.CaptionerOptions = None,
    prompt: Annotated[
        str,
        typer.Option(
            help="preset (`sora presets list --kind caption`), words, or @FILE with words",
            metavar="PROMPT",
            autocompletion=complete.caption_prompts,
        ),
    ] = "long",
    frames: Annotated[
        int | None,
        typer.Option(help="frames of a video that are shown  (default: the prompt's)", min=1, max=64, metavar="N"),
    ] = None,
    shorter_size: Annotated[
        int, typer.Option(help="shorter side of larger frames when they are shown, in pixels", min=16, metavar="N")
    ] = 512,
    strip_opening: Annotated[
        bool,
        typer.Option("--strip-opening", help='take off "The video shows" and the like', rich_help_panel=_CAPTIONS),
    ] = False,
    score_text: Annotated[
        bool,
        typer.Option("--score-text", help="append scores in columns aes and flow", rich_help_panel=_CAPTIONS),
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="clean captions as T5 encoders read them", rich_help_panel=_CAPTIONS)
    ] = False,
    seed: Annotated[
        int, typer.Option(help="which captions go without scores", metavar="N", rich_help_panel=_CAPTIONS)
    ] = 42,
    keep_bad: d.KeepUncaptioned = False,
    gpus: d.Gpus = 0,
    **shared: Any,
) -> None:
    """Write a caption for every video and picture of a table into its column text.

    The captioner openai asks any service of that protocol, which OPENAI_BASE_URL and OPENAI_API_KEY name; transformers
    runs a model here, one process per GPU. `sora plugins show openai` lists the options of one. Rows without a usable
    answer are left out and listed with the reason beside the output. An interrupted run goes on with the same command,
    asks nothing twice, and may change captions in other ways, which is done in the end. After the end the same command
    with --overwrite asks again about rows that failed, and no others.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.data.captioning import Asked, CaptionOptions, run_caption
        from sora_cli.data.questions import find_prompt
        from sora_cli.data.run import open_rows

        step = d.step_options(ctx)
        asked = Asked.checked(captioner, captioner_options or (), model)
        options = CaptionOptions(
            find_prompt(prompt, frames=frames), shorter_size, strip_opening, score_text, clean, seed
        )
        run_caption(open_rows(tables, shared["root"]), asked, options, step, keep_bad=keep_bad)
