"""The `sora` command: root options; the commands themselves are in the table of root.py."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import new_app
from .root import RootGroup

app = new_app(
    cls=RootGroup,
    help="Text to video on your own machines: generate, train and measure video models.",
    epilog=('Examples:\n\n  sora generate "a waterfall"\n\n  sora plugins list --kind model\n\n  sora generate --help'),
)


def _print_version(value: bool) -> None:
    if value:
        from sora_cli import version

        typer.echo(f"sora {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks  (env: SORA_DEBUG)")] = False,
) -> None:
    """Print the help when no command is given."""
    if debug:
        from .debug import enable_debug

        enable_debug()
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
