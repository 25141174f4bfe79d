"""`sora eval loss`: the mean training loss of clips by size, length and time, as a file, a table and a chart."""

from __future__ import annotations

import contextlib
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli import version
from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.files import write_text
from sora_cli.launch.torchrun import follow_run, launch_line
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import ModelSpec
from sora_cli.tasks.chosen import text_dtype_of
from sora_cli.tasks.output import prepare_folders
from sora_cli.tasks.records import options_record, parts_record
from sora_cli.tasks.train_plan import TABLE_CACHE, TrainPlan, plan_of_process, plan_train, process_content
from sora_cli.training.source import ClipSource
from sora_cli.video.shapes import is_accepted
from sora_cli.weights.lora import locate_lora

from .chart import line_chart
from .loss_buckets import LossBucket, bucket_config, loss_batches, loss_buckets
from .loss_logs import table_text, tabulate

if TYPE_CHECKING:
    from sora_cli.launch.mesh import Team
    from sora_cli.weights.lora import LocatedLora

#: Settings of the data that change a loss; what is in a bucket does so too, and is the same for the same table.
OF_DATA = (
    *("transform", "frame_interval", "exact_stride", "fps_condition", "aspect_condition"),
    *("score_captions", "score_drop", "reader"),
)
COLUMNS = ("resolution", "frames", "clips", "unreadable", "loss")
DIGITS = 4
CHART = ".svg"


@dataclass(frozen=True)
class LossOptions:
    """What is not among the settings of training. times: how many; reference: measure as the reference does.

    rows, start, end, most: see `loss_buckets`; only: the buckets instead of a table; loras: adapters, as text.
    """

    times: int = 10
    reference: bool = False
    rows: Sequence[str] = ()
    start: int = 0
    end: int | None = None
    most: int | None = None
    only: Sequence[LossBucket] = ()
    loras: Sequence[str] = ()


def run(resolved: ResolvedTrain, output: Path | None, options: LossOptions, *, overwrite: bool = False) -> None:
    """Measure what is not in the result yet, write it, and print its table.

    output: JSON file, by default outputs/eval-loss-<model>.json; the chart lies beside it. Raises SoraError for what
    cannot be measured, and UsageError where a result of other settings is in the way.
    """
    console, plugins = get_console(), get_plugins()
    if not resolved.config.data.tables:
        raise UsageError("no table of clips is given", hint="example: sora eval loss clips.csv")
    if options.reference and resolved.config.hardware.gpus > 1:
        raise UsageError(
            "--reference draws noise in the order of one process", hint="leave --gpus out, or leave --reference out"
        )
    model = plugins.get("model", resolved.config.model.name)
    assert isinstance(model, ModelSpec)  # the plugin manager checked it
    buckets, notes = _wanted(resolved, options, model)
    resolved = replace(resolved, config=_measuring(resolved.config, buckets, options))
    output = output or Path("outputs") / f"eval-loss-{model.name}.json"
    if output.suffix == CHART or output.is_dir():
        what = "is a folder" if output.is_dir() else "is a name for the chart"
        raise UsageError(f"{output} {what}", hint="-o takes the name of a JSON file; the chart lies beside it")
    with tempfile.TemporaryDirectory(prefix="sora-") as place:
        cache = Path(place) / TABLE_CACHE
        plan = plan_train(resolved, plugins, cache=cache, advice="give the weights to measure with --weights")
        if not isinstance(plan.source, ClipSource):
            raise UsageError("these are features, which have no pixels", hint="give the table they were made of")
        for note in (*notes, *plan.notes):
            console.note(note)
        loras = [locate_lora(text, raw=plan.config.model.raw) for text in options.loras]
        store = LossStore(output, measured_with(plan, options, loras, buckets))
        store.open(overwrite=overwrite, resumes=not options.reference)
        skipped, missing = _missing(plan.source, buckets, store, options)
        if missing:
            prepare_folders([output])
            content = {
                **process_content("eval-loss", resolved, plan.source, cache),
                "buckets": missing,
                "output": str(output),
                "settings": store.settings,
                "options": {"times": options.times, "reference": options.reference, "loras": list(options.loras)},
            }
            _measure(plan, resolved, content)
            store.open(overwrite=overwrite)
    names = [str(Path(name).resolve()) for name in plan.config.data.tables]
    document = store.finish(buckets, {"tables": names, "bad_rows": plan.source.table.num_skipped, "skipped": skipped})
    _show(document, output)


def _measure(plan: TrainPlan, resolved: ResolvedTrain, content: Mapping[str, Any]) -> None:
    """Measure here, or in several processes, which are told `content`."""
    try:
        if launch_line(resolved, Path("run.json")) is None:
            from sora_cli.launch.mesh import Team

            _measure_share(plan, content, Team())
        else:
            follow_run(resolved, content, [])
    except KeyboardInterrupt:
        part = LossStore(Path(content["output"]), content["settings"]).part
        if part.exists() and not content["options"]["reference"]:
            get_console().note(f"kept: the buckets that are measured, in {part}; the same command goes on there")
        raise


