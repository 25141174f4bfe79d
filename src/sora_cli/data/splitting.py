"""`sora data split`: a small set with as many clips of every bucket, or parts of a table that share no source video."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.training.buckets import Assignment, BucketTable, hashed_uniforms

from .operations import row_hashes
from .steps import Step
from .tables import check_output, scan_tables, table_places, through, warn_of_relative, write_table

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

SIZES = ("num_frames", "height", "width")
#: Columns that name the video a clip was cut from.
SOURCES = ("source", "source_path", "source_id")
GROUP = "__group"


def split_by_bucket(
    tables: Sequence[str],
    output: str,
    bucket_config: Mapping[str, Any],
    *,
    frame_interval: int = 1,
    limit: int = 200,
    has_header: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the first `limit` rows of every bucket (resolution, frames, aspect ratio), in the order of the table.

    bucket_config: as for training; every chance in it that is not 0 counts as 1. Prints rows per bucket. Raises
    UsageError.
    """
    if limit < 1:
        raise UsageError(f"--limit {limit}: at least one clip of a bucket is kept")
    check_output(output, overwrite=overwrite)
    buckets = without_chance(BucketTable(bucket_config))
    frame = _scan(tables, SIZES, output, has_header)
    Step("splitting by bucket", needs=SIZES).check(frame.collect_schema().names())
    found = assign(frame, buckets, frame_interval)
    number = found.pair.astype(np.int64) * (1 << 16) + found.aspect
    is_kept = (found.pair >= 0) & (_occurrence(number) < limit)
    write_table(_rows(frame, is_kept), output, overwrite=overwrite)
    console = get_console()
    _report(bucket_counts(buckets, found, is_kept), int(is_kept.sum()), [output])
    warn_of_relative(table_places(tables), [output])
    left_out = int((found.pair < 0).sum())
    if left_out:
        console.note(f"{left_out} rows fit no bucket: {_reasons(found)}")
    if not is_kept.any():
        console.warn("no row is left")


