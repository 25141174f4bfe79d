"""One step of `sora data` from its table to its output: checks, work, what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sora_cli.console import get_console
from sora_cli.errors import SoraError

from .local import LocalEngine
from .tables import WRITTEN_SUFFIXES, check_output, write_table
from .work import REASON, Engine, Work, added_columns, do_work, new_rows, open_results

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class StepOptions:
    """How a step runs. workers: processes, None for one per core; gpus: one process each instead; seconds: a row may
    take; restart: throw away what an interrupted run did.
    """

    output: Path
    workers: int | None = None
    gpus: int = 0
    seconds: float = 600.0
    restart: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def devices(self, rows: int) -> tuple[str, ...]:
        """The device of each worker, not more than there are rows."""
        if self.gpus:
            return tuple(f"cuda:{index}" for index in range(self.gpus))
        return ("cpu",) * max(1, min(self.workers or available_cores(), rows))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_step(
    frame: pl.DataFrame,
    work: Work,
    options: StepOptions,
    *,
    verb: str,
    bad: Literal["keep", "drop"],
    engine: Engine | None = None,
    gives_rows: bool = False,
) -> None:
    """Do the work on a table, write the output, list the rows that failed beside it, and print its path.

    verb: "probing", for the progress line. bad: what becomes of rows that failed. gives_rows: whether the work makes
    rows of a row, not columns. Raises SoraError when no row succeeds.
    """
    console = get_console()
    output = options.output
    check_output(str(output), overwrite=options.overwrite)
    if options.dry_run:
        console.note(f"dry run: {verb} {frame.height} rows; would write {output}")
        console.table(frame.head(20).to_dicts(), frame.columns, title=f"the first of {frame.height} rows")
        return
    results = open_results(output, work, restart=options.restart)
    do_work(frame, work, engine or LocalEngine(options.devices(frame.height)), results, verb=verb)
    made, failed = (new_rows if gives_rows else _added)(frame, work, results)
    listed = bad_path(output)
    if failed.height:
        write_table(failed.select("path", error=REASON), listed, overwrite=True)
        console.warn(f"{failed.height} of {frame.height} rows failed; they are listed in {listed}")
    else:
        listed.unlink(missing_ok=True)  # of an earlier run
    if frame.height and failed.height == frame.height:
        raise SoraError(f"none of the {frame.height} rows succeeded, so {output} is not written")
    if not gives_rows and bad == "drop":
        made = made.filter(made[REASON].is_null())
    write_table(made.drop(REASON, strict=False), output, overwrite=options.overwrite)
    results.remove()
    record = {"path": str(output), "rows": made.height, "from_rows": frame.height, "bad": failed.height}
    console.result(output, {**record, "bad_rows": str(listed)} if failed.height else record)


def bad_path(output: Path) -> Path:
    """The list of rows that failed, beside an output."""
    name = next(output.name[: -len(suffix)] for suffix in WRITTEN_SUFFIXES if output.name.lower().endswith(suffix))
    return output.with_name(f"{name}.bad.csv")


def _added(frame: pl.DataFrame, work: Work, results: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    made = added_columns(frame, work, results)
    return made, made.filter(made[REASON].is_not_null())
