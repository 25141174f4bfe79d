"""`sora data cut`: videos to scenes, scenes to clips."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.plugin.protocols import Cutter
from sora_cli.plugin.specs import DataToolSpec

from .addresses import at_hand
from .clip_folder import ClipFolder
from .clip_writer import ClipFormat, write_clips
from .index import STAMP, made_stamp
from .scene_agreement import both, either
from .timestamps import Scene, SceneRules, clip_name, file_name, format_scenes, parse_scenes, segments
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl

    from .run import StepOptions

Agreement = Literal["either", "both"]
TIMESTAMP = "timestamp"
CLIP_COLUMNS = {
    "path": "str",
    "id": "str",
    "relpath": "str",
    "source": "str",
    "source_id": "str",
    "scene": "int",
    "start": "float",
    "duration": "float",
    "num_frames": "int",
    "fps": "float",
    "height": "int",
    "width": "int",
    "aspect_ratio": "float",
    "resolution": "int",
    "copied": "bool",
    STAMP: "str",
}
#: Columns of a video that are not true of its clips.
OF_THE_WHOLE = (TIMESTAMP, "codec", "rotation", "filesize")
#: What `Segment.name` adds, as a regular expression.
SCENE_NAME = r"_scene-\d+(?:-\d+)?"


@dataclasses.dataclass(frozen=True)
class CutOptions:
    """How videos are cut. cutters: names of scene detectors with their options, none to take the table's own scenes, or
    whole videos where it has none; agree: whether scenes are cut where all or where any of them do; clips: folder to
    write, here or in a store, None to find scenes only.
    """

    cutters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    agree: Agreement = "either"
    clips: ClipFolder | None = None
    rules: SceneRules = dataclasses.field(default_factory=SceneRules)
    form: ClipFormat = dataclasses.field(default_factory=ClipFormat)

    @classmethod
    def checked(
        cls,
        cutter: str | None,
        options: Sequence[str],
        *,
        agree: Agreement = "either",
        clips: str | None,
        rules: SceneRules,
        form: Mapping[str, Any],
    ) -> CutOptions:
        """From what a user typed: detectors as NAME or NAME,NAME, options as KEY=VALUE, of several NAME.KEY=VALUE, form
        as keywords of `ClipFormat`. Raises SoraError."""
        from sora_cli.config.layers import option_pairs

        given = option_pairs(options, example="threshold=3")
        names = [] if cutter is None else [name.strip() for name in cutter.split(",")]
        if given and cutter is None:
            raise UsageError("the table's own scenes have no options", hint="leave -O out, or choose a detector")
        if cutter is None and clips is None:
            raise UsageError("there is nothing to do", hint="give a detector, or --clips to cut the table's scenes")
        if rules.min_seconds and rules.max_seconds and rules.min_seconds > rules.max_seconds:
            raise UsageError(f"--min-seconds {rules.min_seconds:g} is more than --max-seconds {rules.max_seconds:g}")
        cutters = _complete(names, given)
        return cls(cutters, agree, ClipFolder.at(clips) if clips else None, rules, ClipFormat(**form))


def _complete(names: Sequence[str], given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Detectors by their true names, with all their options. given: those of the user. Raises SoraError."""
    from sora_cli.config.checks import complete_options

    plugins = get_plugins()
    specs = [spec for spec in (plugins.get("cutter", name) for name in names) if isinstance(spec, DataToolSpec)]
    several = len(specs) > 1
    of_each: dict[str, dict[str, Any]] = {spec.name: {} for spec in specs}
    for key, value in given.items():
        name, _, own = key.rpartition(".") if several else (specs[0].name, "", key)
        if name not in of_each:
            raise UsageError(f"-O {key}: whose option is it?", hint=f"say -O {specs[0].name}.{own}={value}")
        of_each[name][own] = value
    complete: dict[str, Mapping[str, Any]] = {}
    for spec in specs:
        plugins.check_installed(spec)
        wanted = of_each[spec.name]
        origins = dict.fromkeys(wanted, "flag")
        complete[spec.name] = complete_options(spec.options, wanted, f"detector {spec.name}", origins)
    return complete


def detect_work(options: CutOptions, seconds: float) -> Work:
    """Find scenes."""
    return Work("cut", f"{__name__}:make_detector", _json(options), ("path", STAMP), {TIMESTAMP: "str"}, 1, seconds)


def cut_work(options: CutOptions, seconds: float) -> Work:
    """Find scenes, or take those of the table, and write the clips."""
    inputs = ("path", STAMP, "id", "relpath", *(() if options.cutters else (TIMESTAMP,)))
    return Work("cut", f"{__name__}:make_cutter", _json(options), inputs, CLIP_COLUMNS, 1, seconds)