def measure_in_process(content: Mapping[str, Any]) -> None:
    """Measure as one of several processes. content: what `run` wrote for all of them."""
    from sora_cli.launch.mesh import join_team

    plan = plan_of_process(content, get_plugins())
    _measure_share(plan, content, join_team(content["device"], 1))


def _measure_share(plan: TrainPlan, content: Mapping[str, Any], team: Team) -> None:
    from .loss_measure import make_meter, measure_buckets

    options = LossOptions(**content["options"])
    loras = [locate_lora(text, raw=plan.config.model.raw) for text in options.loras]
    meter = make_meter(plan, get_plugins(), team, loras, options.times, reference=options.reference)
    store = LossStore(Path(content["output"]), content["settings"])
    store.open(overwrite=True)
    buckets = [LossBucket(*entry) for entry in content["buckets"]]
    measure_buckets(meter, buckets, lambda entry: store.keep(entry, meter.times))


def _wanted(resolved: ResolvedTrain, options: LossOptions, model: ModelSpec) -> tuple[list[LossBucket], list[str]]:
    """The buckets to measure, and notes. Lengths of our own table that the model does not have are left out."""
    data = resolved.config.data
    if options.only:
        return list(options.only), []
    if data.size is not None:
        raise UsageError(
            f"data.size is {data.size}, and losses are measured in buckets",
            hint="give --bucket RES:FRAMES:BATCH, or data.bucket_config",
        )
    found = loss_buckets(data.bucket_config, rows=options.rows, start=options.start, end=options.end, most=options.most)
    known = found
    if data.bucket_config is None:
        known = [bucket for bucket in found if is_accepted(bucket.num_frames, model.constraints)]
    if not known:
        raise UsageError("no bucket is left to measure", hint="see --res, --start-index and --end-index")
    if others := sorted({bucket.num_frames for bucket in found} - {bucket.num_frames for bucket in known}):
        return known, [f"{model.name} does not take {', '.join(map(str, others))} frames, which are left out"]
    return known, []


def _measuring(config: Any, buckets: Sequence[LossBucket], options: LossOptions) -> Any:
    """The settings with these buckets, and without those that only training has."""
    data = {"bucket_config": bucket_config(buckets), "size": None, "num_frames": None, "batch_size": None}
    model: dict[str, Any] = {"initialize": "released", "lora": None}
    hardware = {"sharding": "none", "parallel": None}
    if options.reference and "reference_rounding" in config.model.options:
        model["options"] = {**config.model.options, "reference_rounding": True}
    validation = type(config.validation)().model_dump()
    sections = {"data": data, "model": model, "hardware": hardware, "validation": validation}
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


