"""`sora doctor`: is this machine and this installation in order?"""

from __future__ import annotations

import typer

from sora_cli import options as o
from sora_cli.root import LightCommand

app = o.new_app()


@app.command(cls=LightCommand, epilog=o.examples("sora doctor", "sora doctor --json"))
def doctor(as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Check this machine and this installation.

    The exit code is 1 when something needs to be repaired.
    """
    from sora_cli.console import command_output
    from sora_cli.doctor import examine, has_failed, report
    from sora_cli.plugin.manager import get_plugins

    with command_output(json=as_json, quiet=quiet) as console:
        findings = examine(get_plugins())
        console.text(report(findings, only_problems=quiet), [finding.row() for finding in findings])
    if has_failed(findings):
        raise typer.Exit(1)
