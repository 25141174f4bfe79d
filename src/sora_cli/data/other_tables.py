"""Steps of `sora data filter` that look rows up in another table, which is held in memory."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sora_cli.errors import UsageError
from sora_cli.text.cleaning import clean_caption

from .row_map import RowMap
from .steps import Step
from .tables import scan_tables, through

if TYPE_CHECKING:
    import polars as pl

    from .operations import FilterOptions

KEY, NEW = "__key", "__new"


def _key_columns(on: str) -> tuple[str, str]:
    ours, _, theirs = on.partition("=")
    if not ours:
        raise UsageError(f"--on {on!r}: give a column, or COLUMN=COLUMN_OF_THE_OTHER_TABLE")
    return ours, theirs or ours


def _other_table(file: str, column: str, options: FilterOptions, rows: RowMap) -> pl.DataFrame:
    """Another table in memory, with its keys as text in `KEY`; rows without one are left out.

    Keys may be lists, or Python lists as text: every member is a key.
    """
    import polars as pl

    table = scan_tables([file]).collect()
    Step(f"--on {options.on}", needs=(column,)).check(table.columns)
    keys = table[column]
    if isinstance(keys.dtype, pl.List):
        table = table.with_columns(keys.alias(KEY)).explode(KEY)
    elif keys.dtype == pl.String and keys.str.contains(r"^\s*\[\s*['\"]").any():
        lists = pl.Series(KEY, [_listed(key) for key in keys], pl.List(pl.String))
        table = table.with_columns(lists).explode(KEY)
    else:
        table = table.with_columns(keys.alias(KEY))
    table = table.with_columns(pl.col(KEY).cast(pl.String)).filter(pl.col(KEY) != "")
    if options.clean_keys:
        table = table.with_columns(pl.Series(KEY, rows(_cleaned, table[KEY].to_list()), pl.String))
    return table


def _listed(key: str | None) -> list[str | None]:
    """The members of a Python list of strings; any other text is one member."""
    try:
        found = ast.literal_eval((key or "").strip())
    except (ValueError, SyntaxError):
        return [key]
    is_list = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if is_list else [key]


def _with_key(frame: pl.LazyFrame, column: str, options: FilterOptions, rows: RowMap) -> pl.LazyFrame:
    import polars as pl

    frame = frame.with_columns(pl.col(column).cast(pl.String).alias(KEY))
    if not options.clean_keys:
        return frame.with_columns(pl.when(pl.col(KEY) != "").then(pl.col(KEY)).alias(KEY))

    def clean(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for batch in batches:
            yield batch.with_columns(pl.Series(KEY, rows(_cleaned, batch[KEY].to_list()), pl.String))

    return through(frame, clean, frame.collect_schema())


def with_other(join: Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]) -> Callable[..., Step]:
    """A step with another table: join(ours, theirs), both with `KEY`."""

    def make(flag: str, file: str, options: FilterOptions, rows: RowMap) -> Step:
        ours, theirs = _key_columns(options.on)

        def whole(frame: pl.LazyFrame) -> pl.LazyFrame:
            other = _other_table(file, theirs, options, rows).lazy()
            return join(_with_key(frame, ours, options, rows), other).drop(KEY)

        return Step(flag, whole=whole, needs=(ours,))

    return make


def difference(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that the other table does not have."""
    return ours.join(theirs.select(KEY).unique(), on=KEY, how="anti", maintain_order="left")


def semi(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that the other table has too."""
    return ours.join(theirs.select(KEY).unique(), on=KEY, how="semi", maintain_order="left")


def _new_columns(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> list[str]:
    here = set(ours.collect_schema().names())
    return [KEY, *sorted(name for name in theirs.collect_schema().names() if name not in here)]


def inner(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> pl.LazyFrame:
    """The same with its new columns; a row that it has twice is there twice."""
    added = theirs.select(_new_columns(ours, theirs))
    return ours.join(added, on=KEY, how="inner", maintain_order="left_right")


def left(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> pl.LazyFrame:
    """All rows, with new columns from the first row of the other table that fits."""
    added = theirs.select(_new_columns(ours, theirs)).unique(KEY, keep="first", maintain_order=True)
    return ours.join(added, on=KEY, how="left", maintain_order="left")


def _updated(ours: pl.LazyFrame, theirs: pl.LazyFrame) -> pl.LazyFrame:
    import polars as pl

    Step("--update-text", needs=("text",)).check(theirs.collect_schema().names())
    new = theirs.filter(pl.col("text") != "").select(KEY, pl.col("text").alias(NEW))
    new = new.unique(KEY, keep="first", maintain_order=True)
    columns = ours.collect_schema().names()
    if "text" not in columns:
        ours = ours.with_columns(pl.lit(None, pl.String).alias("text"))
    joined = ours.join(new, on=KEY, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce(NEW, "text").alias("text")).drop(NEW)


def update_text(flag: str, file: str, options: FilterOptions, rows: RowMap) -> Step:
    """Captions of the other table in place of ours, where it has some; the path becomes the first column."""
    step = with_other(_updated)(flag, file, options, rows)
    join = step.whole
    assert join is not None  # it is a step with another table

    def whole(frame: pl.LazyFrame) -> pl.LazyFrame:
        updated = join(frame)
        names = updated.collect_schema().names()
        return updated.select(sorted(names, key=lambda name: name != "path"))  # the path comes first

    return Step(flag, whole=whole, needs=step.needs)


def _cleaned(text: str | None) -> str | None:
    return clean_caption(text) if text else text
