"""`sora data tag`: tags of captions, and captions in another language, by a language model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o
from sora_cli.errors import UsageError

EPILOG = o.examples(
    "sora data tag clips.csv -o tagged.csv --key objects --model gpt-4o-mini",
    "sora data tag captioned.csv -o tagged.csv --key colours --prompt @colours.txt",
    "sora data tag clips.csv -o tagged.csv --captioner transformers --model qwen/",
    "sora data tag captioned.csv -o english.csv --translate-to en",
)


@o.with_options_of(d.of_every_step, without=())
def tag(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", help="what is listed, and the column it goes to, repeatable  (default: objects)", metavar="NAME"
        ),
    ] = None,
    translate_to: Annotated[
        str | None,
        typer.Option(help="put captions into this language instead, an ISO 639-1 code", metavar="CODE"),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="what is asked: preset, words with {text} for the caption, or @FILE  (default: that of the key)",
            metavar="PROMPT",
            autocompletion=complete.caption_prompts,
        ),
    ] = None,
    captioner: d.Captioner = "openai",
    model: d.CaptionModel = None,
    captioner_options: d.CaptionerOptions = None,
    keep_bad: d.KeepUncaptioned = False,
    gpus: d.Gpus = 0,
    **shared: Any,
) -> None:
    """Let a language model list what captions speak of, or translate them.

    Tags are written with commas between them, NONE_FOUND where the model finds none. Captions that surely are in the
    language already stay as they are. Rows without a usable answer are left out and listed with the reason beside the
    output. An interrupted run goes on with the same command, and asks nothing twice.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.data.captioning import Asked
        from sora_cli.data.questions import find_prompt
        from sora_cli.data.run import open_rows
        from sora_cli.data.tagging import run_tag, run_translate, tag_prompts

        step = d.step_options(ctx)
        asked = Asked.checked(captioner, captioner_options or (), model)
        if translate_to is None:
            prompts = tag_prompts(keys or ["objects"], prompt)
            run_tag(open_rows(tables, shared["root"]), prompts, asked, step, keep_bad=keep_bad)
            return
        if keys:
            raise UsageError("captions are either tagged or translated", hint="leave --key or --translate-to out")
        words = find_prompt(prompt or "translate", is_about_text=True)
        run_translate(open_rows(tables, shared["root"]), words, translate_to, asked, step, keep_bad=keep_bad)
