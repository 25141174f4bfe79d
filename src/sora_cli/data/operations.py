"""The operations of `sora data filter`, in the one order in which they are done.

Names, order and results are those of the table tool of Open-Sora (66a42cd), except for what it gets wrong: missing
captions stay missing, random choices are a hash of the row, addresses in captions do not stop it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sora_cli.errors import UsageError
from sora_cli.text.captions import append_bracketed_scores, append_camera_motion, camera_labels, strip_opening
from sora_cli.text.cleaning import clean_caption
from sora_cli.text.language import check_languages, is_in_language
from sora_cli.training.buckets import hashed_uniforms
from sora_cli.video.media import IMAGE_NAME

from .addresses import is_address
from .file_steps import existing, file_sizes, load_caption, probed
from .other_tables import difference, inner, left, semi, update_text, with_other
from .row_map import RowMap
from .steps import SLOW_ROWS, FirstOfEach, FirstRows, Step
from .tables import NUMBERS, ROWS_AT_ONCE, text_of_cell, through

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

#: Columns that training reads.
TRAIN_COLUMNS = ("path", "text", "num_frames", "fps", "height", "width", "aspect_ratio", "resolution", "text_len")
URL = r"https?://\S"
#: Scores are left out of captions with this probability, so that a model also learns without them.
SCORE_DROP = 0.2
SCORE_PHRASES = {"aes": "aesthetic score", "flow": "motion score"}
ORDER = "__order"


class Bound(NamedTuple):
    """A limit. is_least: or the most; keeps_missing: whether rows without a value stay (pictures have no rate)."""

    column: str
    is_least: bool
    keeps_missing: bool = False


BOUNDS = {
    "fsmax": Bound("filesize", False),
    "fmin": Bound("num_frames", True),
    "fmax": Bound("num_frames", False),
    "fpsmin": Bound("fps", True, keeps_missing=True),
    "fpsmax": Bound("fps", False, keeps_missing=True),
    "hwmin": Bound("resolution", True),
    "hwmax": Bound("resolution", False),
    "aesmin": Bound("aes", True),
    "aesmax": Bound("aes", False),
    "matchmin": Bound("match", True),
    "flowmin": Bound("flow", True),
    "flowmax": Bound("flow", False),
    "ocrmax": Bound("ocr", False),
}


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """What is to be done; None and False leave an operation out. See the help of `sora data filter` for each.

    root: folder of relative paths, for operations that look at files.
    """

    difference: str | None = None
    intersection: str | None = None
    keep_in: str | None = None
    join: str | None = None
    on: str = "path"
    clean_keys: bool = False
    load_caption: str | None = None
    info: bool = False
    video_info: bool = False
    ext: bool = False
    remove_url: bool = False
    lang: str | None = None
    remove_empty_path: bool = False
    remove_empty_caption: bool = False
    remove_path_duplication: bool = False
    path_subset: str | None = None
    relpath: str | None = None
    abspath: str | None = None
    path_to_id: bool = False
    merge_cmotion: bool = False
    refine_llm_caption: bool = False
    append_text: str | None = None
    score_to_text: bool = False
    clean_caption: bool = False
    count_num_token: Path | None = None
    update_text: str | None = None
    sort: str | None = None
    sort_ascending: str | None = None
    filesize: bool = False
    fsmax: float | None = None
    fmin: int | None = None
    fmax: int | None = None
    fpsmin: float | None = None
    fpsmax: float | None = None
    hwmin: int | None = None
    hwmax: int | None = None
    aesmin: float | None = None
    aesmax: float | None = None
    matchmin: float | None = None
    flowmin: float | None = None
    flowmax: float | None = None
    ocrmax: float | None = None
    cmotion: str | None = None
    where: str | None = None
    remove_text_duplication: bool = False
    img_only: bool = False
    vid_only: bool = False
    shuffle: bool = False
    head: int | None = None
    train_column: bool = False
    shard: int | None = None
    seed: int = 42
    root: Path | None = None


#: The order of the steps; results depend on it.
STEPS = (
    *("difference", "intersection", "keep_in", "join", "load_caption", "info", "video_info", "ext", "remove_url"),
    *("lang", "remove_empty_path", "remove_empty_caption", "remove_path_duplication", "path_subset", "relpath"),
    *("abspath", "path_to_id", "merge_cmotion", "refine_llm_caption", "append_text", "score_to_text"),
    *("clean_caption", "count_num_token", "update_text", "sort", "sort_ascending", "filesize", "fsmax"),
    *("remove_empty_caption", "fmin", "fmax", "fpsmin", "fpsmax", "hwmin", "hwmax", "aesmin", "aesmax", "matchmin"),
    *("flowmin", "flowmax", "ocrmax", "cmotion", "where", "remove_text_duplication", "img_only", "vid_only"),
    *("shuffle", "head", "train_column"),
)


def make_steps(options: FilterOptions, rows: RowMap) -> list[Step]:
    """The steps that were asked for, in order. rows: maps slow functions. Raises UsageError for wrong values."""
    steps = []
    for name in STEPS:
        value = getattr(options, name)
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}" + ("" if value is True else f" {_shown(value)}")
        make = _BUILDERS.get(name)
        steps.append(_bound(flag, name, value) if make is None else make(flag, value, options, rows))
    return steps


def row_hashes(batch: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number per row that depends on these columns alone, the same everywhere and in every version."""
    lines = zip(*(batch[name].cast(str).fill_null("") for name in columns), strict=True)
    digests = [hashlib.blake2b("\0".join(line).encode(), digest_size=8).digest() for line in lines]
    return np.frombuffer(b"".join(digests), "<i8")


