"""`sora data tag`: tags of captions, and captions in another language, by a language model."""

from __future__ import annotations

from typing import Annotated

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
    root: d.Root = None,
    workers: d.Workers = None,
    gpus: d.Gpus = 0,
    seconds: d.Seconds = 600.0,
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
    """Let a language model list what captions speak of, or translate them.

    Tags are written with commas between them, NONE_FOUND where the model finds none. Captions that surely are in the
    language already stay as they are. Rows without a usable answer are left out and listed with the reason beside the
    output. An interrupted run goes on with the same command, and asks nothing twice.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.data.captioning import Asked
        from sora_cli.data.questions import find_prompt
        from sora_cli.data.run import open_rows
        from sora_cli.data.tagging import run_tag, run_translate, tag_prompts

        step = d.step_options(ctx)
        asked = Asked.checked(captioner, captioner_options or (), model)
        if translate_to is None:
            prompts = tag_prompts(keys or ["objects"], prompt)
            run_tag(open_rows(tables, root), prompts, asked, step, keep_bad=keep_bad)
            return
        if keys:
            raise UsageError("captions are either tagged or translated", hint="leave --key or --translate-to out")
        words = find_prompt(prompt or "translate", is_about_text=True)
        run_translate(open_rows(tables, root), words, translate_to, asked, step, keep_bad=keep_bad)
