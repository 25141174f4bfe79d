"""One step of `sora data` from its table to its output: checks, work, what came of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sora_cli.console import counted, get_console
from sora_cli.errors import SoraError, UsageError

from .addresses import check_store, is_address
from .clip_folder import ClipFolder
from .local import LocalEngine, available_cores
from .tables import WRITTEN_SUFFIXES, check_output, real_place, scan_tables, table_places, write_table
from .work import REASON, Engine, Results, Work, added_columns, do_work, kept_results, new_rows, work_folder

if TYPE_CHECKING:
    import polars as pl


def open_rows(tables: Sequence[str], root: Path | None = None) -> pl.DataFrame:
    """The rows of tables, with paths made absolute. root: folder of relative paths, None for that of each table.

    Raises UsageError for tables without a column path, rows without one, and paths out of the folder.
    """
    import polars as pl

    parts = []
    for place in table_places(tables):
        part = scan_tables([place]).collect()
        if "path" not in part.columns:
            raise UsageError(f"{place} has no column path", hint=f"its columns: {', '.join(part.columns)}")
        folder = Path(root).expanduser() if root is not None else Path(place).parent
        folder = folder.resolve() if not is_address(place) or root is not None else Path.cwd()
        paths = [_absolute(folder, path, f"{place}, row {row + 1}") for row, path in enumerate(part["path"])]
        parts.append(part.with_columns(pl.Series("path", paths, dtype=pl.String)))
    return pl.concat(parts, how="diagonal_relaxed")


def _absolute(folder: Path, path: str | None, where: str) -> str:
    if not path:
        raise UsageError(f"{where}: the path is empty", hint="`sora data filter --remove-empty-path` leaves it out")
    if is_address(path):
        check_store(path)
        return path
    if os.path.isabs(path):
        return path
    joined = os.path.normpath(folder / path)
    if not Path(joined).is_relative_to(folder):
        raise UsageError(f"{where}: the path {path} leads out of {folder}", hint="name the folder with --root")
    return joined


@dataclass(frozen=True)
class StepOptions:
    """How a step runs. workers: processes, None for one per core; gpus: one process each instead; seconds: a row may
    take; restart: throw away what an interrupted run did; restart_changed: only where that had other settings;
    keep_log: for a later run; engine: "local" or "ray"; address: of a Ray cluster.
    """

    output: Path
    workers: int | None = None
    gpus: int = 0
    seconds: float = 600.0
    restart: bool = False
    restart_changed: bool = False
    keep_log: bool = False
    overwrite: bool = False
    dry_run: bool = False
    engine: str = "local"
    address: str | None = None

    def make_engine(self, rows: int) -> Engine:
        """What does the work. Raises UsageError for settings that do not go together."""
        if self.engine == "ray":
            from .ray_engine import RayEngine

            return RayEngine(self.address, self.gpus or self.workers, gpus=self.gpus > 0)
        if self.address is not None:
            raise UsageError("an address is that of a Ray cluster", hint="give --engine ray too")
        return LocalEngine(self.devices(rows))

    def devices(self, rows: int) -> tuple[str, ...]:
        """The device of each worker, not more than there are rows."""
        if self.gpus:
            return tuple(f"cuda:{index}" for index in range(self.gpus))
        return ("cpu",) * max(1, min(self.workers or available_cores(), rows))


def run_step(
    frame: pl.DataFrame,
    work: Work,
    options: StepOptions,
    *,
    verb: str,
    bad: Literal["keep", "drop"],
    gives_rows: bool = False,
    without: Sequence[str] = (),
    engine: Engine | None = None,
    amend: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    finish: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    report: Callable[[Results], Mapping[str, Any]] | None = None,
) -> None:
    """Do the work on a table, write the output, list the rows that failed beside it, and print its path.

    verb: "probing", for the progress line. bad: what becomes of rows that failed. gives_rows: whether the work makes
    rows of a row, not columns; without: columns that are not taken over. engine: instead of that of the options.
    amend: changes to new columns, which may give rows a `REASON`; finish: what is done with the table last. report:
    says what the work took, also when it is interrupted, and gives it for the record. Raises SoraError when no row
    succeeds.
    """
    console = get_console()
    output = options.output
    check_output(str(output), overwrite=options.overwrite)
    if options.dry_run:
        console.note(f"dry run: {verb} {counted(frame.height, 'row')}; would write {output}")
        console.table(frame.head(20).to_dicts(), frame.columns, title=f"the first of {counted(frame.height, 'row')}")
        return
    with kept_results(
        output,
        work,
        restart=options.restart,
        restart_changed=options.restart_changed,
        overwrite=options.overwrite,
    ) as results:
        said: Mapping[str, Any] = {}
        try:
            do_work(frame, work, engine or options.make_engine(frame.height), results, verb=verb)
        finally:
            if report is not None:
                said = report(results)
        made, failed = _replaced(frame, work, results) if gives_rows else _added(frame, work, results, amend)
        listed = _list_failed(failed, frame.height, output)
        if frame.height and failed.height == frame.height:
            again = results.end(keeps=options.keep_log)
            raise SoraError(
                f"of {counted(frame.height, 'row')} none succeeded, so {output} is not written",
                hint="once the cause is mended, the same command tries them again" if again else None,
            )
        if not gives_rows and bad == "drop":
            made = made.filter(made[REASON].is_null())
        made = made.drop(REASON, *without, strict=False)
        if finish is not None:
            made = finish(made)
        write_table(made, output, overwrite=options.overwrite)
        if results.end(keeps=options.keep_log):
            how = "`sora data run --retry-failed`" if options.restart_changed else "the same command with --overwrite"
            console.note(f"{how} tries the rows that failed again, and no others")
        record = {"path": str(output), "rows": made.height, "from_rows": frame.height, "bad": failed.height, **said}
        console.result(output, {**record, "bad_rows": str(listed)} if failed.height else record)


def _list_failed(failed: pl.DataFrame, count: int, output: Path) -> Path:
    """Write the rows that failed, of `count`, beside the output, or remove the list of an earlier run; its path."""
    listed = bad_path(output)
    if failed.height:
        write_table(failed.select("path", error=REASON), listed, overwrite=True)
        get_console().warn(f"{failed.height} of {counted(count, 'row')} failed, listed in {listed}")
    else:
        listed.unlink(missing_ok=True)
    return listed


@contextlib.contextmanager
def removed_partials(
    folder: ClipFolder, names: Sequence[str], options: StepOptions, *, ending: str = ""
) -> Iterator[None]:
    """Leave nothing half written in the folder; see `ClipFolder.remove_partials`."""
    if options.dry_run:
        yield
        return
    folder.remove_partials(names, ending)  # of a run that was killed
    try:
        yield
    finally:
        folder.remove_partials(names, ending)  # of processes that were stopped


def check_files(there: Iterable[str], frame: pl.DataFrame, options: StepOptions) -> None:
    """Raise UsageError when files would be lost. there: those that a step may write and that exist.

    Videos of the table are never replaced; others are where the user wants it, or where they are of a run that goes on.
    """
    is_ours = options.overwrite or options.restart or work_folder(options.output).exists()
    sources: set[str] | None = None
    for path in there:
        if sources is None:
            sources = {real_place(source) for source in frame["path"]}
        if real_place(path) in sources:
            raise UsageError(f"{path} is in the table, and would be overwritten", hint="--clips names another folder")
        if not is_ours:
            raise UsageError(f"{path} exists already", hint="name another folder with --clips, or give --overwrite")


def bad_path(output: Path) -> Path:
    """The list of rows that failed, beside an output."""
    name = next(output.name[: -len(suffix)] for suffix in WRITTEN_SUFFIXES if output.name.lower().endswith(suffix))
    return output.with_name(f"{name}.bad.csv")


def _replaced(frame: pl.DataFrame, work: Work, results: Results) -> tuple[pl.DataFrame, pl.DataFrame]:
    made, failed, empty = new_rows(frame, work, results)
    if empty.height:
        get_console().note(
            f"{empty.height} of {counted(frame.height, 'video')} without a clip, such as {empty['path'][0]}"
        )
    return made, failed


def _added(
    frame: pl.DataFrame, work: Work, results: Results, amend: Callable[[pl.DataFrame], pl.DataFrame] | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    made = added_columns(frame, work, results)
    if amend is not None:
        made = amend(made)
    return made, made.filter(made[REASON].is_not_null())