def measured_with(
    plan: TrainPlan, options: LossOptions, loras: Sequence[LocatedLora], buckets: Sequence[LossBucket]
) -> dict[str, Any]:
    """All that a loss depends on, JSON-safe."""
    config, source = plan.config, plan.source
    assert isinstance(source, ClipSource)  # checked before
    data = config.data.model_dump(mode="json")
    settings = {
        **parts_record(plan, loras, text_dtype_of(config, plan.components.text_encoder)),
        "scheduler": {"name": plan.components.scheduler.name, "options": options_record(plan.scheduler_options)},
        "data": {
            "rows": len(source.table),
            "hash": source.table.fingerprint,
            **{name: data[name] for name in OF_DATA},
        },
        "mask_ratios": config.objective.mask_ratios,
        "seed": config.run.seed,
        "timesteps": options.times,
        "mode": "reference" if options.reference else "per clip",
        # Where noise is drawn in order, every bucket and batch changes those after it.
        **({"buckets": [list(bucket) for bucket in buckets]} if options.reference else {}),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _missing(
    source: ClipSource, buckets: Sequence[LossBucket], store: LossStore, options: LossOptions
) -> tuple[list[dict[str, Any]], list[LossBucket]]:
    """Buckets without clips, with the reason; and those to measure."""
    skipped: list[dict[str, Any]] = []
    missing = []
    for bucket in buckets:
        if bucket[:2] in store.entries:
            continue
        batches = loss_batches(source, bucket, wraps=options.reference)
        if len(batches):
            missing.append(bucket)
            continue
        counts = ", ".join(f"{count} {reason}" for reason, count in batches.left_out.items())
        reason = f"no whole batch of {bucket.batch_size}" if batches.num_rows else f"no clip fits, {counts}"
        skipped.append({"resolution": bucket.resolution, "frames": bucket.num_frames, "reason": reason})
    alike: dict[tuple[str, str], list[str]] = {}
    for one in skipped:
        alike.setdefault((one["resolution"], one["reason"]), []).append(str(one["frames"]))
    for (resolution, reason), frames in alike.items():
        get_console().note(f"left out: {resolution} with {', '.join(frames)} frames: {reason}")
    if not missing and not store.entries:
        raise SoraError(
            "no clip of the table is in any of the buckets",
            hint="a clip needs more frames than its bucket and 0.8 of its pixels\n--bucket RES:FRAMES chooses others",
        )
    return skipped, missing


@dataclass
class LossStore:
    """A result and what is measured of one that is not complete, which is kept beside it in `<output>.part`.

    settings: see `measured_with`; entries: of buckets, by resolution and frames.
    """

    output: Path
    settings: Mapping[str, Any]
    entries: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    times: Sequence[float] = ()

    @property
    def part(self) -> Path:
        """Where entries are kept until the result is complete."""
        return self.output.with_name(f"{self.output.name}.part")

    @property
    def chart(self) -> Path:
        """The picture of the result."""
        return self.output.with_suffix(CHART)

    def open(self, *, overwrite: bool = False, resumes: bool = True) -> None:
        """Read what was measured with the same settings. resumes: whether an incomplete result is gone on with.

        Raises UsageError when there is something else, unless that is to be overwritten.
        """
        for path in (self.output, self.part):
            if not path.exists():
                continue
            content: Any = None
            with contextlib.suppress(ValueError, OSError):
                content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("settings") == self.settings:
                if path == self.part and not resumes:
                    path.unlink()
                    continue
                self._take(content["buckets"], content["timesteps"])
            elif not overwrite:
                raise self._other(path, content)
        if self.chart.exists() and not self.output.exists() and not overwrite:
            raise UsageError(f"{self.chart} is there already", hint="choose another file with -o, or give --overwrite")

    def _take(self, entries: Sequence[dict[str, Any]], times: Sequence[float]) -> None:
        self.entries.update({(entry["resolution"], entry["frames"]): entry for entry in entries})
        self.times = times

    def _other(self, path: Path, content: Any) -> UsageError:
        hint = "choose another file with -o, or give --overwrite"
        if not isinstance(content, dict) or "settings" not in content:
            return UsageError(f"{path} is there already, and is no result of this command", hint=hint)
        before = content["settings"]
        changed = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
        return UsageError(f"{path} was measured with other settings: {', '.join(changed)}", hint=hint)

    def keep(self, entry: dict[str, Any], times: Sequence[float]) -> None:
        """Keep the entry of a bucket, beside those that another run with the same settings has kept meanwhile."""
        self.open(overwrite=True)
        self._take([entry], times)
        content = {"settings": self.settings, "timesteps": list(times), "buckets": list(self.entries.values())}
        write_text(self.part, json.dumps(content))

    def finish(self, order: Sequence[LossBucket], about: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result and its chart, and return it. order: of the buckets; others that are known come behind."""
        places = {bucket[:2]: place for place, bucket in enumerate(order)}
        entries = sorted(
            self.entries.values(), key=lambda entry: places.get((entry["resolution"], entry["frames"]), len(places))
        )
        table: dict[str, dict[str, float]] = {}
        for entry in entries:
            table.setdefault(entry["resolution"], {})[str(entry["frames"])] = entry["loss"]
        document = {
            "table": table,
            "buckets": entries,
            "timesteps": list(self.times),
            "timestep_dtype": "bfloat16" if self.settings["mode"] == "reference" else "float32",
            **about,
            "settings": self.settings,
            "versions": {"sora": version(), "torch": installed("torch"), "python": platform.python_version()},
        }
        lines = {
            f"{entry['resolution']}, {entry['frames']}": list(zip(self.times, entry["losses"], strict=True))
            for entry in entries
        }
        title = f"Validation loss of {self.settings['model']['name']}"
        write_text(self.chart, line_chart(lines, title=title, x_label="time, from data to noise", y_label="loss"))
        write_text(self.output, json.dumps(document, indent=2) + "\n")
        self.part.unlink(missing_ok=True)
        return document


def _show(document: Mapping[str, Any], output: Path) -> None:
    console = get_console()
    rows = [
        {**entry, "unreadable": len(entry["unreadable"]), "loss": f"{entry['loss']:.{DIGITS}f}"}
        for entry in document["buckets"]
    ]
    if console.mode == "json":
        console.record({"path": str(output), **document})
    elif console.mode == "quiet":
        console.result(output)
    else:
        console.table(rows, COLUMNS)
        console.note(f"written: {output} and {output.with_suffix(CHART).name}")


def convert_logs(folder: Path, *, overwrite: bool = False) -> None:
    """Write loss.json into a folder with the eight logs of the reference, as it does, and print the table."""
    table, path, console = tabulate(folder), folder / "loss.json", get_console()
    text = table_text(table)
    if path.exists() and not overwrite and path.read_text(encoding="utf-8", errors="replace") != text:
        raise UsageError(f"{path} holds something else", hint="give --overwrite")
    write_text(path, text)
    rows = [
        {"resolution": name, "frames": frames, "loss": loss}
        for name, losses in table.items()
        for frames, loss in losses.items()
    ]
    if console.mode == "quiet":
        console.result(path)
    elif console.mode == "json":
        console.record({"path": str(path), "table": table})
    else:
        console.table(rows, ("resolution", "frames", "loss"))
        console.note(f"written: {path}")
