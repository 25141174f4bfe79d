"""`sora completion`: the script that makes Tab complete sora commands."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app()


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "source <(sora completion bash)",
        'sora completion zsh > "${fpath[1]}/_sora"',
        "sora completion fish > ~/.config/fish/completions/sora.fish",
        "sora completion powershell >> $PROFILE",
    ),
)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], typer.Argument(help="your shell")],
) -> None:
    """Print the script that completes sora commands in your shell.

    Commands, options and their values are completed: models, presets, resolutions, durations, schedulers and more.
    """
    from sora_cli.completion_scripts import SCRIPTS
    from sora_cli.console import command_output

    with command_output() as console:
        console.text(SCRIPTS[shell], SCRIPTS[shell])
