"""`sora eval`: how good models and clips are. One module per sub-command."""

from __future__ import annotations

from sora_cli import options as o
from sora_cli.commands.eval.vbench import GROUPS, make_group
from sora_cli.root import LightCommand

from . import human, loss, metrics, vae

SUMMARY = "Measure models and clips: loss, benchmarks, metrics, ratings."

app = o.new_app(help=SUMMARY, epilog=o.examples("sora eval metrics outputs/", "sora eval vae clips/*.mp4"))
app.command("metrics", cls=LightCommand, epilog=metrics.EPILOG)(metrics.metrics)
app.command("vae", cls=LightCommand, epilog=vae.EPILOG)(vae.vae)
app.command("loss", cls=LightCommand, epilog=loss.EPILOG)(loss.loss)
for _suite, _name in GROUPS.items():
    app.add_typer(make_group(_suite), name=_name)
app.add_typer(human.app, name="human")