# -- steps on batches ----------------------------------------------------------------------------------------------

_Build = Callable[[str, Any, FilterOptions, RowMap], Step]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kept(flag: str, good: pl.Expr, needs: Sequence[str], numbers: Sequence[str] = ()) -> Step:
    """Keeps rows by an expression that looks at one row."""
    return Step(flag, lambda: lambda batch: batch.filter(good), needs=needs, numbers=numbers)


def _changed(
    flag: str, column: str, change: Callable[..., Any], needs: Sequence[str], rows: RowMap | None = None
) -> Step:
    """Replaces or adds a column of text: change(values of `needs`). Missing values of the first one stay missing.

    rows: for functions that take longer than to reach another process.
    """
    import polars as pl

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        cells = list(zip(*(batch[name] for name in needs), strict=True))
        function = functools.partial(_unless_missing, change)
        made = [function(each) for each in cells] if rows is None else rows(function, cells)
        return batch.with_columns(pl.Series(column, made, pl.String))

    return Step(flag, lambda: apply, needs=needs, rows_at_once=ROWS_AT_ONCE if rows is None else SLOW_ROWS)


def _unless_missing(change: Callable[..., Any], cells: tuple[Any, ...]) -> Any:
    return change(*cells) if cells[0] else cells[0]


def _bound(flag: str, name: str, value: float) -> Step:
    import polars as pl

    bound = BOUNDS[name]
    column = pl.col(bound.column)
    good = column >= value if bound.is_least else column <= value
    if bound.keeps_missing:
        good |= column.is_null()
    if bound.column != "resolution":
        return _kept(flag, good, [bound.column], [bound.column])

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        if "resolution" not in batch.columns:
            Step(flag, needs=("height", "width")).check(batch.columns)
            batch = batch.with_columns((pl.col("height") * pl.col("width")).alias("resolution"))
        return batch.filter(good)

    return Step(flag, lambda: apply, numbers=("resolution", "height", "width"))


def _languages(flag: str, asked: str, _: FilterOptions, rows: RowMap) -> Step:
    languages = [name.strip().lower() for name in asked.split(",") if name.strip()]
    check_languages(languages)

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        good = rows(functools.partial(_may_be, languages), batch["text"].to_list())
        return batch.filter(pl.Series(good, dtype=pl.Boolean))

    return Step(flag, lambda: apply, needs=("text",), rows_at_once=SLOW_ROWS)


def _may_be(languages: Sequence[str], text: str | None) -> bool:
    return is_in_language(text, languages)


def _without_url(flag: str, *_: Any) -> Step:
    import polars as pl

    return _kept(flag, ~pl.col("text").str.contains(URL).fill_null(False), ["text"])


def _not_empty(column: str) -> _Build:
    def make(flag: str, *_: Any) -> Step:
        import polars as pl

        return _kept(flag, pl.col(column) != "", [column])

    return make


