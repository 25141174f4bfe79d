"""`sora eval metrics`: videos beside their originals, videos alone, and sets of videos beside each other."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sora_cli import version
from sora_cli.console import counted, get_console
from sora_cli.data.index import file_stamp
from sora_cli.data.scoring import Chosen, choose_scorers, scorer_options
from sora_cli.data.work import REASON, Results, Work, added_columns, do_work, kept_results
from sora_cli.errors import SoraError, UsageError, unknown_name
from sora_cli.files import write_text
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import MetricSpec
from sora_cli.tasks.components import choose_device
from sora_cli.tasks.output import check_free
from sora_cli.weights.locate import locate_parts

from .clip_prompts import read_clip_prompts
from .measures import (
    DEFAULT_METRICS,
    Found,
    check_parts,
    find_measures,
    mean,
    pooled_mean,
    read_weights,
    rounded,
    units_title,
)
from .metrics_work import INPUTS, MADE, Measured, WorkPlace, make_measurer, work_place
from .pairs import Look, Pair, find_videos, pair_up
from .provenance import clip_record, provenance

if TYPE_CHECKING:
    import polars as pl

#: Of videos without originals, those that are installed: none needs weights.
DEFAULT_SINGLE = ("flicker", "sharpness", "motion")
#: A video may take: long enough for the slowest measures on a CPU, and not forever.
SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class MetricsOptions:
    """How videos are measured. metrics: names of measures and scorers; weights: PART=FILE; reference: a folder of
    originals, or one that all have, None to measure videos alone; by_position, fitted: see `pair_up`, `open_together`;
    subset: only the first so many; batch_size: for the mean of Open-Sora's tool, None without it; prompts: a file, see
    `clip_prompts`; seconds: that a video may take.
    """

    metrics: Sequence[str] = ()
    weights: Sequence[str] = ()
    reference: Path | None = None
    by_position: bool = False
    fitted: bool = False
    subset: int | None = None
    batch_size: int | None = None
    prompts: Path | None = None
    look: Look = field(default_factory=Look)
    device: str = "auto"
    threads: int | None = None
    seconds: float = SECONDS


class Tools(NamedTuple):
    """What measures: frame by frame, whole clips, sets of videos. given: part -> file or folder of the user."""

    frames: Mapping[str, Found]
    scorers: Sequence[Chosen]
    sets: Mapping[str, Found]
    weights: Mapping[str, Mapping[str, str]]
    """Name -> part -> fingerprint."""
    given: Mapping[str, str]


@dataclass
class Row:
    """What is known of a video. values: by column; frame_values: of each frame, by measure; reason: why not more; hint:
    what to do about that.
    """

    video: Path
    reference: Path | None = None
    frames: int | None = None
    fps: float | None = None
    size: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    frame_values: dict[str, Tensor] = field(default_factory=dict)
    reason: str | None = None
    hint: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there is any value."""
        return any(value is not None for value in self.values.values())

    def fail(self, error: SoraError) -> None:
        """There is a reason more, unless it is known. Errors name the video first, as the row does."""
        reason = error.message.removeprefix(f"{self.video}: ")
        if self.reason is None:
            self.reason, self.hint = reason, error.hint
        elif reason not in self.reason.split("; "):
            self.reason = f"{self.reason}; {reason}"

    def record(self) -> dict[str, Any]:
        """For the report."""
        about = {"video": str(self.video), "reference": str(self.reference) if self.reference else None}
        shape = {"frames": self.frames, "fps": self.fps, "size": self.size}
        return {**about, **shape, "values": self.values, "reason": self.reason}


