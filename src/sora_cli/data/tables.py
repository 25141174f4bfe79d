"""Tables of clips, read and written as streams: CSV and Parquet, one file or many, here or in an object store.

Cells of CSV files are text until their column's name says that they are numbers, so a column that nobody knows passes
through as it is. Of text only the empty cell is missing: a caption may be the word "None".
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from sora_cli.errors import SoraError, UsageError

from .addresses import find_objects, is_address, local_copy, object_exists, upload

if TYPE_CHECKING:
    import polars as pl

TABLE_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".parquet.gz", ".parquet.gzip")
WRITTEN_SUFFIXES = (".csv", ".csv.gz", ".parquet")
#: Columns of numbers, whole or not.
WHOLE = ("num_frames", "height", "width", "resolution", "text_len", "rotation")
DECIMAL = (
    *("aspect_ratio", "fps", "duration", "filesize", "point"),
    *("aes", "flow", "match", "ocr", "ocr_area", "quality", "match_labels"),
)
NUMBERS = (*WHOLE, *DECIMAL)
#: Cells that mean "missing" in columns of numbers: those of pandas, which the reference reads with.
NO_NUMBER = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
#: Columns of a CSV file without a header line, as Open-Sora 1.0 wrote them.
WITHOUT_HEADER = ("path", "text", "num_frames")
#: Rows in memory at a time, and of a table that is only looked into.
ROWS_AT_ONCE, ROWS_LOOKED_AT = 1 << 16, 1000


def scan_tables(
    places: Sequence[str], *, numbers: Collection[str] | None = None, has_header: bool = True
) -> pl.LazyFrame:
    """The rows of all tables, one below the other, with all their columns in order of first appearance.

    places: files, folders of tables, sorted patterns, addresses of object stores. numbers: columns that are read as
    numbers where they are there, None for all of `NUMBERS`; others stay as the file has them. has_header: False for CSV
    files without header line, whose columns are path, text and num_frames.

    Raises UsageError for places without a table; while rows are read, SoraError that names the file, the line and what
    is wrong there.
    """
    import polars as pl

    files = [_File(place, has_header) for place in table_places(places)]
    wanted = tuple(NUMBERS if numbers is None else numbers)
    try:
        whole = pl.concat([_typed(file.scan(), wanted) for file in files], how="diagonal_relaxed")
        schema = whole.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _explained(files, wanted, error) from error

    def failed(error: Exception) -> Exception:
        return _explained(files, wanted, error)

    return through(whole, lambda batches: batches, schema, failed=failed)


def through(
    frame: pl.LazyFrame,
    work: Callable[[Iterator[pl.DataFrame]], Iterator[pl.DataFrame]],
    schema: Any,
    *,
    failed: Callable[[Exception], Exception] | None = None,
) -> pl.LazyFrame:
    """A frame of what `work` makes of the batches of another one, in their order, a batch in memory at a time.

    schema: of the result. failed: makes a better error of one that comes up while `frame` is read.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    def batches() -> Iterator[pl.DataFrame]:
        try:
            yield from batches_of(frame)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise (failed(error) if failed else error) from error

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        try:
            for batch in work(batches()):
                part = batch if left is None else batch.head(left)
                left = None if left is None else left - part.height
                if columns is not None:
                    part = part.select(columns)
                yield part if predicate is None else part.filter(predicate)
                if left == 0:
                    return
        except Exception as error:
            _raised[:] = [error]
            raise

    return register_io_source(source, schema=schema)