def run_cut(frame: pl.DataFrame, options: CutOptions, step: StepOptions) -> None:
    """Cut the videos of a table, or find their scenes."""
    from .run import check_files, removed_partials, run_step

    if options.clips is None:
        work = detect_work(options, step.seconds)
        run_step(frame, work, step, verb="finding the scenes of", bad="drop")
        return
    if not options.cutters and TIMESTAMP not in frame.columns:
        get_console().note("the table has no column timestamp, so whole videos are written")
    stems = check_names(frame)
    check_files(options.clips.files_like(stems, SCENE_NAME), frame, step)
    work = cut_work(options, step.seconds)
    with removed_partials(options.clips, stems, step, ending=SCENE_NAME):
        run_step(frame, work, step, verb="cutting", bad="drop", gives_rows=True, without=OF_THE_WHOLE)


def check_names(frame: pl.DataFrame) -> list[str]:
    """The names of all videos' clips, without what `Segment.name` adds to each.

    Raises UsageError when clips of two videos would have one name.
    """
    names: dict[str, list[str]] = defaultdict(list)
    stems: list[str] = []
    columns = [name for name in ("path", "relpath") if name in frame.columns]
    for row in frame.select(columns).unique(maintain_order=True).iter_rows(named=True):
        name = file_name(row)
        stems.append(name)
        names[name.lower()].append(row["path"])
    clash = next((paths for paths in names.values() if len(paths) > 1), None)
    if clash:
        raise UsageError(
            f"clips of {clash[0]} and of {clash[1]} would have one name",
            hint="`sora data index` writes the column relpath, which keeps their folders apart",
        )
    return stems


def make_detector(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `detect_work`."""
    find = _finder(options, device)
    return lambda rows: [Made([{TIMESTAMP: format_scenes(find(row["path"]))}]) for row in rows]


def make_cutter(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `cut_work`."""
    find = _finder(options, device) if options["cutters"] else None
    rules, form = SceneRules(**options["rules"]), ClipFormat(**options["form"])
    folder = ClipFolder(options["clips"])

    def cut(row: Row) -> Made:
        if find is not None:
            scenes = find(row["path"])
        elif TIMESTAMP in row:
            parsed = parse_scenes(row[TIMESTAMP])
            if parsed is None:
                return Made(reason=f"its scenes are not a list of pairs of times: {str(row[TIMESTAMP])[:80]}")
            scenes = parsed
        else:
            scenes = None
        wanted = [(segment, clip_name(row, segment)) for segment in segments(scenes, rules)]
        with at_hand(row["path"]) as file:
            made = write_clips(file, wanted, folder, form)
        name = row.get("id") or Path(row["path"]).stem
        return Made(
            [
                {
                    "path": folder.path(relpath),
                    "id": f"{name}{segment.name}",
                    "relpath": relpath,
                    "source": row["path"],
                    "source_id": name,
                    "scene": segment.index,
                    "start": facts.start,
                    "duration": facts.duration,
                    "num_frames": facts.num_frames,
                    "fps": facts.fps,
                    "height": facts.height,
                    "width": facts.width,
                    "aspect_ratio": facts.height / facts.width,
                    "resolution": facts.height * facts.width,
                    "copied": facts.is_copy,
                    STAMP: made_stamp(row, segment.start, segment.end, options["form"]),
                }
                for (segment, relpath), facts in zip(wanted, made, strict=True)
                if facts is not None
            ]
        )

    return lambda rows: [cut(row) for row in rows]


def _finder(options: Mapping[str, Any], device: str) -> Callable[[str], list[Scene]]:
    """What finds the scenes of a file."""
    cutters = [load_cutter(name, own, device) for name, own in options["cutters"].items()]
    if len(cutters) == 1:
        return functools.partial(find_scenes, cutters[0])
    combined = {"either": either, "both": both}[options["agree"]]
    return lambda path: combined([find_scenes(cutter, path) for cutter in cutters])


def find_scenes(cutter: Cutter, path: str) -> list[Scene]:
    """Scenes of a video, the whole of it when there is no cut. Raises SoraError when it cannot be read."""
    from .analysis import analyse

    with at_hand(path) as file, analyse(file, cutter.frame_size, is_rough=cutter.is_rough) as analysis:
        scenes = cutter.scenes(analysis.frames, float(analysis.fps))
        times = [*analysis.times, analysis.end]
    return [(times[first], times[last]) for first, last in scenes]


def load_cutter(name: str, options: Mapping[str, Any], device: str) -> Cutter:
    """A scene detector by name, with its own options. Raises SoraError for one that cannot be used."""
    plugins = get_plugins()
    spec = plugins.get("cutter", name)
    assert isinstance(spec, DataToolSpec)
    own = load_attribute(spec.options, what=name)(**options) if spec.options else None
    cutter: Cutter = plugins.load_target(spec)({}, device, own)
    return cutter


def _json(options: CutOptions) -> dict[str, Any]:
    return {**dataclasses.asdict(options), "clips": options.clips.place if options.clips else None}
