"""The report of `sora data stats --html`: one file, with pictures inside it, that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.files import write_text
from sora_cli.text.chat import printable
from sora_cli.video.media import is_image

from .addresses import at_hand, check_store, is_address
from .local import available_cores
from .row_map import RowMap
from .statistics import MOST_SHOWN, QUANTILES, Statistics, quantiles
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

BINS = 100
#: Of a histogram, and the longer side of a clip's picture, in pixels.
PLOT_WIDTH, PLOT_HEIGHT, PICTURE_SIDE = 300, 100, 160
JPEG = "jpeg"
STYLE = """
:root { color-scheme: light }
body { font: 14px system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto; padding: 0 1em }
body { max-width: 1100px }
table { border-collapse: collapse; margin: .5em 0 } th, td { padding: .15em .7em; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f4f4f4 }
.plots, .clips { display: flex; flex-wrap: wrap; gap: 1em } figure { margin: 0 }
figcaption { font-size: 12px; overflow-wrap: anywhere } .clips figure { width: 160px }
svg path { fill: #3b6ea5 } svg text { font-size: 10px; fill: #555 } .note { color: #777 }
"""


def write_report(found: Statistics, path: Path, *, title: str, root: Path, seconds: float = 60.0) -> None:
    """Write the report; it appears whole or not at all. root: folder of relative paths; seconds: a clip may take.

    Raises SoraError when it cannot be written.
    """
    names = {name for ends in (found.best, found.worst) for clips in ends.values() for _, name in clips}
    pictures = _thumbnails(sorted(names), root, seconds)
    parts = [_overview(found)]
    for name, group in found.groups.items():
        columns = found.columns(name)
        if columns:
            plots = "".join(_histogram(column, group.values(column)) for column in columns)
            spreads = {column: quantiles(group.values(column)) for column in columns}
            parts.append(f'<h2>{name}</h2><div class="plots">{plots}</div>{_quantile_table(spreads)}')
    for heading, counts in (("camera motion", found.camera), ("words of captions", found.words), *found.tags.items()):
        if counts:
            parts.append(f"<h2>{html.escape(heading)}</h2>{_bars(counts.most_common(MOST_SHOWN))}")
    if found.buckets:
        rows = [[row[key] for key in ("resolution", "frames", "aspect", "rows")] for row in found.buckets]
        parts.append(f"<h2>buckets</h2>{_table(['resolution', 'frames', 'aspect ratio', 'rows'], rows)}")
    for score in found.best:
        for heading, clips in (("highest", found.best[score]), ("lowest", found.worst[score])):
            parts.append(f"<h2>{heading} {html.escape(score)}</h2>{_sheet(clips, pictures)}")
    title = html.escape(printable(title))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{title}</h1>{"".join(parts)}</body></html>\n'
    write_text(path, text)


def _thumbnails(names: Sequence[str], root: Path, seconds: float) -> dict[str, bytes]:
    """Pictures of the clips that can be read, made by processes that a file may hang or end."""
    work = Work("report", f"{__name__}:make_thumbnails", {}, ("path",), {}, rows_at_once=1, seconds=seconds)
    places = [{"path": name if is_address(name) else str(root / name)} for name in names]
    with RowMap(max(1, min(available_cores(), len(names)))) as rows:
        made = rows.of_files(work, places) if places else []
    return {name: each.rows[0][JPEG] for name, each in zip(names, made, strict=True) if each.rows}


def make_thumbnails(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of the report's pictures."""

    def make(row: Row) -> Made:
        if is_address(row["path"]):
            check_store(row["path"])
        with at_hand(row["path"]) as file:
            return Made([{JPEG: thumbnail(file)}])

    return lambda rows: [make(row) for row in rows]


def thumbnail(path: str) -> bytes:
    """A small JPEG of a picture, or of a frame in the middle of a video."""
    picture = _still(path) if is_image(path) else _middle_frame(path)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def _still(path: str) -> Image.Image:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def _middle_frame(path: str) -> Image.Image:
    """The key frame before the middle."""
    import av

    with av.open(f"file:{path}") as container:
        if container.duration:
            container.seek(container.duration // 2)
        frame = next(container.decode(video=0))
        return frame.to_image().rotate(getattr(frame, "rotation", 0), expand=True)


def _overview(found: Statistics) -> str:
    rows = [
        [name, group.rows, group.frames, f"{group.seconds / 3600:.2f}", group.without_rate]
        for name, group in found.groups.items()
    ]
    missing = [[name, count] for name, count in found.missing.items() if count]
    lost = f"<h2>missing</h2>{_table(['column', 'rows'], missing)}" if missing else ""
    return _table(["", "rows", "frames", "hours", "of unknown length"], rows) + lost


def _quantile_table(spreads: Mapping[str, Mapping[str, float]]) -> str:
    keys = ["mean", *QUANTILES]
    rows = [[name, spread["count"], *(f"{spread[key]:.5g}" for key in keys)] for name, spread in spreads.items()]
    return _table(["column", "count", *keys], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _histogram(name: str, values: NDArray[np.float64]) -> str:
    """A bar chart as SVG; all bars are one path."""
    counts, edges = np.histogram(values, bins=BINS)
    width = PLOT_WIDTH / BINS
    heights = counts / counts.max() * PLOT_HEIGHT
    bars = "".join(
        f"M{index * width:.1f} {PLOT_HEIGHT}v{-height:.1f}h{width:.1f}v{height:.1f}z"
        for index, height in enumerate(heights)
        if height
    )
    below = f'<text x="0" y="{PLOT_HEIGHT + 12}">{edges[0]:.4g}</text>'
    below += f'<text x="{PLOT_WIDTH}" y="{PLOT_HEIGHT + 12}" text-anchor="end">{edges[-1]:.4g}</text>'
    size = f'width="{PLOT_WIDTH}" height="{PLOT_HEIGHT + 16}"'
    return (
        f"<figure><figcaption>{html.escape(name)}, at most {counts.max()} rows</figcaption>"
        f'<svg {size}><path d="{bars}"/>{below}</svg></figure>'
    )


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    most = max(count for _, count in counts)
    rows = "".join(
        f"<tr><td>{html.escape(word)}</td><td>{count}</td><td>"
        f'<svg width="{PLOT_WIDTH}" height="10"><path d="M0 0h{count / most * PLOT_WIDTH:.1f}v10H0z"/></svg></td></tr>'
        for word, count in counts
    )
    return f"<table>{rows}</table>"


def _sheet(clips: Sequence[tuple[float, str]], pictures: Mapping[str, bytes]) -> str:
    figures, unreadable = [], 0
    for value, name in clips:
        picture = pictures.get(name)
        if picture is None:
            unreadable += 1
            continue
        data = base64.b64encode(picture).decode()
        caption = f"{value:.4g}<br>{html.escape(printable(Path(name).name))}"
        source = f"data:image/jpeg;base64,{data}"
        figures.append(f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>')
    note = f'<p class="note">{unreadable} of {len(clips)} clips cannot be read here</p>' if unreadable else ""
    return f'<div class="clips">{"".join(figures)}</div>{note}'
