"""`sora data score`: every clip is opened once, the frames that the scorers want are decoded once, and all score it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli import version
from sora_cli.config.checks import complete_options
from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.files import write_text
from sora_cli.plugin.blame import in_words
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.plugin.specs import DataToolSpec
from sora_cli.weights.locate import part_files

from .addresses import at_hand
from .index import STAMP
from .run import StepOptions, run_step
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl

    from sora_cli.plugin.protocols import ClipFrames, Scorer

REASON = "score_reason"
#: Clips that a process is given at a time, and bytes of frames that it holds before it scores what it has.
CLIPS_AT_ONCE = 8
MOST_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A scorer that is wanted. options: all of its own; weights: part -> file or folder that the user gave."""

    spec: DataToolSpec
    options: Mapping[str, Any]
    weights: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """What it writes."""
        return (self.spec.column, *self.spec.more_columns)


def choose_scorers(names: Sequence[str], options: Mapping[str, Any], weights: Sequence[str]) -> list[Chosen]:
    """Scorers by name, with options named SCORER.KEY and weights as SCORER.PART=FILE.

    Raises UsageError for unknown names and for two scorers of one column, MissingError for packages that are missing.
    """
    plugins = get_plugins()
    specs: dict[str, DataToolSpec] = {}
    for name in names:
        spec = plugins.get("scorer", name)
        assert isinstance(spec, DataToolSpec)
        plugins.check_installed(spec)
        specs[spec.name] = spec
    if not specs:
        raise UsageError("no score is asked for", hint="give --score; `sora plugins list --kind scorer` lists them")
    given = _by_scorer({key: (key, value) for key, value in options.items()}, specs, "-O")
    pairs = part_files(weights, option="--weights", example="aes.head=head.pth")
    files = _by_scorer({key: (key, value) for key, value in pairs.items()}, specs, "--weights")
    chosen = []
    owners: dict[str, str] = {}
    for name, spec in specs.items():
        own = {key: value for key, (_, value) in given.get(name, {}).items()}
        complete = complete_options(spec.options, own, f"scorer {name}", dict.fromkeys(own, "flag"))
        parts = {part: value for part, (_, value) in files.get(name, {}).items()}
        if odd := sorted(set(parts) - set(spec.weights)):
            has = f"its parts: {', '.join(spec.weights)}" if spec.weights else "it has no weights"
            raise UsageError(f"the scorer {name} has no part {odd[0]!r}", hint=has)
        one = Chosen(spec, complete, parts)
        for column in one.columns:
            if column in owners:
                raise UsageError(
                    f"{owners[column]} and {name} both write the column {column}", hint="choose one of them"
                )
            owners[column] = name
        chosen.append(one)
    return chosen


def _by_scorer(values: Mapping[str, Any], specs: Mapping[str, DataToolSpec], flag: str) -> dict[str, dict[str, Any]]:
    """SCORER.KEY -> scorer -> key; without SCORER it is that of the only one."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        scorer, dot, key = name.partition(".")
        if not dot and len(specs) == 1:
            scorer, key = next(iter(specs)), name
        if scorer not in specs or not key:
            raise UsageError(f"{flag} {name}: it is not said of which scorer", hint=f"scorers: {', '.join(specs)}")
        found.setdefault(scorer, {})[key] = value
    return found


def run_score(frame: pl.DataFrame, chosen: Sequence[Chosen], step: StepOptions) -> None:
    """Score the clips of a table. Weights are found, and downloaded where that is allowed, before anything starts."""
    located = {one.spec.name: _locate(one) for one in chosen} if not step.dry_run else {}
    replaced = [name for one in chosen for name in one.columns if name in frame.columns]
    if replaced:
        get_console().note(f"columns of the table that are replaced: {', '.join(replaced)}")
    record = [
        {
            "scorer": one.spec.name,
            "columns": list(one.columns),
            "options": dict(one.options),
            "weights": {part: each.fingerprint for part, each in located.get(one.spec.name, {}).items()},
        }
        for one in chosen
    ]
    options = {**scorer_options(chosen), "record": record}
    kinds = {name: "str" if name in one.spec.text_columns else "float" for one in chosen for name in one.columns}
    inputs = ("path", STAMP, *(("text",) if any(one.spec.reads_text for one in chosen) else ()))
    work = Work(
        "score", f"{__name__}:make_scorer", options, inputs, {**kinds, REASON: "str"}, CLIPS_AT_ONCE, step.seconds
    )

    def finish(made: pl.DataFrame) -> pl.DataFrame:
        _write_record(step.output, record)
        return made.drop(REASON) if made[REASON].null_count() == made.height else made

    run_step(frame, work, step, verb="scoring", bad="keep", finish=finish)


def scorer_options(chosen: Sequence[Chosen]) -> dict[str, Any]:
    """What `make_scorer` needs of them, as JSON knows it."""
    return {
        "scorers": [
            {"name": one.spec.name, "options": dict(one.options), "weights": dict(one.weights)} for one in chosen
        ]
    }


def _locate(one: Chosen) -> dict[str, Any]:
    from sora_cli.weights.locate import locate_parts

    name = one.spec.name
    return locate_parts(one.spec.weights, what=name, overrides=one.weights, option=f"--weights {name}.PART=FILE; here")


def _write_record(output: Path, record: Sequence[Mapping[str, Any]]) -> None:
    """What made the scores, beside the table."""
    path = output.with_name(f"{output.name}.scorers.json")
    write_text(path, json.dumps({"sora": version(), "scorers": list(record)}, indent=2) + "\n")


def make_scorer(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of the step."""
    plugins = get_plugins()
    scorers: dict[str, Scorer] = {}
    columns: dict[str, tuple[str, ...]] = {}
    texts: set[str] = set()
    for each in options["scorers"]:
        spec = plugins.get("scorer", each["name"])
        assert isinstance(spec, DataToolSpec)
        one = Chosen(spec, each["options"], each["weights"])
        own = load_attribute(spec.options, what=spec.name)(**one.options) if spec.options else None
        target, located = plugins.load_target(spec), _locate(one)
        try:
            scorers[spec.name] = target(located, device, own)
        except SoraError:
            raise
        except Exception as error:  # a scorer may be anybody's
            raise SoraError(f"the scorer {spec.name} does not start: {in_words(error)}") from error
        columns[spec.name] = one.columns
        texts.update(spec.text_columns)
    names = [*(name for own in columns.values() for name in own), REASON]

    def work(rows: Sequence[Row]) -> list[Made]:
        done: list[Made] = []
        waiting: list[dict[str, ClipFrames] | str] = []
        size = 0
        for row in rows:
            clip = _open_clip(row, scorers)
            waiting.append(clip)
            size += 0 if isinstance(clip, str) else sum(each.frames.nbytes for each in clip.values())
            if size > MOST_BYTES:
                done += scored(waiting)
                waiting, size = [], 0
        return done + scored(waiting)

    def scored(opened: Sequence[dict[str, ClipFrames] | str]) -> list[Made]:
        made: list[dict[str, Any]] = [dict.fromkeys(names) for _ in opened]
        reasons: list[list[str]] = [[] if not isinstance(clip, str) else [clip] for clip in opened]
        for scorer, tool in scorers.items():
            good = [(place, clip[scorer]) for place, clip in enumerate(opened) if not isinstance(clip, str)]
            for (place, _), scores in zip(good, _score(tool, [clip for _, clip in good]), strict=True):
                for name in columns[scorer]:
                    value, wanted = scores.get(name), str if name in texts else Real
                    if value is None or isinstance(value, wanted):
                        made[place][name] = value
                    else:
                        kind = "text" if name in texts else "a number"
                        reasons[place].append(f"{scorer}: {name} is {value!r}, not {kind}")
                if scores.get("reason"):
                    reasons[place].append(f"{scorer}: {scores['reason']}")
                if unknown := sorted(set(scores) - {*columns[scorer], "reason"}):
                    reasons[place].append(f"{scorer}: it gives {', '.join(unknown)}, which its spec does not name")
        for row, why in zip(made, reasons, strict=True):
            row[REASON] = "; ".join(why) or None
        return [
            Made([row], "; ".join(why) if all(row[name] is None for name in names[:-1]) and why else None)
            for row, why in zip(made, reasons, strict=True)
        ]

    return work


