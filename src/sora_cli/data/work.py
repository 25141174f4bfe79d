"""Work on every row of a table, whose results are kept as they come, so that it can go on after any interruption.

Results are lines of a log in a folder beside the output: the key of a row, which is a hash of the columns that the work
reads, and what was made of it. A row is done when the log has its key. So nothing is done or counted twice, rows that
were added or changed between runs are found, and rows that are equal in these columns share one result. When all rows
are done, those that failed are taken out of the log: the next run tries them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sora_cli.console import counted, get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.files import claimed, write_text
from sora_cli.video.io import write_failed

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

LOG, SETTINGS = "results.jsonl", "settings.json"
#: In the settings of a log whose run came to its end: whether the log is there because somebody wants to keep it.
IS_KEPT = "is_kept"
KEY, REASON, ROWS = "__key", "__reason", "__rows"
#: Reasons shown on stderr while a run goes on; all of them are in the file beside the output.
MOST_SHOWN = 5

Row = Mapping[str, Any]
#: Makes of rows what belongs to each; where the work only adds columns that is one row of these.
RowFunction = Callable[[Sequence[Row]], Sequence["Made"]]


class Made(NamedTuple):
    """What was made of one row: new rows; or the reason why it failed, with what a table that keeps it is to have."""

    rows: Sequence[Mapping[str, Any]] = ()
    reason: str | None = None


class Job(NamedTuple):
    """Rows with their keys."""

    keys: Sequence[int]
    rows: Sequence[Row]


class Outcome(NamedTuple):
    """What was made of the row with a key."""

    key: int
    made: Made


@dataclass(frozen=True)
class Work:
    """What is done with each row.

    name: for messages. target: "module:attr" `(options, device) -> RowFunction`, called once in every process.
    options: JSON-safe. inputs: columns that it reads. columns: what it writes, by name "int", "float", "str" or "bool".
    rows_at_once: that a process is given together. seconds: a row may take; a process that needs longer is stopped.
    settings: what must be the same for a run to go on, None for all options.
    """

    name: str
    target: str
    options: Mapping[str, Any]
    inputs: tuple[str, ...]
    columns: Mapping[str, str]
    rows_at_once: int = 8
    seconds: float = 600.0
    settings: Mapping[str, Any] | None = None


class Engine(Protocol):
    """Where work is done."""

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        """The outcomes of all rows as they come, in any order.

        A row that fails, hangs or kills its process has a reason. Raises SoraError when nothing can be done at all, for
        example when a package is missing.
        """
        ...


@dataclass
class Results:
    """The log of one output. folder: beside it; seen: keys of the rows that are done; added: rows of this run."""

    folder: Path
    seen: set[int] = field(default_factory=set)
    added: int = 0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Append outcomes."""
        lines = [json.dumps({"key": key, "rows": _clean(made.rows), "reason": made.reason}) for key, made in outcomes]
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise write_failed(self.folder / LOG, error) from error
        self.seen.update(key for key, _ in outcomes)
        self.added += len(outcomes)

    def frame(self, columns: Mapping[str, str]) -> pl.DataFrame:
        """All of it: key, reason and `rows`, a list of structs of these columns."""
        import polars as pl

        types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String, "bool": pl.Boolean}
        made = pl.Struct({name: types[kind] for name, kind in columns.items()})
        schema: dict[str, Any] = {"key": pl.UInt64, "rows": pl.List(made), "reason": pl.String}
        path = self.folder / LOG
        is_there = path.exists() and path.stat().st_size
        found = pl.read_ndjson(path, schema=schema) if is_there else pl.DataFrame(schema=schema)
        return found.unique("key", keep="last", maintain_order=True).rename({"key": KEY, "reason": REASON})

    def end(self, *, keeps: bool) -> int:
        """All rows are done: how many of them the next run tries again, as they failed.

        The log is thrown away, unless there are such rows or it is to be kept.
        """
        try:
            failed = self._forget_failed()
        except OSError as error:
            raise write_failed(self.folder, error) from error
        if keeps or failed:
            path = self.folder / SETTINGS
            write_text(path, json.dumps({**json.loads(path.read_text(encoding="utf-8")), IS_KEPT: keeps}))
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return failed

    def _forget_failed(self) -> int:
        log = self.folder / LOG
        if not log.exists():
            return 0
        failed: set[int] = set()
        partial = log.with_name(f"{LOG}.tmp")
        with log.open(encoding="utf-8") as file, partial.open("w", encoding="utf-8") as kept:
            for line in file:
                outcome = json.loads(line)
                if outcome["reason"] is None:
                    kept.write(line)
                else:
                    failed.add(outcome["key"])
        partial.replace(log)
        self.seen -= failed
        return len(failed)


