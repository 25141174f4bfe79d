"""`sora data filter`: tables in, operations, one table or several shards out, and how many rows each step dropped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.console import Console, get_console
from sora_cli.errors import UsageError
from sora_cli.video.io import write_failed

from .addresses import is_address
from .operations import BOUNDS, FilterOptions, make_steps
from .row_map import RowMap
from .steps import Step, Tally, apply_steps
from .tables import (
    WRITTEN_SUFFIXES,
    batches_of,
    check_output,
    only_folder,
    real_place,
    scan_tables,
    table_places,
    warn_of_relative,
    write_table,
)

if TYPE_CHECKING:
    import polars as pl

#: Suffixes of the reference's output names, in its order: option -> text, or that of the value.
SUFFIXES = {
    "sort": "_sort",
    "sort_ascending": "_sort",
    "info": "_info",
    "video_info": "_vinfo",
    "ext": "_ext",
    "load_caption": "_load{}",
    "relpath": "_relpath",
    "abspath": "_abspath",
    "remove_empty_path": "_noemptypath",
    "remove_empty_caption": "_noempty",
    "remove_url": "_nourl",
    "lang": "_{}",
    "remove_path_duplication": "_noduppath",
    "remove_text_duplication": "_noduptext",
    "path_subset": "_subset",
    "refine_llm_caption": "_llm",
    "clean_caption": "_clean",
    "merge_cmotion": "_cmcaption",
    "count_num_token": "_ntoken",
    "append_text": "_appendtext",
    "score_to_text": "_score2text",
    "update_text": "_update",
    "filesize": "_filesize",
    **{name: f"_{name}{{}}" for name in BOUNDS},
    "img_only": "_img",
    "vid_only": "_vid",
    "shuffle": "_shuffled_seed{seed}",
    "head": "_first_{}_data",
}


def run_filter(
    tables: Sequence[str],
    output: str | None,
    options: FilterOptions,
    *,
    has_header: bool = True,
    reference_name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    seconds: float = 600.0,
) -> None:
    """Filter tables and print what was dropped. output: a table; reference_name: or the kind of one, csv or parquet,
    that is named as the reference does it; dry_run: only count; seconds: that a file may take. Raises UsageError for
    outputs that exist or are inputs.
    """
    places = table_places(tables)
    outputs = [] if dry_run and not (output or reference_name) else _outputs(places, output, reference_name, options)
    for path in outputs:
        check_output(path, overwrite=overwrite)
    if reference_name and not {real_place(path) for path in outputs}.isdisjoint(real_place(place) for place in places):
        raise UsageError(f"the reference's name for this is that of the input, {outputs[0]}", hint="give --output")
    if options.root is None:
        options = replace(options, root=only_folder(places))
    console = get_console()
    with RowMap(workers, seconds=seconds) as rows:
        steps = make_steps(options, rows)
        names = [*places, *outputs]
        only_csv = all(".csv" in Path(name).name.lower() for name in names)
        # In CSV, what no step reads as a number stays as it is written.
        numbers = {name for step in steps for name in step.numbers} if only_csv else None
        frame = scan_tables(tables, numbers=numbers, has_header=has_header)
        tally = Tally.of(steps)
        result = apply_steps(frame, steps, tally, count_all=dry_run)
        tally.total = _height(frame) if console.mode != "quiet" else None
        with console.progress("filter", tally.total or 0) as progress:
            tally.read = progress.update
            _write(result, outputs, tally, overwrite=overwrite, dry_run=dry_run)
    _report(console, steps, tally, [] if dry_run else outputs)
    if not dry_run and options.relpath is None and options.abspath is None:
        warn_of_relative(places, outputs)


def reference_stem(places: Sequence[str], options: FilterOptions) -> str:
    """The name, without suffix, that the reference's table tool gives to the result, in the first input's folder."""
    stems = "+".join(Path(place).name.split(".")[0] for place in places)
    if options.difference:
        stems += f"-{Path(options.difference).name.split('.')[0]}"
    parts = []
    for name, suffix in SUFFIXES.items():
        value = getattr(options, name)
        if value is not None and value is not False and not (name == "sort_ascending" and options.sort):
            parts.append(suffix.format(value, seed=options.seed))
    folder, slash, _ = places[0].rpartition("/")
    return f"{folder}{slash}{stems}{''.join(parts)}"


def shard_names(path: str, count: int) -> list[str]:
    """The names of parts of a table: t.csv -> t_0.csv, t_1.csv ..."""
    suffix = next(end for end in sorted(WRITTEN_SUFFIXES, key=len, reverse=True) if path.lower().endswith(end))
    return [f"{path[: -len(suffix)]}_{index}{path[-len(suffix) :]}" for index in range(count)]


def _outputs(places: Sequence[str], output: str | None, kind: str | None, options: FilterOptions) -> list[str]:
    if output and kind:
        raise UsageError("--output and --reference-name both name the result", hint="give one of them")
    if not output and not kind:
        raise UsageError("it is not said where the result goes", hint="give --output TABLE, or --dry-run to count only")
    path = output or f"{reference_stem(places, options)}.{kind}"
    check_output(path, overwrite=True)
    return shard_names(path, options.shard) if options.shard else [path]


def _height(frame: pl.LazyFrame) -> int:
    import polars as pl

    return int(frame.select(pl.len()).collect().item())


def _write(frame: pl.LazyFrame, outputs: Sequence[str], tally: Tally, *, overwrite: bool, dry_run: bool) -> None:
    if dry_run:
        for _ in batches_of(frame):
            pass
    elif len(outputs) == 1:
        write_table(frame, outputs[0], overwrite=overwrite)
    else:
        _write_shards(frame, outputs, tally, overwrite=overwrite)


def _write_shards(frame: pl.LazyFrame, outputs: Sequence[str], tally: Tally, *, overwrite: bool) -> None:
    """Rows in order; the first (rows mod shards) shards have one more. How many there are is known at the end only."""
    import polars as pl

    first = Path("shards" if is_address(outputs[0]) else outputs[0])
    whole = first.with_name(f".{first.name}.{os.getpid()}.rows")
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        frame.sink_ipc(whole)
        size, more = divmod(tally.rows[-1], len(outputs))
        start = 0
        for index, path in enumerate(outputs):
            count = size + (index < more)
            write_table(pl.scan_ipc(whole).slice(start, count), path, overwrite=overwrite)
            start += count
    except OSError as error:
        raise write_failed(whole, error) from error
    finally:
        whole.unlink(missing_ok=True)


def _report(console: Console, steps: Sequence[Step], tally: Tally, outputs: Sequence[str]) -> None:
    rows: list[dict[str, Any]] = [{"step": "read", "rows": tally.after(0), "dropped": None}]
    for index, step in enumerate(steps, 1):
        before, after = tally.after(index - 1), tally.after(index)
        # A join may also add rows.
        dropped = None if before is None or after is None else before - after
        rows.append({"step": step.name, "rows": after, "dropped": dropped})
    if console.mode == "json":
        console.record({"outputs": list(outputs), "rows": tally.rows[-1], "steps": rows})
    else:
        if console.mode == "human":
            console.table(rows, ["rows", "dropped", "step"])
        for path in outputs:
            console.result(path)
    if tally.first_complete:
        console.note("reading stopped when --head had its rows; --dry-run counts what the steps before it drop")
    if not tally.rows[-1]:
        console.warn("no row is left")
