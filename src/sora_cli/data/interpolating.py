"""`sora data interpolate`: videos of a table at a multiple of their frame rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import InterpolatorSpec

from .addresses import at_hand
from .clip_folder import ClipFolder
from .index import PROBED, STAMP, made_stamp
from .run import StepOptions, check_files, removed_partials, run_step
from .timestamps import file_name
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl

FACTS = ("num_frames", "fps", "duration", "height", "width", "aspect_ratio", "resolution")
COLUMNS = {
    "path": "str",
    "relpath": "str",
    "interpolated_from": "str",
    **{name: PROBED[name] for name in FACTS},
    STAMP: "str",
}


def run_interpolate(
    frame: pl.DataFrame,
    step: StepOptions,
    *,
    method: str,
    weights: Mapping[str, str],
    doublings: int,
    clips: str,
) -> None:
    """Write videos with new frames between theirs, and the table of them. Raises SoraError."""
    plugins = get_plugins()
    spec = plugins.get("interpolator", method)
    assert isinstance(spec, InterpolatorSpec)
    plugins.check_installed(spec)
    if not step.dry_run:
        _locate(spec, weights)
    names = [file_name(row) for row in frame.iter_rows(named=True)]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise UsageError(f"several videos would be written as {twice}", hint="`sora data index` writes column relpath")
    folder = ClipFolder.at(clips)
    check_files(folder.files_like(names), frame, step)
    settings = {
        "method": spec.name,
        "weights": dict(weights),
        "doublings": doublings,
        "clips": folder.place,
    }
    work = Work(
        "interpolate", f"{__name__}:make_worker", settings, ("path", STAMP, "relpath"), COLUMNS, 1, step.seconds
    )
    without = ("codec", "rotation", "filesize")
    with removed_partials(folder, names, step):
        run_step(frame, work, step, verb="interpolating", bad="drop", gives_rows=True, without=without)


def _locate(spec: InterpolatorSpec, weights: Mapping[str, str]) -> dict[str, Any]:
    from sora_cli.weights.locate import locate_parts

    return locate_parts(spec.weights, what=spec.name, overrides=weights, option="--weights")


def make_worker(settings: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of the step."""
    from .interpolation import interpolate_file

    plugins = get_plugins()
    spec = plugins.get("interpolator", settings["method"])
    assert isinstance(spec, InterpolatorSpec)
    interpolator = plugins.load_target(spec)(_locate(spec, settings["weights"]), device)
    folder, doublings = ClipFolder(settings["clips"]), settings["doublings"]

    def work(row: Row) -> Made:
        from .probe import probe

        name = file_name(row)
        with at_hand(row["path"]) as file, folder.new_file(name) as path:
            count = interpolate_file(Path(file), path, interpolator, doublings)
            facts = probe(path, fast=True)
        made = {"path": folder.path(name), "relpath": name, "interpolated_from": row["path"]}
        stamp = made_stamp(row, settings["method"], settings["weights"], doublings)
        return Made([{**made, **{name: facts[name] for name in FACTS}, "num_frames": count, STAMP: stamp}])

    return lambda rows: [work(row) for row in rows]