def batches_of(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows of a frame, some at a time, in order."""
    import polars as pl

    try:
        yield from frame.collect_batches(chunk_size=ROWS_AT_ONCE, lazy=True)
    except pl.exceptions.PolarsError as error:
        raise _original(error) from error


#: The last error that a source of `through` raised.
_raised: list[Exception] = []


def _original(error: Exception) -> Exception:
    """What a source of `through` raised; polars before 2 puts it into an error of its own."""
    return _raised.pop() if _raised and str(_raised[-1]) in str(error) else error


def write_table(frame: pl.LazyFrame | pl.DataFrame, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a table as CSV or Parquet, by its suffix, batch by batch; it appears whole or not at all.

    path: may be an address of an object store. Raises UsageError for other suffixes and, unless `overwrite`, for a file
    that exists; SoraError when it cannot be written.
    """
    import polars as pl

    from sora_cli.video.io import write_failed

    target = str(path)
    check_output(target, overwrite=overwrite)
    lazy = frame.lazy()
    nested = [name for name, dtype in lazy.collect_schema().items() if dtype.is_nested()]
    if nested and not target.lower().endswith(".parquet"):
        raise UsageError(f"{target}: the column {', '.join(nested)} holds lists, which CSV cannot", hint="use .parquet")
    if is_address(target):
        with tempfile.TemporaryDirectory(prefix="sora-") as folder:
            here = Path(folder) / target.rsplit("/", 1)[-1]
            write_table(lazy, here)
            upload(here, target)
        return
    place = Path(target).expanduser()
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sink(lazy, place.name.lower(), partial)
        os.replace(partial, place)
    except OSError as error:
        raise write_failed(place, error) from error
    except pl.exceptions.PolarsError as error:
        raise SoraError(f"{place} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sink(frame: pl.LazyFrame, name: str, path: Path) -> None:
    """Write a file of the kind that the name tells."""
    import polars as pl

    try:
        if name.endswith(".parquet"):
            frame.sink_parquet(path)
        elif name.endswith(".gz"):
            with gzip.open(path, "wb", compresslevel=6) as packed:
                frame.sink_csv(cast(IO[bytes], packed))
        else:
            frame.sink_csv(path)
    except pl.exceptions.PolarsError as error:
        raise _original(error) from error


def check_output(path: str, *, overwrite: bool) -> None:
    """Raise UsageError when a table cannot be written there: another kind of file, a folder, or one that exists."""
    if not path.lower().endswith(WRITTEN_SUFFIXES):
        raise UsageError(f"{path} is no name of a table", hint=f"kinds of tables: {', '.join(WRITTEN_SUFFIXES)}")
    place = Path(path).expanduser()
    if place.is_dir():
        raise UsageError(f"{path} is a folder, and a table is to be written there")
    if not overwrite and (object_exists(path) if is_address(path) else place.exists()):
        raise UsageError(f"{path} exists already", hint="give another name, or --overwrite")


def text_of_cell(column: pl.Expr) -> pl.Expr:
    """The text of cells of numbers, without blanks around it; missing where it means that the number is."""
    import polars as pl

    text = column.cast(pl.String).str.strip_chars()
    return pl.when(~text.is_in(list(NO_NUMBER))).then(text)


def only_folder(places: Sequence[str]) -> Path | None:
    """The folder that all tables are in, None when there are several. Objects of a store are in the working one."""
    folders = {Path() if is_address(place) else Path(place).parent for place in places}
    return folders.pop() if len(folders) == 1 else None


def warn_of_relative(places: Sequence[str], outputs: Sequence[str]) -> None:
    """Say so where paths were relative to the folder of their table and the new tables are in another.

    places: tables that were read. Only the first rows of each output are looked at.
    """
    import polars as pl

    from sora_cli.console import get_console

    folders = {_folder_of(place) for place in places}
    for output in outputs:
        if is_address(output) or folders == {_folder_of(output)}:
            continue
        frame = scan_tables([output], numbers=()).head(ROWS_LOOKED_AT)
        if "path" not in frame.collect_schema().names():
            continue
        paths = frame.select(pl.col("path")).collect()["path"]
        if any(path and not is_address(path) and not os.path.isabs(path) for path in paths):
            start = ", ".join(sorted(folder or "the working folder" for folder in folders))
            get_console().warn(
                f"relative paths in {output} start from {start}, not from its own folder; "
                "`sora data filter --abspath FOLDER` makes them absolute"
            )
            return


def _folder_of(place: str) -> str:
    return "" if is_address(place) else os.path.realpath(Path(place).expanduser().parent)


def table_places(sources: Sequence[str]) -> list[str]:
    """The files and objects that sources name, each once, in order. Raises UsageError for what is no table."""
    found: list[str] = []
    for source in sources:
        if is_address(source):
            here = [address for address in find_objects(source) if is_table(address) or address == source]
            if not here:
                raise UsageError(f"no table at {source}", hint=_kinds())
        else:
            here = [str(path) for path in table_files([source])]
        found += here
    return list(dict.fromkeys(found))


def table_files(sources: Sequence[str]) -> list[Path]:
    """The files that sources name, each once, in order. Raises UsageError for what does not exist or is no table."""
    found: list[Path] = []
    for source in sources:
        place = Path(os.path.expanduser(source))
        if place.is_dir():
            here = sorted(path for path in place.iterdir() if is_table(path.name))
        elif place.is_file():
            here = [place]
        else:
            here = sorted(map(Path, glob.glob(str(place))))
        if not here:
            raise UsageError(f"no table at {source}", hint=_kinds())
        for path in here:
            if not is_table(path.name):
                raise UsageError(f"{path} is no table", hint=_kinds())
        found += here
    return list(dict.fromkeys(found))


def is_table(name: str) -> bool:
    """Whether it is the name of a table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def unpack(packed: Path, plain: Path) -> None:
    """Write what a gzip file holds."""
    with gzip.open(packed) as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target)


def empty_table(name: str | Path) -> UsageError:
    """The error for a CSV file without a line."""
    return UsageError(f"{name} is empty", hint="a table starts with a line of column names")


def _kinds() -> str:
    return f"kinds of tables: {', '.join(TABLE_SUFFIXES)}"


# -- reading -------------------------------------------------------------------------------------------------------


class _File:
    """One table. name: as it was given; path: where its bytes are on this machine."""

    def __init__(self, place: str, has_header: bool) -> None:
        self.name, self.has_header = place, has_header
        if not is_table(place):
            raise UsageError(f"{place} is no table", hint=_kinds())
        self.is_csv = ".parquet" not in place.lower().rsplit("/", 1)[-1]
        self.path = local_copy(place) if is_address(place) else Path(place)
        if not self.is_csv and not place.lower().endswith(".parquet"):
            self._folder = tempfile.TemporaryDirectory(prefix="sora-")  # goes with this object
            plain = Path(self._folder.name) / "table.parquet"
            unpack(self.path, plain)
            self.path = plain

    def scan(self) -> pl.LazyFrame:
        """Its rows, all cells of CSV as text."""
        import polars as pl

        if not self.is_csv:
            return pl.scan_parquet(self.path, glob=False)
        header = self._header()
        if self.has_header:
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise UsageError(f"{self.name} has two columns of one name: {', '.join(twice)}")
            frame = pl.scan_csv(self.path, infer_schema=False, glob=False)
        else:
            count = len(header)
            if count > len(WITHOUT_HEADER):
                raise UsageError(
                    f"{self.name} has {count} columns, and tables without a header line have at most 3",
                    hint=f"they are {', '.join(WITHOUT_HEADER)}",
                )
            names = list(WITHOUT_HEADER[:count])
            frame = pl.scan_csv(self.path, has_header=False, infer_schema=False, new_columns=names, glob=False)
        # Empty lines are no rows.
        return frame.filter(~pl.all_horizontal(pl.all().is_null()))

    def _header(self) -> list[str]:
        """The cells of the first line."""
        with self._open() as lines:
            header = next(csv.reader(lines), None)
        if header is None:
            raise empty_table(self.name)
        return header

    def _open(self) -> io.TextIOWrapper:
        opener: Any = gzip.open if self.name.lower().endswith(".gz") else open
        file: io.TextIOWrapper = opener(self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
        return file

    def find_fault(self, numbers: Collection[str]) -> str | None:
        """What is wrong with this CSV file and in which line, None when nothing is found."""
        csv.field_size_limit(1 << 30)
        line = 1
        with self._open() as lines:
            reader = csv.reader(lines, strict=True)
            header = self._header() if self.has_header else list(WITHOUT_HEADER)
            try:
                for cells in reader:
                    fault = _fault(cells, header, numbers if line > 1 or not self.has_header else ())
                    if fault:
                        return f"{self.name}, line {line}: {fault}"
                    line = reader.line_num + 1
            except csv.Error as error:
                return f"{self.name}, from line {line} on: {error}; a quotation mark is not closed"
            except (OSError, EOFError) as error:
                return f"{self.name}, after line {line - 1}: {error}"
        return None


def _fault(cells: Sequence[str], header: Sequence[str], numbers: Collection[str]) -> str | None:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return "it is not UTF-8 text"
    if len(cells) > len(header):
        return f"{len(cells)} cells, and the table has {len(header)} columns"
    for name, cell in zip(header, cells, strict=False):
        text = cell.strip()
        if name in numbers and text not in NO_NUMBER:
            try:
                number = float(text)
                is_good = name not in WHOLE or number.is_integer()
            except ValueError:
                is_good = False
            if not is_good:
                return f"{name} is {text!r}, not a {'whole ' if name in WHOLE else ''}number"
    return None


def _typed(frame: pl.LazyFrame, numbers: Collection[str]) -> pl.LazyFrame:
    """Columns of numbers as Int64 or Float64, path and text as text."""
    import polars as pl

    columns = []
    for name, dtype in frame.collect_schema().items():
        column = pl.col(name)
        if name in numbers:
            columns.append(_number(column, pl.Int64() if name in WHOLE else pl.Float64()))
        elif name in ("path", "text") and dtype != pl.String:
            if dtype.is_nested():
                raise UsageError(f"the column {name} holds {dtype}, not text")
            # A column without any caption is one of numbers that are none, as pandas writes it.
            columns.append((column.fill_nan(None) if dtype.is_float() else column).cast(pl.String))
    return frame.with_columns(columns)


def _number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Cells as numbers; what is neither one nor missing fails."""
    import polars as pl

    def parse(cells: pl.Series) -> pl.Series:
        if cells.dtype.is_float():
            cells = cells.fill_nan(None)
        try:
            # Not whole numbers: that would cut off what is behind the point.
            if dtype.is_float() or not cells.dtype.is_float():
                return cells.cast(dtype)
        except pl.exceptions.PolarsError:
            pass  # blanks, other words for "missing", 48.0: a slower way
        slow = cells.alias("cell").to_frame().select(_from_text(pl.col("cell"), dtype))
        return slow.to_series().rename(cells.name)

    number = column.map_batches(parse, return_dtype=dtype, is_elementwise=True)
    return number.fill_nan(None) if dtype.is_float() else number


def _from_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The same, cell by cell. "48.0", as pandas writes 48 beside missing ones, is a whole number."""
    import polars as pl

    text = text_of_cell(column)
    if dtype.is_float():
        return text.cast(dtype)
    number = text.cast(pl.Float64, strict=False)
    is_whole = number.is_finite() & (number == number.floor())
    return pl.when(is_whole).then(number.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text).cast(pl.Int64)


def _explained(files: Sequence[_File], numbers: Collection[str], error: Exception) -> SoraError:
    """The error for a table that could not be read, with file and line where they can be found."""
    if isinstance(error, SoraError):
        return error
    for file in files:
        fault = file.find_fault(numbers) if file.is_csv else None
        if fault:
            return SoraError(fault, hint="mend the line, or read the column under another name")
    names = ", ".join(file.name for file in files[:10])
    return SoraError(f"cannot read {names}: {str(error).splitlines()[0]}")


def real_place(place: str) -> str:
    """One name for a file that has several."""
    return place if is_address(place) else os.path.realpath(place)