def _score(scorer: Scorer, clips: Sequence[ClipFrames]) -> list[dict[str, Any]]:
    """Scores of clips. Where a scorer raises, those of each clip on its own, so that only the bad one is without."""
    if not clips:
        return []
    try:
        found = [dict(each) for each in scorer.score(clips)]
        if len(found) != len(clips):
            raise SoraError(f"it gave {len(found)} scores for {len(clips)} clips")
        return found
    except Exception as error:  # a scorer may be anybody's
        if len(clips) == 1:
            return [{"reason": error.message if isinstance(error, SoraError) else f"{type(error).__name__}: {error}"}]
    return [_score(scorer, [clip])[0] for clip in clips]


def _open_clip(row: Row, scorers: Mapping[str, Scorer]) -> dict[str, ClipFrames] | str:
    """What each scorer is shown of a clip, or why it cannot be read. Each frame is decoded once."""
    from sora_cli.training.clip_reader import BadClipError

    text = row.get("text")
    try:
        with at_hand(row["path"]) as file:
            return _frames_for(Path(file), text, scorers)
    except (BadClipError, SoraError) as error:
        return str(error)
    except Exception as error:  # decoders raise almost anything for damaged files
        return f"{type(error).__name__}: {error}"


def _frames_for(path: Path, text: str | None, scorers: Mapping[str, Scorer]) -> dict[str, ClipFrames] | str:
    from sora_cli.plugin.protocols import ClipFrames
    from sora_cli.training.clip_reader import READERS, read_image
    from sora_cli.video.media import is_image

    if is_image(path):
        picture = read_image(path).permute(0, 2, 3, 1).numpy()
        found = {0: picture[0]}
        count, fps, times = 1, 0.0, None
        wanted = _wanted(scorers, 1, 0.0)
    else:
        if not path.is_file():
            return "the file does not exist"
        with READERS["pyav"](path) as video:
            count, fps, times = video.num_frames, video.fps, video.seconds()
            if count == 0:
                return "it has no frames"
            wanted = _wanted(scorers, count, fps)
            numbers = sorted({number for each in wanted.values() for number in each})
            frames = (frame.permute(1, 2, 0).numpy() for frame in video.stream(numbers))
            found = dict(zip(numbers, frames, strict=True))
    return {
        name: ClipFrames(
            np.stack([found[number] for number in numbers]),
            np.array([times[number] if times else number / (fps or 1) for number in numbers]),
            count,
            fps,
            text,
        )
        for name, numbers in wanted.items()
    }


def _wanted(scorers: Mapping[str, Scorer], count: int, fps: float) -> dict[str, list[int]]:
    """The frames that each scorer asks for. Raises SoraError for one that the clip has not."""
    wanted = {name: scorer.frames(count, fps) for name, scorer in scorers.items()}
    for name, numbers in wanted.items():
        if odd := [number for number in numbers if not 0 <= number < count]:
            raise SoraError(f"{name}: it asks for frame {odd[0]} of {count}, counted from 0")
    return wanted
