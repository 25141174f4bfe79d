"""`sora plugins`: what plugins add to this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app(help="List and show models, schedulers and everything else that plugins add.")

KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", help="only this kind, e.g. model or scheduler", metavar="KIND", autocompletion=complete.plugin_kinds
    ),
]


@app.command(
    "list",
    cls=LightCommand,
    epilog=o.examples("sora plugins list", "sora plugins list --kind model --json"),
)
def list_command(kind: KindOption = None, as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List what plugins add, and the plugins that could not be loaded."""
    from sora_cli.console import command_output
    from sora_cli.plugin.listing import list_plugins
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.root import BUILT_IN_NAMES

    with command_output(json=as_json, quiet=quiet) as console:
        listing = list_plugins(get_plugins(), kind, BUILT_IN_NAMES)
        console.table(listing.rows, ["kind", "name", "plugin", "status", "summary"])
        for error in listing.errors:
            console.error(error)
    if listing.errors:
        raise typer.Exit(listing.errors[0].exit_code)


@app.command(
    "show",
    cls=LightCommand,
    epilog=o.examples(
        "sora plugins show opensora-v1.0",
        "sora plugins show imagenet-classes",
        "sora plugins show rectified_flow --json",
    ),
)
def show_command(
    name: Annotated[str, typer.Argument(help="a name or alias from the list", autocompletion=complete.plugin_names)],
    kind: KindOption = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Show everything known about what has this name; JSON is a list, of one item for most names."""
    from sora_cli.console import command_output
    from sora_cli.plugin.listing import describe_plugins
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.plugin.model_facts import shown_to_people
    from sora_cli.root import BUILT_IN_NAMES

    with command_output(json=as_json, quiet=quiet) as console:
        found = describe_plugins(get_plugins(), name, kind, BUILT_IN_NAMES)
        records = [each.record if as_json else shown_to_people(each.record) for each in found]
        console.records(records, [each.title for each in found])
