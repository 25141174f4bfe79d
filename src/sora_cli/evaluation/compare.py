"""`sora compare`: clips beside the first of them, in numbers, in videos and in the settings that made them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.files import write_text
from sora_cli.plugin.manager import get_plugins
from sora_cli.tasks.codec import prepare_torch_threads
from sora_cli.tasks.components import choose_device
from sora_cli.tasks.output import DEFAULT_FOLDER, check_free
from sora_cli.video.clips import ClipFile
from sora_cli.video.io import open_video, write_image
from sora_cli.video.settings import HASH_KEY, find_settings

from . import drawing
from .measures import (
    DEFAULT_METRICS,
    Measures,
    Values,
    can_load,
    check_parts,
    load_measures,
    read_weights,
    rounded,
    units_title,
)
from .pairs import Look, open_together
from .provenance import provenance

#: Measured too where its weights are.
PERCEPTUAL = "lpips"
#: Frames of each clip on the sheet.
SHEET_FRAMES = 6
SIDE_BY_SIDE, SHEET, FRAMES = "side-by-side.mp4", "sheet.png", "frames.csv"


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """How clips are compared. metrics: names; weights: PART=FILE; fitted: see `open_together`."""

    metrics: Sequence[str] = ()
    weights: Sequence[str] = ()
    fitted: bool = False
    device: str = "auto"
    threads: int | None = None


@dataclass
class Shown:
    """What goes on the sheet. numbers: of its frames; pictures: name of a row -> small pictures."""

    numbers: Sequence[int]
    pictures: dict[str, list[drawing.Pixels]] = field(default_factory=dict)

    def take(self, first: int, panels: Mapping[str, drawing.Pixels]) -> None:
        """Those of the frames from number `first` on that are wanted."""
        for name, frames in panels.items():
            row = self.pictures.setdefault(name, [])
            row += [
                drawing.thumbnail(frames[number - first])
                for number in self.numbers
                if first <= number < first + len(frames)
            ]


def run(videos: Sequence[Path], options: CompareOptions, *, output: Path | None, overwrite: bool) -> None:
    """Compare clips with the first, write the files, and print numbers and differing settings. Raises SoraError."""
    prepare_torch_threads(options.threads)
    names = _names(videos)
    folder = output or DEFAULT_FOLDER / f"compare-{videos[0].stem}"
    if folder.is_file():
        raise UsageError(f"--output {folder} is a file", hint="name a folder")
    files = [folder / f"difference-{name}.mp4" for name in names[1:]]
    written = [folder / SIDE_BY_SIDE, folder / SHEET, folder / FRAMES, *files]
    check_free(written, videos, overwrite=overwrite)
    with open_together(videos, Look(), fitted=options.fitted) as clips, _all_or_none(folder, written):
        _warn_of_rates(clips)
        measures = _measures(options)
        num_frames = clips[0].num_frames
        shown = Shown(sorted({round(place) for place in np.linspace(0, num_frames - 1, SHEET_FRAMES)}))
        values = {name: Values(measures) for name in names[1:]}
        with get_console().progress("comparing", num_frames) as progress:
            _go_through(clips, names, values, shown, folder / SIDE_BY_SIDE, files, progress.advance)
        titles = [f"frame {number}" for number in shown.numbers]
        write_image(folder / SHEET, drawing.sheet(titles, list(shown.pictures.items())))
        by_frame = {name: {key: each.tolist() for key, each in one.of_frames().items()} for name, one in values.items()}
        write_text(folder / FRAMES, _frames_table(by_frame, num_frames))
    shapes = [{"fps": clip.fps, "size": f"{clip.height}x{clip.width}"} for clip in clips]
    places = [
        {"path": str(path), "name": name, **shape} for path, name, shape in zip(videos, names, shapes, strict=True)
    ]
    record = {
        "reference": places[0],
        "frames": num_frames,
        "clips": [
            {**place, "mean": one.means(), "frames": by_frame[name]}
            for place, (name, one) in zip(places[1:], values.items(), strict=True)
        ],
        "settings": differing_settings(videos, names),
        "provenance": provenance(videos),
        "files": [str(path) for path in written],
    }
    _show(record, measures)


@contextlib.contextmanager
def _all_or_none(folder: Path, written: Sequence[Path]) -> Iterator[None]:
    """Make a folder; after an error or Ctrl-C those of the files go that were not there, and it if it is empty."""
    was_there, new = folder.exists(), [path for path in written if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        # Those of another process that is writing them stay.
        for path in new if not isinstance(error.__cause__, BlockingIOError) else ():
            path.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()
        raise


def _warn_of_rates(clips: Sequence[ClipFile]) -> None:
    rates = sorted({round(clip.fps, 3) for clip in clips if clip.num_frames > 1})
    if len(rates) > 1:
        said = ", ".join(f"{rate:g}" for rate in rates)
        get_console().warn(
            f"the clips have {said} frames a second; frames are compared by their number, and written at "
            f"{clips[0].fps:g}; --fit compares by time"
        )


def _names(videos: Sequence[Path]) -> list[str]:
    """A name for each clip: that of its file, all numbered where two have the same."""
    stems = [video.stem for video in videos]
    return stems if len(set(stems)) == len(stems) else [f"{place}-{stem}" for place, stem in enumerate(stems, start=1)]


def _measures(options: CompareOptions) -> Measures:
    given = read_weights(options.weights)
    names = list(options.metrics)
    if not names:
        names = [*DEFAULT_METRICS, *([PERCEPTUAL] if can_load(PERCEPTUAL, given) else [])]
        if PERCEPTUAL not in names and PERCEPTUAL in get_plugins().specs("metric"):
            get_console().note(
                f"without {PERCEPTUAL}, whose weights are not here: `sora pull {PERCEPTUAL}` fetches them"
            )
    device = choose_device(options.device)  # type: ignore[arg-type]  # typed by the command
    measures = load_measures(names, given, device)
    check_parts(given, {part for measure in measures.values() for part in measure.spec.weights})
    if odd := [name for name, measure in measures.items() if measure.spec.subject != "pair"]:
        raise UsageError(f"{odd[0]} does not compare frames", hint="`sora eval metrics` has it")
    return measures


# -- frames ----------------------------------------------------------------------------------------------------------


def _go_through(
    clips: Sequence[ClipFile],
    names: Sequence[str],
    values: Mapping[str, Values],
    shown: Shown,
    beside: Path,
    files: Sequence[Path],
    advance: Callable[[int], None],
) -> None:
    """Measure, draw and write piece by piece, so that memory does not grow with the length."""
    fps, width, done = clips[0].fps, clips[0].width, 0
    # What the font cannot show is told by its place.
    titles = [name if name.isascii() else f"{place} {name}" for place, name in enumerate(names, start=1)]
    labels = [drawing.label(title, width) for title in titles]
    with contextlib.ExitStack() as stack:
        add_beside = stack.enter_context(open_video(beside, fps))
        adders = [stack.enter_context(open_video(path, fps)) for path in files]
        for pieces in Look().together(clips):
            panels = [_to_frames(piece) for piece in pieces]
            rows = dict(zip(titles, panels, strict=True))
            for name, title, piece, panel in zip(names[1:], titles[1:], pieces[1:], panels[1:], strict=True):
                values[name].add(piece, pieces[0])
                rows[f"{title}, difference: white from {drawing.WHITE_AT} of 255 on"] = drawing.difference_map(
                    panels[0], panel
                )
            for add, frames in zip(adders, list(rows.values())[len(panels) :], strict=True):
                add(drawing.even(frames))
            add_beside(drawing.even(drawing.side_by_side(panels, labels)))
            shown.take(done, rows)
            done += pieces[0].shape[2]
            advance(pieces[0].shape[2])


def _to_frames(piece: Tensor) -> drawing.Pixels:
    """(1, 3, T, H, W) in [0, 1] as (T, H, W, 3) uint8."""
    frames: drawing.Pixels = piece[0].mul(255).round().byte().permute(1, 2, 3, 0).numpy()
    return frames


def _frames_table(by_frame: Mapping[str, Mapping[str, Sequence[float]]], num_frames: int) -> str:
    """CSV: a row for each frame; a value of two frames stands in the row of the first."""
    columns = [(f"{name} {measure}", values) for name, all_ in by_frame.items() for measure, values in all_.items()]
    quoted = ['"' + title.replace('"', '""') + '"' for title, _ in columns]
    lines = [",".join(["frame", *quoted])]
    for number in range(num_frames):
        cells = [repr(values[number]) if number < len(values) else "" for _, values in columns]
        lines.append(",".join([str(number), *cells]))
    return "\n".join(lines) + "\n"


# -- settings ----------------------------------------------------------------------------------------------------------


def differing_settings(videos: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Dotted key -> name of a clip -> value, of stored settings that are not the same in all clips that have some."""
    stored = {name: find_settings(video) for name, video in zip(names, videos, strict=True)}
    flat = {name: _flat(settings) for name, settings in stored.items() if settings is not None}
    if without := [name for name in names if name not in flat]:
        get_console().note(f"no settings are stored in {', '.join(without)}")
    keys = dict.fromkeys(key for one in flat.values() for key in one if key != HASH_KEY)
    table = {key: {name: one.get(key) for name, one in flat.items()} for key in keys}
    return {key: row for key, row in table.items() if len({repr(value) for value in row.values()}) > 1}


def _flat(settings: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = value
    return found


def _show(record: Mapping[str, Any], measures: Measures) -> None:
    console = get_console()
    if console.mode == "json":
        console.record(record)
        return
    if console.mode == "quiet":
        for path in record["files"]:
            console.result(path)
        return
    rows = []
    for clip in record["clips"]:
        row: dict[str, Any] = {"clip": clip["name"], "frames": record["frames"], **clip["mean"]}
        for name, measure in measures.items():
            if values := clip["frames"][name]:
                worst = min(values) if measure.spec.higher_is_better else max(values)
                row |= {f"worst {name}": worst, f"frame of {name}": values.index(worst)}
        rows.append(rounded(row))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    console.table(
        rows, columns, "; ".join(filter(None, (f"beside {record['reference']['name']}", units_title(measures))))
    )
    if record["settings"]:
        lines = [{"setting": key, **row} for key, row in record["settings"].items()]
        console.table(lines, list(lines[0]), "\nsettings that differ")
    else:
        console.note("no stored settings of two clips differ")
    for path in record["files"]:
        console.result(path)
