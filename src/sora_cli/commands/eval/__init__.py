"""`sora eval`: how good models and clips are. One module per sub-command."""

from __future__ import annotations

from sora_cli import options as o
from sora_cli.commands.vae import evaluate as vae
from sora_cli.root import LightCommand

app = o.new_app(epilog=o.examples("sora eval vae clips/*.mp4"))


@app.callback()
def _group() -> None:
    """Measure models and clips: loss, benchmarks, metrics, ratings."""


app.command("vae", cls=LightCommand, epilog=o.examples("sora eval vae clip.mp4 --metric psnr"))(vae)