def _first_of(column: str) -> _Build:
    return lambda flag, *_: Step(flag, lambda: FirstOfEach(column), needs=(column,))


def _path_subset(flag: str, pattern: str, *_: Any) -> Step:
    import polars as pl

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        raise UsageError(f"{flag}: it is no regular expression: {str(error).splitlines()[-1]}") from error
    return _kept(flag, pl.col("path").str.contains(pattern), ["path"])


def _relative(root: str, path: str) -> str:
    if is_address(path) or is_address(root):
        return path.removeprefix(root.rstrip("/") + "/")
    return os.path.relpath(path, root)


def _absolute(root: str, path: str) -> str:
    if is_address(path):
        return path
    return f"{root.rstrip('/')}/{path}" if is_address(root) else os.path.join(root, path)


def _stem(path: str) -> str:
    return PurePath(path).stem


def _with_score_text(flag: str, _: bool, options: FilterOptions, rows: RowMap) -> Step:
    import polars as pl

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        scores = [name for name in SCORE_PHRASES if name in batch.columns]
        if not scores:
            raise UsageError(f"{flag} needs the column aes or flow, which the table lacks")
        keys = row_hashes(batch, ("path", "text"))
        added: list[list[tuple[str, float]]] = [[] for _ in range(batch.height)]
        for name in scores:
            is_told = hashed_uniforms(keys, (options.seed, "score text", name)) > SCORE_DROP
            for place, (told, value) in enumerate(zip(is_told, batch[name], strict=True)):
                if told and value is not None:
                    added[place].append((SCORE_PHRASES[name], value))
        texts = zip(batch["text"], added, strict=True)
        made = [append_bracketed_scores(text, scores) if text else text for text, scores in texts]
        return batch.with_columns(pl.Series("text", made, pl.String))

    return Step(flag, lambda: apply, needs=("path", "text"), numbers=tuple(SCORE_PHRASES))


def _count_tokens(flag: str, folder: Path, *_: Any) -> Step:
    from sora_cli.text.tokenizers import load_tokenizer

    if not folder.is_dir():
        raise UsageError(f"{flag}: there is no folder {folder}", hint="give the folder of a T5 encoder's tokenizer")
    tokenizer = load_tokenizer(folder, ("spiece.model", "tokenizer.json"))

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        given = [text for text in batch["text"] if text is not None]
        # With the end marker, and none cut off.
        counts = iter(map(len, tokenizer(given, truncation=False)["input_ids"] if given else ()))
        found = [None if text is None else next(counts) for text in batch["text"]]
        return batch.with_columns(pl.Series("text_len", found, pl.Int64))

    return Step(flag, lambda: apply, needs=("text",), rows_at_once=SLOW_ROWS)


def _with_labels(flag: str, asked: str, *_: Any) -> Step:
    wanted = {label for part in asked.split(",") for label in camera_labels(part)}
    if not wanted:
        raise UsageError(f"{flag}: give labels, with commas between them")

    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        good = [not wanted.isdisjoint(camera_labels(labels)) for labels in batch["cmotion"]]
        return batch.filter(pl.Series(good, dtype=pl.Boolean))

    return Step(flag, lambda: apply, needs=("cmotion",))


def _by_kind(is_image: bool) -> _Build:
    def make(flag: str, *_: Any) -> Step:
        import polars as pl

        named = pl.col("path").str.contains(IMAGE_NAME).fill_null(False)
        return _kept(flag, named if is_image else ~named, ["path"])

    return make


def _train_columns(flag: str, *_: Any) -> Step:
    def apply(batch: pl.DataFrame) -> pl.DataFrame:
        return batch.select([name for name in batch.columns if name in TRAIN_COLUMNS])

    return Step(flag, lambda: apply, needs=("path",))


# -- steps on the whole table --------------------------------------------------------------------------------------


