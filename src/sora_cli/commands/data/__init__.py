"""`sora data`: from raw videos to captioned, scored, filtered training clips. One module per sub-command."""

from __future__ import annotations

from sora_cli import options as o
from sora_cli.root import LightCommand

from . import caption, cut, dedup, index, interpolate, run, score, split, stats, tag
from . import filter as filter_

app = o.new_app(
    help="Turn raw videos into captioned, scored, filtered training clips.",
    epilog=o.examples("sora data index videos/ -o videos.csv"),
)
app.command("run", cls=LightCommand, epilog=run.EPILOG)(run.run)
app.command("index", cls=LightCommand, epilog=index.EPILOG)(index.index)
app.command("cut", cls=LightCommand, epilog=cut.EPILOG)(cut.cut)
app.command("dedup", cls=LightCommand, epilog=dedup.EPILOG)(dedup.dedup)
app.command("score", cls=LightCommand, epilog=score.EPILOG)(score.score)
app.command("interpolate", cls=LightCommand, epilog=interpolate.EPILOG)(interpolate.interpolate)
app.command("caption", cls=LightCommand, epilog=caption.EPILOG)(caption.caption)
app.command("tag", cls=LightCommand, epilog=tag.EPILOG)(tag.tag)
app.command("filter", cls=LightCommand, epilog=filter_.EPILOG)(filter_.filter_)
app.command("split", cls=LightCommand, epilog=split.EPILOG)(split.split)
app.command("stats", cls=LightCommand, epilog=stats.EPILOG)(stats.stats)