def split_by_source(
    tables: Sequence[str],
    folder: Path,
    shares: Mapping[str, float],
    *,
    kind: str = "csv",
    column: str | None = None,
    seed: int = 42,
    has_header: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the parts of a table, folder/train.csv and so on, such that clips of one video are in the same part.

    shares: part -> share of all videos; "train" gets the rest. column: what names the video of a clip, by default the
    first of `SOURCES` that is there, else, and in rows without it, the path without "_scene-N". A video's part is a
    hash of its name and the seed, so it stays when other rows come or go. Raises UsageError.
    """
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise UsageError("the shares of --val and --test must lie between 0 and 1, and leave something for training")
    outputs = {name: str(folder / f"{name}.{kind}") for name in ("train", *shares)}
    for path in outputs.values():
        check_output(path, overwrite=overwrite)
    places = table_places(tables)
    # The input is read once for every part.
    if not {os.path.realpath(path) for path in outputs.values()}.isdisjoint(map(os.path.realpath, places)):
        raise UsageError(f"a part would replace a table that is split, in {folder}", hint="give another folder")
    frame = _scan(tables, (), outputs["train"], has_header)
    names = frame.collect_schema().names()
    column = column or next((name for name in SOURCES if name in names), None)
    Step("splitting", needs=(column or "path",)).check(names)
    console = get_console()
    console.note(f"clips with the same {column or 'path up to _scene-N'} stay together")
    counts = dict.fromkeys(outputs, 0)
    for name, path in outputs.items():
        write_table(_part(frame, name, shares, column, seed, counts), path, overwrite=overwrite)
    rows = [{"part": name, "rows": counts[name], "path": path} for name, path in outputs.items()]
    _report(rows, sum(counts.values()), list(outputs.values()))
    warn_of_relative(places, list(outputs.values()))


def without_chance(buckets: BucketTable) -> BucketTable:
    """The same buckets, each of which keeps everything that it does not turn away altogether."""
    buckets.pairs = tuple(
        replace(pair, keep=1.0 if pair.keep > 0 else 0.0, length=1.0 if pair.length else pair.length)
        for pair in buckets.pairs
    )
    return buckets


def assign(frame: pl.LazyFrame, buckets: BucketTable, frame_interval: int) -> Assignment:
    """The bucket of every row; rows without a size are in none."""
    import polars as pl

    sizes = frame.select(pl.col(name).fill_null(0).cast(pl.Int64) for name in SIZES).collect()
    # A height of 0 would be divided by.
    columns = [np.maximum(sizes[name].to_numpy(), 1 if name == "width" else 0) for name in SIZES]
    return buckets.assign(*columns, seed=0, epoch=0, frame_interval=frame_interval)


def bucket_counts(
    buckets: BucketTable, found: Assignment, is_kept: NDArray[np.bool_] | None = None
) -> list[dict[str, Any]]:
    """Rows of each bucket that has some, largest resolution first. is_kept: count the rows that are kept as well."""
    inside = found.pair >= 0
    names, counts = np.unique(np.stack([found.pair[inside], found.aspect[inside]]), axis=1, return_counts=True)
    rows = []
    for pair, aspect, count in zip(*names, counts, strict=True):
        resolution, frames, key = buckets.bucket(int(pair), int(aspect))
        row: dict[str, Any] = {"resolution": resolution, "frames": frames, "aspect": key, "rows": int(count)}
        if is_kept is not None:
            row["kept"] = int((is_kept & (found.pair == pair) & (found.aspect == aspect)).sum())
        rows.append(row)
    return rows


def source_of(path: str) -> str:
    """The video that a clip was cut from, as its name tells: the path without suffix and "_scene-N"."""
    return re.sub(r"_scene-\d+(-\d+)?$", "", str(PurePath(path).with_suffix("")) if PurePath(path).name else path)


def _scan(tables: Sequence[str], numbers: Sequence[str], output: str, has_header: bool) -> pl.LazyFrame:
    only_csv = all(".csv" in Path(name).name.lower() for name in [*table_places(tables), output])
    return scan_tables(tables, numbers=numbers if only_csv else None, has_header=has_header)


def _occurrence(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal numbers come before each one."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    count = np.empty(len(numbers), np.int64)
    count[order] = np.arange(len(numbers)) - np.repeat(starts, lengths)
    return count


def _rows(frame: pl.LazyFrame, is_kept: NDArray[np.bool_]) -> pl.LazyFrame:
    """The rows that are marked."""
    import polars as pl

    def marked(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        start = 0
        for batch in batches:
            yield batch.filter(pl.Series(is_kept[start : start + batch.height]))
            start += batch.height

    return through(frame, marked, frame.collect_schema())


def _part(
    frame: pl.LazyFrame,
    name: str,
    shares: Mapping[str, float],
    column: str | None,
    seed: int,
    counts: dict[str, int],
) -> pl.LazyFrame:
    import polars as pl

    edges = np.cumsum([0.0, *shares.values(), 1 - sum(shares.values())])
    place = [*shares, "train"].index(name)

    def chosen(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for batch in batches:
            names = batch[column].cast(pl.String) if column else pl.Series([None] * batch.height, dtype=pl.String)
            if names.null_count() and "path" in batch.columns:  # rows of tables that do not say it
                paths = pl.Series([path and source_of(path) for path in batch["path"]], dtype=pl.String)
                names = pl.select(pl.coalesce(names, paths)).to_series()
            named = names.fill_null("").alias(GROUP).to_frame()
            draws = hashed_uniforms(row_hashes(named, (GROUP,)), (seed, "split"))
            batch = batch.filter(pl.Series((draws >= edges[place]) & (draws < edges[place + 1])))
            counts[name] += batch.height
            yield batch

    return through(frame, chosen, frame.collect_schema())


def _reasons(found: Assignment) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in found.dropped().items() if count)


def _report(rows: Sequence[Mapping[str, Any]], total: int, outputs: Sequence[str]) -> None:
    console = get_console()
    if console.mode == "json":
        console.record({"outputs": list(outputs), "rows": total, "parts": [dict(row) for row in rows]})
        return
    if console.mode == "human":
        console.table(rows, [name for name in rows[0] if name != "path"] if rows else ["rows"])
    for path in outputs:
        console.result(path)