def _sorted_by(is_descending: bool) -> _Build:
    def make(flag: str, column: str, *_: Any) -> Step:
        import polars as pl

        def whole(frame: pl.LazyFrame) -> pl.LazyFrame:
            keys = [pl.col(column)]
            if frame.collect_schema()[column] == pl.String:
                # A column that nobody knows is sorted by value where it holds nothing but numbers.
                text = text_of_cell(pl.col(column))
                number = text.cast(pl.Float64, strict=False)
                is_number = (number.is_null() == text.is_null()).all()
                keys = [pl.when(is_number).then(number), pl.when(~is_number).then(pl.col(column))]
            return frame.sort(keys, descending=is_descending, nulls_last=True, maintain_order=True)

        return Step(flag, whole=whole, needs=(column,), numbers=[column] if column in NUMBERS else ())

    return make


def _where(flag: str, text: str, *_: Any) -> Step:
    import polars as pl

    hint = "for example: --where \"aes > 5 AND text LIKE '%dog%'\"\n"
    hint += "cells of unknown columns in CSV files are text: CAST(my_column AS DOUBLE)"
    try:
        good = pl.sql_expr(text)
        names = good.meta.root_names()
    except (pl.exceptions.PolarsError, pl.exceptions.SQLSyntaxError) as error:
        raise UsageError(f"{flag}: {str(error).splitlines()[0]}", hint=hint) from error

    def whole(frame: pl.LazyFrame) -> pl.LazyFrame:
        kept = frame.filter(good)
        try:
            frame.collect_schema().to_frame(eager=True).filter(good)
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"{flag}: {str(error).splitlines()[0]}", hint=hint) from error
        return kept

    return Step(flag, whole=whole, needs=names, numbers=[name for name in names if name in NUMBERS])


def _shuffled(flag: str, _: bool, options: FilterOptions, rows: RowMap) -> Step:
    import polars as pl

    def whole(frame: pl.LazyFrame) -> pl.LazyFrame:
        schema = frame.collect_schema()
        columns = [name for name in ("path", "text") if name in schema]

        def numbered(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
            for batch in batches:
                numbers = hashed_uniforms(row_hashes(batch, columns), (options.seed, "shuffle"))
                yield batch.with_columns(pl.Series(ORDER, numbers, pl.Float64))

        ordered = through(frame, numbered, {**schema, ORDER: pl.Float64()})
        return ordered.sort(ORDER, maintain_order=True).drop(ORDER)

    return Step(flag, whole=whole, needs=("path",))


_BUILDERS: dict[str, _Build] = {
    "difference": with_other(difference),
    "intersection": with_other(inner),
    "keep_in": with_other(semi),
    "join": with_other(left),
    "load_caption": load_caption,
    "info": lambda flag, _, options, rows: probed(flag, options, rows, as_video=False),
    "video_info": lambda flag, _, options, rows: probed(flag, options, rows, as_video=True),
    "ext": existing,
    "remove_url": _without_url,
    "lang": _languages,
    "remove_empty_path": _not_empty("path"),
    "remove_empty_caption": _not_empty("text"),
    "remove_path_duplication": _first_of("path"),
    "path_subset": _path_subset,
    "relpath": lambda flag, root, *_: _changed(flag, "path", functools.partial(_relative, root), ["path"]),
    "abspath": lambda flag, root, *_: _changed(flag, "path", functools.partial(_absolute, root), ["path"]),
    "path_to_id": lambda flag, *_: _changed(flag, "id", _stem, ["path"]),
    "merge_cmotion": lambda flag, *_: _changed(flag, "text", append_camera_motion, ["text", "cmotion"]),
    "refine_llm_caption": lambda flag, *_: _changed(flag, "text", strip_opening, ["text"]),
    "append_text": lambda flag, ending, *_: _changed(flag, "text", functools.partial(_appended, ending), ["text"]),
    "score_to_text": _with_score_text,
    "clean_caption": lambda flag, _, __, rows: _changed(flag, "text", clean_caption, ["text"], rows),
    "count_num_token": _count_tokens,
    "update_text": update_text,
    "sort": _sorted_by(True),
    "sort_ascending": _sorted_by(False),
    "filesize": file_sizes,
    "cmotion": _with_labels,
    "where": _where,
    "remove_text_duplication": _first_of("text"),
    "img_only": _by_kind(True),
    "vid_only": _by_kind(False),
    "shuffle": _shuffled,
    "head": lambda flag, count, _, __: Step(flag, lambda: FirstRows(count)),
    "train_column": _train_columns,
}


def _appended(ending: str, text: str) -> str:
    return text + ending