def run(places: Sequence[Path], options: MetricsOptions, *, output: Path | None, overwrite: bool) -> None:
    """Measure videos, print a table, and write a report. Raises SoraError when nothing could be measured."""
    if options.reference is None and (options.fitted or options.by_position):
        raise UsageError("--fit and --by-position are about originals", hint="give those with --reference FOLDER")
    pairs, originals = _pairs(places, options)
    if output is not None:
        if output.suffix != ".json":
            raise UsageError(f"--output {output}: the report is a file that ends in .json")
        read = [path for pair in pairs for path in (pair.video, pair.reference) if path is not None]
        check_free([output], [*read, *originals], overwrite=overwrite)
    device = choose_device(options.device)  # type: ignore[arg-type]  # typed by the command
    names = [str(pair.video.resolve()) for pair in pairs]
    prompts = read_clip_prompts(options.prompts, names) if options.prompts is not None else {}
    tools = _tools(options)
    # Sets are compared as sets: that a video has no original of its name counts for measures of pairs alone.
    needs_pairs = any(measure.spec.subject == "pair" for measure in tools.frames.values())
    rows = [Row(pair.video, pair.reference if needs_pairs else None) for pair in pairs]
    for row, pair in zip(rows, pairs, strict=True):
        row.reason = pair.reason if needs_pairs else None
    work = _work(tools, options, device.type)
    with _log(work, output, overwrite=overwrite) as results:
        work = replace(work, options={**work.options, "folder": str(results.folder / "features")})
        with work_place(work, str(device)) as place:
            table = _table(rows, originals, tools, prompts)
            do_work(table, work, place, results, verb="measuring", what="video", goes_on=output is not None)
            made = _fill_in(rows, originals, table, work, results)
            distances = {name: _distance(name, made[: len(rows)], made[len(rows) :], place) for name in tools.sets}
        report = _report(rows, distances, tools, options)
        if output is not None:
            write_text(output, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
            if results.end(keeps=False):
                get_console().note("the same command with --overwrite tries those again that were stopped, no others")
    _show(rows, report, tools)
    if output is not None:
        get_console().note(f"report: {output}")
    if not any(row.is_measured for row in rows) and not any(each["value"] is not None for each in distances.values()):
        raise SoraError(f"of {counted(len(rows), 'video')} none could be measured", hint="the reasons are above")


# -- what is measured, and with what ---------------------------------------------------------------------------------


def _pairs(places: Sequence[Path], options: MetricsOptions) -> tuple[list[Pair], list[Path]]:
    """The videos with their originals, and all originals; the first `subset` of them."""
    videos, reference = find_videos(places), options.reference
    originals = find_videos([reference]) if reference is not None else []
    if reference is None:
        pairs = [Pair(video, None) for video in videos]
    elif reference.is_dir():
        pairs = pair_up(videos, originals, by_position=options.by_position)
    else:
        pairs = [Pair(video, reference) for video in videos]
    return pairs[: options.subset], originals[: options.subset]


def _tools(options: MetricsOptions) -> Tools:
    plugins = get_plugins()
    measures, scorers = _names(options)
    given = read_weights(options.weights)
    parts = {name: set(plugins.get("metric", name).weights) for name in measures}  # type: ignore[attr-defined]
    chosen: list[Chosen] = []
    if scorers:
        for name in scorers:
            parts[name] = set(plugins.get("scorer", name).weights)  # type: ignore[attr-defined]
        files = [f"{name}.{part}={given[part]}" for name in scorers for part in sorted(parts[name] & set(given))]
        chosen = choose_scorers(scorers, {}, files)
    check_parts(given, set().union(*parts.values()))
    weights = {}
    for one in chosen:
        located = locate_parts(one.spec.weights, what=one.spec.name, overrides=given, option="--metric-weights")
        weights[one.spec.name] = {part: each.fingerprint for part, each in located.items()}
    found = find_measures(measures, given)
    sets = {name: measure for name, measure in found.items() if measure.spec.subject == "sets"}
    frames = {name: measure for name, measure in found.items() if name not in sets}
    prints = {**weights, **{name: each.weights for name, each in found.items()}}
    return Tools(frames, chosen, sets, prints, given)


def _names(options: MetricsOptions) -> tuple[list[str], list[str]]:
    """The measures and the scorers that are wanted. Raises UsageError for those that need what is not given."""
    plugins = get_plugins()
    known: dict[str, dict[str, str]] = {
        kind: {word: spec.name for spec in plugins.specs(kind).values() for word in (spec.name, *spec.aliases)}
        for kind in ("metric", "scorer")
    }
    wanted = list(dict.fromkeys(options.metrics)) or _defaults(options)
    for name in wanted:
        if name not in known["metric"] and name not in known["scorer"]:
            see = "sora plugins list --kind metric` and `sora plugins list --kind scorer"
            raise unknown_name("measure", name, [*known["metric"], *known["scorer"]], see=see)
    measures = [known["metric"][name] for name in wanted if name in known["metric"]]
    if options.reference is None:
        for name in measures:
            spec = plugins.get("metric", name)
            assert isinstance(spec, MetricSpec)  # the plugin manager checked it
            if spec.subject != "video":
                raise UsageError(f"{name} compares videos with originals", hint="give those with --reference FOLDER")
    return measures, [known["scorer"][name] for name in wanted if name not in known["metric"]]


def _defaults(options: MetricsOptions) -> list[str]:
    if options.reference is not None:
        return list(DEFAULT_METRICS)
    plugins, found = get_plugins(), []
    for name in DEFAULT_SINGLE:
        spec = plugins.specs("metric").get(name) or plugins.specs("scorer").get(name)
        if spec is not None and (missing := plugins.missing_packages(spec)):
            how = f": pip install 'sora-cli[{spec.extra}]'" if spec.extra else ""
            get_console().note(f"without {name}, which needs {', '.join(missing)}{how}")
        elif spec is not None:
            found.append(name)
    return found


# -- measuring -------------------------------------------------------------------------------------------------------


def _work(tools: Tools, options: MetricsOptions, device: str) -> Work:
    """What is done with each video; without the folder of features."""
    settings = {
        "frames": list(tools.frames),
        "sets": list(tools.sets),
        "scorers": scorer_options(tools.scorers),
        "look": asdict(options.look),
        "fitted": options.fitted,
        "per_frame": options.batch_size is not None,
    }
    given = {"weights": dict(tools.given), "threads": options.threads, "mode": get_console().mode}
    same = {**settings, "weights": tools.weights, "device": device, "sora": version()}
    target = f"{make_measurer.__module__}:{make_measurer.__name__}"
    return Work("metrics", target, {**settings, **given}, INPUTS, {MADE: "str"}, 1, options.seconds, same)


@contextlib.contextmanager
def _log(work: Work, output: Path | None, *, overwrite: bool) -> Iterator[Results]:
    """What was measured, kept beside the report until it is written; without a report in a folder that goes again."""
    with contextlib.ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sora-"))) / "report.json"
        results = stack.enter_context(kept_results(output, work, restart_changed=overwrite, can_restart=False))
        try:
            yield results
        finally:
            if not results.seen:  # of a command that could not begin
                shutil.rmtree(results.folder, ignore_errors=True)


def _table(rows: Sequence[Row], originals: Sequence[Path], tools: Tools, prompts: Mapping[str, str]) -> pl.DataFrame:
    """The columns `INPUTS` of the videos, and for sets of the originals behind them."""
    import polars as pl

    entries: list[tuple[str, str | None, str, str | None, bool, bool]] = []
    for row in rows:
        is_framed = bool(tools.frames) and row.reason is None
        reference = row.reference if is_framed else None
        text = _prompt(row.video, prompts) if tools.scorers else None
        stamp = " ".join(_stamp(path) for path in (row.video, reference) if path is not None)
        original = str(reference) if reference is not None else None
        entries.append((str(row.video), original, stamp, text, is_framed, bool(tools.scorers)))
    if tools.sets:
        entries += [(str(path), None, _stamp(path), None, False, False) for path in originals]
    kinds = (pl.String, pl.String, pl.String, pl.String, pl.Boolean, pl.Boolean)
    return pl.DataFrame(entries, schema=dict(zip(INPUTS, kinds, strict=True)), orient="row")


def _prompt(video: Path, prompts: Mapping[str, str]) -> str | None:
    return prompts.get(str(video.resolve())) or (clip_record(video) or {}).get("prompt")


def _stamp(path: Path) -> str:
    try:
        return file_stamp(str(path))
    except OSError:  # what reads it will say why
        return ""


def _fill_in(
    rows: Sequence[Row], originals: Sequence[Path], table: pl.DataFrame, work: Work, results: Results
) -> list[Measured]:
    """What was measured of each row of the table; put into the rows, and said of the originals."""
    made = []
    for text, why in added_columns(table, work, results).select(MADE, REASON).iter_rows():
        hint = "--time-limit gives a video more seconds"
        made.append(Measured(**json.loads(text)) if why is None else Measured(failed=[(why, hint)]))
    for row, one in zip(rows, made, strict=False):
        row.frames, row.fps, row.size, row.values = one.frames, one.fps, one.size, one.values
        row.frame_values = {
            name: torch.tensor(values, dtype=torch.float64) for name, values in one.frame_values.items()
        }
        for message, advice in one.failed:
            row.fail(SoraError(message, hint=advice))
    for one in made[len(rows) :]:
        for message, _ in one.failed:
            get_console().warn(f"left out of the originals: {message}")
    return made


def _distance(name: str, videos: Sequence[Measured], originals: Sequence[Measured], place: WorkPlace) -> dict[str, Any]:
    """The distance of the two sets, None where there is none, and how many features of how many numbers it is from."""
    ours, theirs = ([one.features[name] for one in each if name in one.features] for each in (videos, originals))
    found = place.distance(name, theirs, ours)
    reason = found.pop("reason")
    if reason is not None:
        get_console().warn(f"{name}: {reason}")
    elif min(found["features"], found["reference_features"]) < found["wanted"]:
        get_console().warn(
            f"{name} of {found['reference_features']} and {found['features']} features says little: it wants "
            f"{found['wanted']} of each set, and depends on how many there are"
        )
    return found


# -- what is said ------------------------------------------------------------------------------------------------------


def _report(rows: Sequence[Row], distances: Mapping[str, Any], tools: Tools, options: MetricsOptions) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    numbers = [name for name in columns if not any(isinstance(row.values.get(name), str) for row in rows)]
    look = options.look
    report: dict[str, Any] = {
        "mean": {name: mean([row.values.get(name) for row in rows]) for name in numbers},
        "measured": sum(row.is_measured for row in rows),
        "videos": [row.record() for row in rows],
    }
    if distances:
        report["sets"] = dict(distances)
    if options.batch_size is not None:
        report["reference_mean"] = _reference_means(rows, tools.frames, options.batch_size)
    report["measures"] = {
        name: {
            "unit": each.spec.unit or None,
            "higher_is_better": each.spec.higher_is_better,
            "subject": each.spec.subject,
        }
        for name, each in {**tools.frames, **tools.sets}.items()
    } | {one.spec.name: {"scorer": True, "columns": list(one.columns)} for one in tools.scorers}
    report["weights"] = {name: dict(parts) for name, parts in tools.weights.items() if parts}
    report["options"] = {
        "reference": str(options.reference) if options.reference else None,
        "pairs": "by position" if options.by_position else "by name",
        "fit": options.fitted,
        "subset": options.subset,
        "batch_size": options.batch_size,
        **{name: getattr(look, name) for name in ("frames", "sample_rate", "fps", "resolution", "crop")},
    }
    report["versions"] = {"sora": version(), "torch": torch.__version__}
    report["made"] = provenance([row.video for row in rows])
    return report


def _reference_means(rows: Sequence[Row], measures: Mapping[str, Found], batch_size: int) -> dict[str, float | None]:
    """As Open-Sora's tool takes the mean; None, with a warning, where it could not."""
    found: dict[str, float | None] = {}
    for name in measures:
        values = [row.frame_values[name] for row in rows if len(row.frame_values.get(name, ()))]
        try:
            found[name] = pooled_mean(values, batch_size) if values else None
        except ValueError as error:
            get_console().warn(f"no mean of {name} as Open-Sora's tool takes it: {error}")
            found[name] = None
    return found


def _show(rows: Sequence[Row], report: Mapping[str, Any], tools: Tools) -> None:
    console = get_console()
    for row in rows:
        if row.reason is not None:
            console.warn(row.reason if row.reason.startswith(f"{row.video} ") else f"{row.video}: {row.reason}")
    for hint in dict.fromkeys(row.hint for row in rows if row.hint is not None):
        console.note(f"  {hint}")
    if console.mode == "json":
        console.record(report)
        return
    sets = {name: each["value"] for name, each in report.get("sets", {}).items()}
    if console.mode == "quiet":
        console.record({**report["mean"], **sets})
        return
    if report["measured"]:
        shown = [
            {"video": row.video.name, "frames": row.frames, "size": row.size, **row.values}
            for row in rows
            if row.is_measured
        ]
        shown.append({"video": f"mean of {report['measured']}", **report["mean"]})
        if "reference_mean" in report:
            shown.append({"video": "mean by batches", **report["reference_mean"]})
        shape = ["frames", "size"] if tools.frames else []
        names = dict.fromkeys(name for row in rows for name in row.values)
        console.table([rounded(row) for row in shown], ["video", *shape, *names], units_title(tools.frames))
    if sets:
        lines = [rounded({"sets": name, "distance": each["value"], **each}) for name, each in report["sets"].items()]
        console.table(lines, ["sets", "distance", "features", "reference_features", "wanted"])