def work_folder(output: Path) -> Path:
    """Where the log of an output is."""
    return output.with_name(f"{output.name}.work")


@contextlib.contextmanager
def kept_results(output: Path, work: Work, **settings: bool) -> Iterator[Results]:
    """`open_results`, kept from other processes meanwhile. Raises SoraError while another one makes this output."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(work_folder(output), is_folder=True))
        except OSError as error:
            raise write_failed(output, error) from error
        yield open_results(output, work, **settings)


def open_results(
    output: Path,
    work: Work,
    *,
    restart: bool = False,
    restart_changed: bool = False,
    overwrite: bool = False,
    can_restart: bool = True,
) -> Results:
    """The log of an output, empty or with what an earlier run did.

    restart: throw away what there is. A log of other work is thrown away with restart_changed, and with overwrite when
    all that it has is in the output that is replaced; UsageError is raised else. can_restart: whether the
    command has the option --restart.
    """
    folder = work_folder(output)
    if restart:
        for name in (LOG, SETTINGS):  # not the folder, which this process keeps from others
            (folder / name).unlink(missing_ok=True)
    how = "--restart" if can_restart else f"remove {folder}"
    options = work.options if work.settings is None else work.settings
    settings = {"work": work.name, "options": json.loads(json.dumps(dict(options)))}
    path = folder / SETTINGS
    before: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    is_kept = None if before is None else before.pop(IS_KEPT, None)
    if before is not None and before != settings:
        if restart_changed or (overwrite and is_kept is False):
            return open_results(output, work, restart=True)
        raise _other_settings(folder, before, settings, how, is_unfinished=is_kept is None)
    if before is None or is_kept is not None:
        write_text(path, json.dumps(settings))
    return Results(folder, _seen(folder / LOG, how))


def _other_settings(
    folder: Path, before: Mapping[str, Any], settings: Mapping[str, Any], how: str, *, is_unfinished: bool
) -> UsageError:
    old, new = before.get("options", {}), settings["options"]
    changed = ", ".join(name for name in {**old, **new} if old.get(name) != new.get(name)) or "of other work"
    if is_unfinished:
        hint = f"give the settings of before to go on, or {how} to throw it away"
        return UsageError(f"{folder} holds an unfinished run with other settings ({changed})", hint=hint)
    hint = f"give another --output to keep them, or {how} to throw them away"
    return UsageError(f"{folder} holds the results of a run with other settings ({changed})", hint=hint)


def do_work(
    frame: pl.DataFrame,
    work: Work,
    engine: Engine,
    results: Results,
    *,
    verb: str,
    what: str = "row",
    goes_on: bool = True,
) -> None:
    """Do what the log lacks of a table. verb: "probing", for the progress line. what: a row is. goes_on: whether
    the log is there for the next run.

    After Ctrl-C or an error the log has everything that was done.
    """
    console = get_console()
    keys = row_keys(frame, work.inputs)
    if not len(keys):
        return
    first = _first_rows(keys)
    todo = [int(row) for row in first if int(keys[row]) not in results.seen]
    are = f"{counted(len(first), what)} {'is' if len(first) == 1 else 'are'}"
    if len(todo) < len(first):
        console.note(f"{len(first) - len(todo)} of {are} done already")
    failed = 0
    outcomes_of = engine.run(work, _jobs(frame, work, keys, todo))
    with console.progress(f"{verb} {counted(len(todo), what)}", len(todo)) as progress:
        try:
            for outcomes in outcomes_of:
                results.add(outcomes)
                progress.advance(len(outcomes))
                for reason in [made.reason for _, made in outcomes if made.reason is not None]:
                    failed += 1
                    if failed <= MOST_SHOWN:
                        console.warn(reason)
                    elif failed == MOST_SHOWN + 1:
                        console.warn(f"more {what}s fail; all are listed in the end")
        except KeyboardInterrupt:
            done = f"{len(results.seen)} of {are} done"
            console.note(f"{done}; the same command goes on" if goes_on else done)
            raise


def added_columns(frame: pl.DataFrame, work: Work, results: Results) -> pl.DataFrame:
    """The table with the columns of the work, which replace those of the same names, and with `REASON`."""
    import polars as pl

    made = results.frame(work.columns)
    one = made.with_columns(pl.col("rows").list.first()).unnest("rows")
    kept = frame.drop([name for name in work.columns if name in frame.columns])
    return _keyed(kept, row_keys(frame, work.inputs)).join(one, on=KEY, how="left", maintain_order="left").drop(KEY)


def new_rows(frame: pl.DataFrame, work: Work, results: Results) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """What was made of each row instead of it, with the row's other columns; the rows with a reason; and the rows that
    nothing was made of without one.

    Rows that are equal in what the work reads give their new rows once.
    """
    import polars as pl

    keys = row_keys(frame, work.inputs)
    source = _keyed(frame, keys)[_first_rows(keys)] if len(keys) else _keyed(frame, keys)
    found = results.frame(work.columns).rename({"rows": ROWS})
    joined = source.join(found, on=KEY, how="left", maintain_order="left").drop(KEY)
    failed = joined.filter(pl.col(REASON).is_not_null()).drop(ROWS)
    done = joined.filter(pl.col(REASON).is_null()).drop(REASON)
    is_good = pl.col(ROWS).list.len() > 0
    good, empty = done.filter(is_good), done.filter(~is_good).drop(ROWS)
    kept = good.drop([name for name in work.columns if name in frame.columns])
    made = kept.explode(ROWS).unnest(ROWS)
    return made.select(*work.columns, *(name for name in made.columns if name not in work.columns)), failed, empty


def row_keys(frame: pl.DataFrame, inputs: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's inputs; columns that the table lacks count as empty."""
    import numpy as np

    present = [name for name in inputs if name in frame.columns]
    rows = frame.select(present).iter_rows() if present else ((),) * frame.height
    digests = b"".join(
        hashlib.blake2b(json.dumps(row, default=str).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for row in rows
    )
    return np.frombuffer(digests, dtype="<u8")


def _first_rows(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The rows that are the first with their key, in order."""
    import numpy as np

    return np.sort(np.unique(keys, return_index=True)[1])


def _keyed(frame: pl.DataFrame, keys: NDArray[np.uint64]) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.Series(KEY, keys, dtype=pl.UInt64))


def _jobs(frame: pl.DataFrame, work: Work, keys: NDArray[np.uint64], todo: Sequence[int]) -> Iterator[Job]:
    columns = frame.select([name for name in work.inputs if name in frame.columns])
    for start in range(0, len(todo), work.rows_at_once):
        numbers = todo[start : start + work.rows_at_once]
        yield Job([int(keys[row]) for row in numbers], columns[numbers].to_dicts())


def _clean(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without what JSON cannot hold: numbers that are not finite are missing."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in rows
    ]


def _seen(log: Path, how: str) -> set[int]:
    """Keys of a log. The rest of a line whose writing was cut off is removed."""
    if not log.exists():
        return set()
    seen = set()
    end = 0
    with log.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                seen.add(int(json.loads(line)["key"]))
            except (ValueError, KeyError, TypeError) as error:
                raise SoraError(f"{log} is damaged at byte {end}", hint=f"{how} to throw it away") from error
            end += len(line)
    if end < log.stat().st_size:
        with log.open("r+b") as file:
            file.truncate(end)
    return seen
