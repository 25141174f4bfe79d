"""`sora presets`: sizes, lengths, sampling defaults and launch tables."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app(help="List and show presets: sizes, lengths, sampling defaults, launch tables.")

KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", help="only this kind, e.g. generate or launch", metavar="KIND", autocompletion=complete.preset_kinds
    ),
]


@app.command(
    "list",
    cls=LightCommand,
    epilog=o.examples("sora presets list", "sora presets list --kind generate --json"),
)
def list_command(kind: KindOption = None, as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the presets."""
    from sora_cli.console import command_output
    from sora_cli.errors import unknown_name
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.presets import KINDS, list_presets

    with command_output(json=as_json, quiet=quiet) as console:
        if kind is not None and kind not in KINDS:
            raise unknown_name("kind of preset", kind, KINDS)
        rows = [
            {**dataclasses.asdict(preset), "path": str(preset.path)}
            for preset in list_presets(get_plugins())
            if kind in (None, preset.kind)
        ]
        console.table(rows, ["kind", "name", "source", "summary", "problem"])


@app.command(
    "show",
    cls=LightCommand,
    epilog=o.examples("sora presets show fast", "sora presets show nano --kind launch --json"),
)
def show_command(
    name: Annotated[str, typer.Argument(help="a name from the list", autocompletion=complete.all_presets)],
    kind: KindOption = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print a preset: the YAML file as it is, or its content as JSON."""
    from sora_cli.config.files import read_yaml
    from sora_cli.console import command_output
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.presets import find_preset

    with command_output(json=as_json, quiet=quiet) as console:
        preset = find_preset(kind, name, get_plugins())
        content = read_yaml(preset.path).data
        document = {"kind": preset.kind, "name": name, "path": str(preset.path), "content": content}
        console.text(preset.path.read_text(encoding="utf-8"), document)
