"""`sora data stats`: what is in a table, as numbers, and as a report with pictures.

Columns of numbers are held in memory, 8 bytes a cell; captions are not.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.text.captions import camera_labels
from sora_cli.training.buckets import BucketTable
from sora_cli.video.media import IMAGE_NAME

from .splitting import SIZES, assign, bucket_counts, without_chance
from .tables import WHOLE, batches_of, only_folder, scan_tables, table_places, text_of_cell

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

QUANTILES = {"min": 0.0, "1%": 0.01, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "99%": 0.99,
             "max": 1.0}  # fmt: skip
#: Columns that hold no numbers, even where they look like some.
NOT_NUMBERS = (
    "path",
    "id",
    "text",
    "relpath",
    "timestamp",
    "cmotion",
    "codec",
    "source",
    "source_id",
    "objects",
    "actions",
)
#: Numbers that say what a clip is like, not how good it is.
NOT_SCORES = (*WHOLE, "aspect_ratio", "fps", "duration", "filesize", "point", "words", "scene", "start", "rotation")
#: Numbers that are worked out here.
MADE = {"words", "duration"}
#: Columns with tags, separated by commas.
TAGS = ("objects", "actions")
#: Most frequent words, tags and labels that are shown; clips at each end of a score.
MOST_SHOWN, SHOWN_CLIPS = 20, 8
#: Words that say nothing of what is in a caption.
COMMON = {
    *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it", "its", "of", "on", "or"),
    *("that", "the", "their", "there", "they", "this", "to", "video", "image", "while", "with"),
}


@dataclass
class Group:
    """Pictures or videos. numbers: column -> values that are there."""

    rows: int = 0
    frames: int = 0
    seconds: float = 0.0
    without_rate: int = 0
    numbers: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def values(self, column: str) -> NDArray[np.float64]:
        """All values of a column."""
        return np.concatenate(self.numbers.get(column) or [np.zeros(0)])


@dataclass
class Statistics:
    """Everything that is counted. ends: score -> its best and its worst clips, (value, path)."""

    groups: dict[str, Group] = field(default_factory=lambda: {"images": Group(), "videos": Group()})
    missing: Counter[str] = field(default_factory=Counter)
    camera: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    best: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    worst: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    buckets: list[dict[str, Any]] | None = None

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(group.rows for group in self.groups.values())

    def columns(self, group: str) -> list[str]:
        """Columns of numbers in which the group has values."""
        return [name for name in self.groups[group].numbers if len(self.groups[group].values(name))]

    def document(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        groups: dict[str, Any] = {}
        for name, group in self.groups.items():
            groups[name] = {
                "rows": group.rows,
                "frames": group.frames,
                "hours": round(group.seconds / 3600, 4),
                "rows_without_rate": group.without_rate,
                "numbers": {column: quantiles(group.values(column)) for column in self.columns(name)},
            }
        return {
            "rows": self.rows,
            **groups,
            "missing": dict(self.missing),
            "camera_motion": dict(self.camera.most_common()),
            "words": dict(self.words.most_common(MOST_SHOWN)),
            "tags": {name: dict(tags.most_common(MOST_SHOWN)) for name, tags in self.tags.items()},
            "buckets": self.buckets,
        }


def run_stats(
    tables: Sequence[str],
    *,
    html: Path | None = None,
    root: Path | None = None,
    bucket_config: Mapping[str, Any] | None = None,
    frame_interval: int = 1,
    has_header: bool = True,
    overwrite: bool = False,
) -> None:
    """Print what is in tables. html: a report to write as well, with clips found from `root`, by default the tables'
    folder; bucket_config: count the clips of each bucket.
    """
    if html is not None and html.exists() and not overwrite:
        raise UsageError(f"{html} exists already", hint="give another name, or --overwrite")
    frame = scan_tables(tables, has_header=has_header)
    found = collect(frame)
    if bucket_config is not None:
        names = frame.collect_schema().names()
        absent = [name for name in SIZES if name not in names]
        if absent:
            raise UsageError(f"buckets need the column {', '.join(absent)}, which the table lacks")
        buckets = without_chance(BucketTable(bucket_config))
        found.buckets = bucket_counts(buckets, assign(frame, buckets, frame_interval))
    if html is not None:
        from .report import write_report

        write_report(found, html, title=", ".join(tables), root=root or only_folder(table_places(tables)) or Path())
    _print(found, html)


def collect(frame: pl.LazyFrame) -> Statistics:
    """Read a table once."""
    found = Statistics()
    # Columns of CSV files that nobody knows are numbers until a cell is none.
    asked = {name for name in frame.collect_schema().names() if name not in NOT_NUMBERS}
    for batch in batches_of(frame):
        _add(found, batch, asked)
    for group in found.groups.values():
        group.numbers = {name: values for name, values in group.numbers.items() if name in asked | MADE}
    for ends in (found.best, found.worst):
        for name in set(ends) - asked:
            del ends[name]
    return found


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """count, mean and quantiles of values."""
    spread = np.quantile(values, list(QUANTILES.values()))
    return {
        "count": len(values),
        "mean": float(values.mean()),
        **dict(zip(QUANTILES, map(float, spread), strict=True)),
    }


def _add(found: Statistics, batch: pl.DataFrame, asked: set[str]) -> None:
    import polars as pl

    for name in batch.columns:
        found.missing[name] += batch[name].null_count()
    numbers = _numbers(batch, asked)
    if "text" in batch.columns:
        texts = batch["text"]
        numbers["words"] = np.where(
            (texts.fill_null("") != "").to_numpy(),
            texts.str.count_matches(r"\S+").fill_null(0).to_numpy().astype(np.float64),
            np.nan,
        )
        _count(found.words, texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}][\p{L}\p{N}'-]*"), skip=COMMON)
    for name in set(TAGS) & set(batch.columns):
        lists = batch[name].cast(pl.String).str.split(",").list.eval(pl.element().str.strip_chars())
        _count(found.tags.setdefault(name, Counter()), lists, skip={"", "NONE_FOUND"})
    is_image = _is_image(batch, numbers)
    if "cmotion" in batch.columns:
        for labels, count in batch.filter(~is_image)["cmotion"].value_counts().iter_rows():
            for label in camera_labels(labels):
                found.camera[label] += count
    _add_groups(found, numbers, is_image.to_numpy())
    if "path" in batch.columns:
        for name in numbers:
            if name not in NOT_SCORES:
                _add_ends(found, name, numbers[name], batch["path"])


def _numbers(batch: pl.DataFrame, asked: set[str]) -> dict[str, NDArray[np.float64]]:
    """Columns of numbers, missing ones as NaN; takes columns that hold anything else out of `asked`."""
    import polars as pl

    found = {}
    for name in batch.columns:
        column = batch[name]
        if name not in asked:
            continue
        if column.dtype == pl.String:
            text = batch.select(text_of_cell(pl.col(name)))[name]
            column = text.cast(pl.Float64, strict=False)
            if column.null_count() > text.null_count():
                asked.discard(name)
                continue
        elif not column.dtype.is_numeric():
            asked.discard(name)
            continue
        found[name] = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return found


def _is_image(batch: pl.DataFrame, numbers: Mapping[str, NDArray[np.float64]]) -> pl.Series:
    """Pictures have one frame; where frames are not known, the name tells."""
    import polars as pl

    named = pl.repeat(False, batch.height, eager=True)
    if "path" in batch.columns:
        named = batch["path"].fill_null("").str.contains(IMAGE_NAME)
    if "num_frames" not in numbers:
        return named
    frames = numbers["num_frames"]
    return pl.Series((frames == 1) | (np.isnan(frames) & named.to_numpy()))


def _add_groups(found: Statistics, numbers: Mapping[str, NDArray[np.float64]], is_image: NDArray[np.bool_]) -> None:
    nothing = np.full(len(is_image), np.nan)
    frames, rate = numbers.get("num_frames", nothing), numbers.get("fps", nothing)
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.where(rate > 0, frames / rate, np.nan)
    seconds = np.where(np.isnan(numbers.get("duration", nothing)), seconds, numbers.get("duration", nothing))
    columns = {"duration": seconds, **{name: values for name, values in numbers.items() if name != "duration"}}
    for name, mask in (("images", is_image), ("videos", ~is_image)):
        group = found.groups[name]
        group.rows += int(mask.sum())
        group.frames += int(np.nansum(frames[mask]))
        if name == "videos":
            group.seconds += float(np.nansum(seconds[mask]))
            group.without_rate += int(np.isnan(seconds[mask]).sum())
        for column, values in columns.items():
            there = values[mask & np.isfinite(values)]
            if len(there) and not (name == "images" and column in ("duration", "num_frames")):
                group.numbers.setdefault(column, []).append(there)


def _count(counter: Counter[str], lists: pl.Series, *, skip: Iterable[str]) -> None:
    words = lists.explode().drop_nulls()
    for word, count in words.value_counts().iter_rows():
        if word not in skip:
            counter[word] += count


def _add_ends(found: Statistics, name: str, values: NDArray[np.float64], paths: pl.Series) -> None:
    there = np.flatnonzero(np.isfinite(values))
    if len(there) > 2 * SHOWN_CLIPS:
        order = there[np.argsort(values[there], kind="stable")]
        there = np.r_[order[:SHOWN_CLIPS], order[-SHOWN_CLIPS:]]
    clips = [(float(values[place]), path) for place in there if (path := paths[int(place)])]
    found.best[name] = heapq.nlargest(SHOWN_CLIPS, set(found.best.get(name, []) + clips))
    found.worst[name] = heapq.nsmallest(SHOWN_CLIPS, set(found.worst.get(name, []) + clips))


def _print(found: Statistics, html: Path | None) -> None:
    console = get_console()
    document = found.document()
    if console.mode == "json":
        console.record({**document, "html": None if html is None else str(html)})
        return
    if console.mode == "quiet":
        if html is not None:
            console.result(html)
        return
    console.record({"rows": found.rows, **{name: _group_line(group) for name, group in found.groups.items()}})
    for name in found.groups:
        rows = [
            {"column": column, **{key: f"{value:.5g}" for key, value in spread.items() if key != "count"}}
            | {"count": spread["count"]}
            for column, spread in document[name]["numbers"].items()
        ]
        if rows:
            console.table(rows, ["column", "count", "mean", *QUANTILES], title=f"\n{name}")
    missing = [{"column": name, "missing": count} for name, count in found.missing.items() if count]
    if missing:
        console.table(missing, ["column", "missing"], title="\nmissing")
    for title, counts in (("camera motion", found.camera), ("words", found.words), *found.tags.items()):
        if counts:
            rows = [{"value": word, "rows": count} for word, count in counts.most_common(MOST_SHOWN)]
            console.table(rows, ["value", "rows"], title=f"\n{title}")
    if found.buckets is not None:
        console.table(found.buckets, ["resolution", "frames", "aspect", "rows"], title="\nbuckets")
    if html is not None:
        console.result(html)


def _group_line(group: Group) -> str:
    parts = [f"{group.rows}"]
    if group.seconds:
        parts.append(f"{group.frames} frames, {group.seconds / 3600:.2f} hours")
        if group.without_rate:
            parts.append(f"{group.without_rate} without rate, of unknown length")
    return ", ".join(parts)
