"""`sora pull`: weights from the hub and from web servers, before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app()


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora pull opensora-v1.2",
        "sora pull opensora-v1.2 --dry-run",
        "sora pull opensora-v1.2 --update",
        "sora pull organisation/repository@revision",
    ),
)
def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            help="models, autoencoders, text encoders, metrics, scorers, or hub ids",
            metavar="NAME...",
            autocompletion=complete.models,
        ),
    ],
    variant: Annotated[str | None, typer.Option("--variant", help="size of the model", metavar="NAME")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="look for a newer commit; otherwise the one first downloaded stays")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="say what would be downloaded, and what is here")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Download the weights of a model, for use without network.

    Its autoencoder and text encoder come with it, and with a metric or a scorer the networks that it looks with. What
    is here already is kept; half a download goes on where it stopped. The folders are printed. Downloads go to the
    cache of the Hugging Face hub (HF_HOME); HF_ENDPOINT names another server, HF_TOKEN opens gated repositories.
    """
    from sora_cli.console import command_output
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.pull import run

    with command_output(json=as_json, quiet=quiet):
        run(names, get_plugins(), variant=variant, update=update, dry_run=dry_run)
