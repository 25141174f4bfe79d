"""Steps of `sora data filter` that look at the files of a table."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError

from .addresses import is_address, is_store, object_exists, object_size
from .index import probe_work
from .probe import PROBED
from .row_map import RowMap
from .steps import SLOW_ROWS, Step

if TYPE_CHECKING:
    import polars as pl

    from .operations import FilterOptions

#: Files to decode at a time.
FILES = 256


def _places(batch: pl.DataFrame, options: FilterOptions) -> list[str | None]:
    """Where the files of rows are; None without a path, and for addresses of web servers, which are not called."""
    return [_place(path, options.root) for path in batch["path"]]


def _place(path: str | None, root: Path | None) -> str | None:
    if path and is_address(path):
        return path if is_store(path) else None
    if not path or os.path.isabs(path):
        return path
    if root is None:
        raise UsageError(f"the path {path} is relative, and the tables lie in several folders", hint="give --root")
    return os.path.join(root, path)


def load_caption(flag: str, kind: str, options: FilterOptions, rows: RowMap) -> Step:
    """Takes captions from the files beside the clips."""
    import polars as pl

    if kind not in ("json", "txt"):
        raise UsageError(f"{flag}: captions are loaded from json or txt files")

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        found = rows(functools.partial(_caption_beside, kind), _places(batch, options))
        return batch.with_columns(pl.Series("text", found, pl.String))

    return Step(flag, lambda: apply, needs=("path",), rows_at_once=SLOW_ROWS)


def _caption_beside(kind: str, path: str | None) -> str:
    """The caption in the file of the same name beside a clip; empty when there is none."""
    try:
        text = Path(os.path.splitext(path or "")[0] + f".{kind}").read_text(encoding="utf-8")
        caption = json.loads(text)["caption"] if kind == "json" else text.strip()
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return caption if isinstance(caption, str) else ""


def probed(flag: str, options: FilterOptions, rows: RowMap, *, as_video: bool) -> Step:
    """Adds the columns of `PROBED`; files that cannot be read have 0 frames."""
    import polars as pl

    types = {name: pl.Float64 if name in ("aspect_ratio", "fps") else pl.Int64 for name in PROBED}
    work = dataclasses.replace(probe_work(as_video=as_video, seconds=rows.seconds), name=flag)
    # Of a file that hangs or ends a decoder.
    nothing = {name: 0 if name in ("num_frames", "height", "width") else None for name in PROBED}

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        found = rows.of_files(work, [{"path": path or ""} for path in _places(batch, options)])
        for made in found:
            if not made.rows:
                get_console().warn(f"{made.reason}; it counts as broken")
        facts = [made.rows[0] if made.rows else nothing for made in found]
        return batch.with_columns(pl.Series(name, [each[name] for each in facts], types[name]) for name in PROBED)

    return Step(flag, lambda: apply, needs=("path",), rows_at_once=FILES)


def _exists(path: str | None) -> bool:
    if not path:
        return False
    return object_exists(path) if is_address(path) else os.path.exists(path)


def _mebibytes(path: str | None) -> float | None:
    try:
        size = object_size(path) if path and is_address(path) else os.stat(path or "").st_size
    except (OSError, ValueError, SoraError):  # the second for a path with a zero byte
        return None
    return size / 2**20


def existing(flag: str, _: bool, options: FilterOptions, rows: RowMap) -> Step:
    """Keeps rows whose file is there."""

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return batch.filter(pl.Series(rows(_exists, _places(batch, options)), dtype=pl.Boolean))

    return Step(flag, lambda: apply, needs=("path",), rows_at_once=SLOW_ROWS)


def file_sizes(flag: str, _: bool, options: FilterOptions, rows: RowMap) -> Step:
    """Adds the size of each file in MiB, missing where there is no file."""

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return batch.with_columns(pl.Series("filesize", rows(_mebibytes, _places(batch, options)), pl.Float64))

    return Step(flag, lambda: apply, needs=("path",), rows_at_once=SLOW_ROWS)
