"""The table of clips that a run trains on: CSV or Parquet, one file or many, checked before anything else happens.

The columns that training uses are copied once into an Arrow file that is mapped into memory, so a table of millions of
rows costs main memory only for its numbers, and any row can be read at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sora_cli.console import counted
from sora_cli.data.tables import empty_table, table_files, unpack
from sora_cli.errors import SoraError, UsageError, did_you_mean
from sora_cli.text.scores import Scores
from sora_cli.video.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

#: Columns of whole numbers from 1.
SIZES = ("num_frames", "height", "width")
NUMBERS = (*SIZES, "aes", "flow")
#: Column -> the part of score text it fills.
SCORE_COLUMNS = {"aes": "aes", "flow": "motion", "cmotion": "camera"}
#: Columns of further captions of a clip: text_2, text_3 and so on.
MORE_TEXT = re.compile(r"text_[1-9][0-9]*")
#: Rows hashed at a time, and bad rows that an error names.
ROWS_AT_ONCE, MAX_NAMED = 1 << 16, 10
ROW, SOURCE = "__row", "__file"


@dataclass(frozen=True)
class ClipRow:
    """One clip. path: as the table names it; texts: its captions, none in a table without any.

    scores: of the columns that are filled; num_frames: where it is said.
    """

    path: str
    texts: tuple[str, ...]
    scores: Scores
    num_frames: int | None = None


class ClipTable:
    """An opened table. `len` gives its rows; they are numbered from 0 in the order of the files."""

    def __init__(self, content: pl.DataFrame, root: Path, num_skipped: int = 0, fingerprint: str | None = None) -> None:
        """content: mapped columns; root: folder of relative paths; num_skipped: rows that were left out as bad.

        fingerprint: where it is known.
        """
        self.content, self.root, self.num_skipped = content, root, num_skipped
        if fingerprint is not None:
            self.fingerprint = fingerprint

    def __len__(self) -> int:
        """Rows."""
        return self.content.height

    def numbers(self, column: str) -> NDArray[np.int64]:
        """A column of sizes, (N,)."""
        return self.content[column].to_numpy()

    def rows(self, numbers: NDArray[np.int64]) -> list[ClipRow]:
        """Rows by number."""
        captions = ["text", *_more_texts(self.content.columns)]
        return [
            ClipRow(
                row["path"],
                tuple(text for name in captions if (text := row.get(name)) and text.strip()),
                Scores(**{SCORE_COLUMNS[name]: row.get(name) for name in SCORE_COLUMNS}),
                row.get("num_frames"),
            )
            for row in self.content[numbers.tolist()].iter_rows(named=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of everything in the table that training uses."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), ROWS_AT_ONCE):
            digest.update(self.content[start : start + ROWS_AT_ONCE].write_csv().encode())
        return digest.hexdigest()


def open_table(
    sources: Sequence[str],
    *,
    cache: Path,
    root: Path | None = None,
    needs_sizes: bool = True,
    needs_text: bool = True,
    bad_rows: Literal["error", "skip"] = "error",
) -> ClipTable:
    """Read and check tables. sources: files, folders of tables, or patterns such as "part-*.parquet".

    cache: the Arrow file that is written. root: what relative paths in the tables start from, by default the folder of
    each table. needs_sizes: whether num_frames, height and width must be there; needs_text:
    whether captions must. Raises
    UsageError naming files, columns and row numbers (counted from 1, without the header) of whatever is wrong.
    """
    import polars as pl

    files = table_files(sources)
    folders = [file.resolve().parent for file in files]
    place = (root or Path(os.path.commonpath(folders))).resolve()
    cache.parent.mkdir(parents=True, exist_ok=True)
    unpacked: list[Path] = []
    try:
        wanted = ("path", *(("text",) if needs_text else ()), *(SIZES if needs_sizes else ()))
        parts = [
            _part(file, index, cache, unpacked, wanted, "" if root else folder.relative_to(place).as_posix())
            for index, (file, folder) in enumerate(zip(files, folders, strict=True))
        ]
        found = {name for part in parts for name in part.columns}
        columns = [name for name in (*wanted, *_more_texts(found), *SCORE_COLUMNS) if name in found]
        whole = pl.concat([part.frame for part in parts], how="diagonal_relaxed")
        good = _is_good(wanted)
        num_bad = _check_rows(whole, files, good, bad_rows)
        temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
        whole.filter(good).select(_typed(columns)).sink_ipc(temporary, compression="uncompressed")
        temporary.replace(cache)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        names = ", ".join(str(file) for file in files[:MAX_NAMED])
        raise SoraError(f"cannot read the table {names}: {str(error).splitlines()[0]}") from error
    finally:
        for path in unpacked:
            path.unlink(missing_ok=True)
    table = ClipTable(pl.read_ipc(cache), place, num_bad)
    if not len(table):
        raise UsageError(f"there is no row to train on in {', '.join(map(str, files))}")
    return table


def mapped_table(cache: Path, root: Path, fingerprint: str) -> ClipTable:
    """A table that another process has opened. cache: its Arrow file; root, fingerprint: of that table."""
    import polars as pl

    return ClipTable(pl.read_ipc(cache), root, fingerprint=fingerprint)


def clip_path(root: Path, text: str) -> Path:
    """The file that a row names. Raises ValueError for addresses, unknown kinds, and ways out of the root folder."""
    if "://" in text:
        raise ValueError("an address, which is not downloaded in training")
    if not text.lower().endswith(VIDEO_SUFFIXES + IMAGE_SUFFIXES):
        raise ValueError("neither a video nor a picture by its name")
    path = Path(text)
    if path.is_absolute():
        return path
    joined = Path(os.path.normpath(root / path))
    if not joined.is_relative_to(root):
        raise ValueError(f"a path out of {root}")
    return joined


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    frame: pl.LazyFrame
    columns: tuple[str, ...]


def _more_texts(names: Iterable[str]) -> list[str]:
    """The columns of further captions, by their number."""
    return sorted(filter(MORE_TEXT.fullmatch, names), key=lambda name: int(name.partition("_")[2]))


def _part(file: Path, index: int, cache: Path, unpacked: list[Path], wanted: Sequence[str], folder: str = "") -> _Part:
    """One file, its columns cleaned of blanks, with row numbers. folder: put before relative paths.

    Raises UsageError for missing columns.
    """
    import polars as pl

    name = file.name.lower()
    if ".parquet" in name:
        if not name.endswith(".parquet"):
            inside = cache.with_name(f"{cache.name}.{os.getpid()}.{index}.parquet")
            unpacked.append(inside)
            unpack(file, inside)
            file = inside
        frame = pl.scan_parquet(file)
    else:
        # As text: what a number is, is decided by the column's name, and a bad one is named with its row.
        frame = pl.scan_csv(file, infer_schema=False)
    try:
        headers = frame.collect_schema().names()
    except pl.exceptions.NoDataError as error:
        raise empty_table(file) from error
    names = [header.strip() for header in headers]
    if len(set(names)) != len(names):
        raise UsageError(f"{file} has two columns of one name: {', '.join(sorted(names))}")
    absent = [column for column in wanted if column not in names]
    if absent:
        hints = [advice for column in absent if (advice := did_you_mean(column, names))]
        if not hints and set(absent) & set(SIZES):
            hints.append(f"`sora data index {shlex.quote(str(file))} -o NEW.csv` looks into the files for sizes")
        if not hints and "text" in absent:
            hints.append(f"`sora data caption {shlex.quote(str(file))} -o NEW.csv` writes captions, or write your own")
        has = f"it has {', '.join(names[:MAX_NAMED])}"
        lacking = f"column{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
        raise UsageError(f"{file} lacks the {lacking}", hint="\n".join([*hints, has]))
    more = _more_texts(names) if "text" in wanted else []
    kept = [column for column in (*wanted, *more, *SCORE_COLUMNS) if column in names]
    frame = frame.rename(dict(zip(headers, names, strict=True))).select(kept)
    types = frame.collect_schema()
    captions = {"text", *more}
    for column in ({"path"} | captions) & set(kept):
        if types[column] not in (pl.String, pl.Categorical, pl.Null):
            raise UsageError(f"{file}: the column {column} holds {types[column]}, not text")
    # Blanks after commas are part of the fields of a CSV file.
    text = {column: pl.col(column).cast(pl.String) for column in kept}
    numbers = [_finite(text[name].str.strip_chars().cast(pl.Float64, strict=False)) for name in kept if name in NUMBERS]
    texts = [text[name] if name in captions else text[name].str.strip_chars() for name in kept if name not in NUMBERS]
    frame = frame.with_columns(*numbers, *texts)
    if folder not in ("", "."):
        path = pl.col("path")
        is_whole = path.str.starts_with("/") | path.str.contains("://", literal=True) | (path == "")
        frame = frame.with_columns(pl.when(is_whole).then(path).otherwise(pl.concat_str(pl.lit(f"{folder}/"), path)))
    frame = frame.with_row_index(ROW, offset=1)
    return _Part(frame.with_columns(pl.lit(index, pl.Int32).alias(SOURCE)), tuple(kept))


def _finite(numbers: pl.Expr) -> pl.Expr:
    """Numbers, of which those that are none, such as the "nan" that other programs write, are missing."""
    import polars as pl

    return pl.when(numbers.is_finite()).then(numbers)


def _is_good(wanted: Sequence[str]) -> pl.Expr:
    """Whether a row has a path and, where they are wanted, a caption and whole positive sizes."""
    import polars as pl

    good = (pl.col("path").str.strip_chars() != "").fill_null(False)
    if "text" in wanted:
        good &= (pl.col("text").str.strip_chars() != "").fill_null(False)
    for column in [name for name in SIZES if name in wanted]:
        value = pl.col(column)
        good &= ((value >= 1) & (value == value.floor()) & (value < 2**31)).fill_null(False)
    return good


def _typed(columns: Sequence[str]) -> list[pl.Expr]:
    import polars as pl

    return [pl.col(name).cast(pl.Int64) if name in SIZES else pl.col(name) for name in columns]


def _check_rows(whole: pl.LazyFrame, files: Sequence[Path], good: pl.Expr, bad_rows: str) -> int:
    """How many rows are bad; UsageError naming the first of them unless they are to be skipped."""
    bad: pl.DataFrame = whole.filter(~good).collect()
    if not bad.height or bad_rows == "skip":
        return bad.height
    lines = [f"{files[row[SOURCE]]}, row {row[ROW]}: {'; '.join(_faults(row))}" for row in _head(bad)]
    if bad.height > MAX_NAMED:
        lines.append(f"and {bad.height - MAX_NAMED} more")
    raise UsageError(
        f"{counted(bad.height, 'bad row')} in the table", hint="\n".join([*lines, "--bad-rows skip leaves them out"])
    )


def _head(frame: pl.DataFrame) -> Iterator[Mapping[str, Any]]:
    yield from frame.head(MAX_NAMED).iter_rows(named=True)


def _faults(row: Mapping[str, Any]) -> list[str]:
    faults = [f"no {name}" for name in ("path", "text") if name in row and not (row[name] or "").strip()]
    for name in SIZES:
        value = row.get(name, 1)
        if value is None or value < 1 or value != int(value) or value >= 2**31:
            faults.append(f"{name} is {'missing or no number' if value is None else f'{value:g}'}")
    return faults
