"""Names of sizes and lengths, and the exact shape of a clip. Pure Python.

Everywhere height comes before width, as in the tables; only the names of aspect ratios on the command line are
width:height. The tables are data, see presets/resolutions.yaml and presets/durations.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..console import counted
from ..errors import UsageError, did_you_mean
from ..presets import read_table

if TYPE_CHECKING:
    from ..config.schema import ShapeSection
    from ..plugin.specs import Constraints, TrainedSize

FILE_MULTIPLE = 8
"""Sizes in files are multiples of this: the spatial stride of the autoencoders the tables were made for."""

AREA_SLACK = 1.1
"""The shapes of one resolution differ that much in area; a clip that is hardly too large is made as it is."""

DEFAULT_ASPECT_RATIO = "16:9"


class Size(NamedTuple):
    """A frame size in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Resolution:
    """One table. pixels: its nominal pixel count; sizes: aspect key (height / width) -> size, in table order."""

    name: str
    family: str
    pixels: int
    sizes: Mapping[str, Size]


@dataclass(frozen=True)
class ClipShape:
    """The shape of one clip. height, width: in pixels; fps: the rate the model is conditioned on.

    asked_height, asked_width: the table's size, which the model is told about; up to 7 pixels more than the file's.
    save_fps: frame rate of the file. notes: what the user should know, e.g. that a length was rounded. enlarged: the
    size in the file where it is not height x width, which is what the model makes.
    """

    height: int
    width: int
    num_frames: int
    fps: float
    save_fps: float
    asked_height: int
    asked_width: int
    notes: tuple[str, ...] = ()
    enlarged: Size | None = None

    @property
    def written(self) -> Size:
        """The size in the file."""
        return self.enlarged or Size(self.height, self.width)


def resolve_shape(shape: ShapeSection, constraints: Constraints, default_fps: float) -> ClipShape:
    """The shape of the clips. `size` wins over `resolution`, `frames` over `duration`; both groups must say something.

    constraints: what the model can make. default_fps: the rate when `fps` is not set. UsageError when impossible.
    """
    fps = shape.fps or default_fps
    asked, size, size_notes = resolve_size(shape, constraints)
    num_frames, frame_notes = resolve_frames(shape, constraints, fps)
    made = sampled_size(size, constraints)
    if made != size:
        note = f"this model makes {made}, which is enlarged to {size}"
        beyond = training_notes(shape, made, num_frames, constraints)
        return ClipShape(
            height=made.height,
            width=made.width,
            num_frames=num_frames,
            fps=fps,
            save_fps=shape.save_fps or fps,
            asked_height=made.height,
            asked_width=made.width,
            notes=(*size_notes, *frame_notes, note, *beyond),
            enlarged=size,
        )
    return ClipShape(
        height=size.height,
        width=size.width,
        num_frames=num_frames,
        fps=fps,
        save_fps=shape.save_fps or fps,
        asked_height=asked.height,
        asked_width=asked.width,
        notes=(*size_notes, *frame_notes, *training_notes(shape, asked, num_frames, constraints)),
    )


def with_frames(clip: ClipShape, num_frames: int, shape: ShapeSection, constraints: Constraints) -> ClipShape:
    """The same clip with another number of frames, where more is sampled than was asked for, and its notes."""
    asked = Size(clip.asked_height, clip.asked_width)
    of_length = training_notes(shape, asked, clip.num_frames, constraints)
    kept = [note for note in clip.notes if note not in of_length]
    notes = (*kept, *training_notes(shape, asked, num_frames, constraints))
    return replace(clip, num_frames=num_frames, notes=notes)


def sampled_size(size: Size, constraints: Constraints) -> Size:
    """What is made for a clip of this size: the same shape with no more pixels than the model can make."""
    area = constraints.sampled_area
    if area is None or size.height * size.width <= area * AREA_SLACK:
        return size
    factor = max(math.sqrt(area / (size.height * size.width)), min(1.0, constraints.min_side / min(size)))
    step = constraints.spatial_multiple
    made = Size(*(max(step, round(side * factor / step) * step) for side in size))
    return made if max(made) < max(size) else size


# -- sizes -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def resolutions() -> Mapping[str, Resolution]:
    """All tables by name, in the order in which buckets are searched."""
    data = read_table("resolutions")["resolutions"]
    return {
        name: Resolution(name, table["family"], table["pixels"], _sizes(table["sizes"])) for name, table in data.items()
    }


def _sizes(pairs: Mapping[str, tuple[int, int]]) -> dict[str, Size]:
    return {key: Size(height, width) for key, (height, width) in pairs.items()}


@lru_cache(maxsize=1)
def aspect_names() -> Mapping[str, str]:
    """Table name, height:width -> key of the tables, e.g. "9:16" -> "0.56"."""
    return dict(read_table("resolutions")["aspect_names"])


def aspect_ratio_names() -> list[str]:
    """The names on the command line, width:height, widest first."""
    return [flip_aspect(name) for name in aspect_names()]


def flip_aspect(name: str) -> str:
    """width:height <-> height:width. Anything without a colon (a table key) stays as it is."""
    first, colon, second = name.partition(":")
    return f"{second}:{first}" if colon else name


def table_size(resolution: str, aspect: str) -> Size:
    """Look a size up as the tables do. aspect: a height:width name or a key such as "0.56"."""
    table = _table(resolution)
    key = aspect_names().get(aspect, aspect)
    if key not in table.sizes:
        raise _missing_aspect(table, aspect)
    return table.sizes[key]


def closest_aspect(resolution: str, height: float, width: float) -> str:
    """The key of the table whose value is nearest to height / width; the first in table order wins a tie."""
    ratio = height / width
    return min(_table(resolution).sizes, key=lambda key: abs(float(key) - ratio))


def file_size(size: Size, multiple: int = FILE_MULTIPLE) -> Size:
    """A table's size as it ends up in the file: each side rounded down to a multiple."""
    return Size(size.height // multiple * multiple, size.width // multiple * multiple)


def resolve_size(shape: ShapeSection, constraints: Constraints) -> tuple[Size, Size, list[str]]:
    """(size the model is told, size of the file, notes)."""
    multiple = math.lcm(FILE_MULTIPLE, constraints.spatial_multiple)
    notes = []
    if shape.size is not None:
        asked = size = parse_size(shape.size)
        _check_multiple(size, multiple)
    elif shape.resolution is not None:
        ratio = shape.aspect_ratio or DEFAULT_ASPECT_RATIO
        asked = table_size(shape.resolution, _checked_aspect(ratio))
        size = file_size(asked, multiple)
        if size != asked:
            notes.append(f"{shape.resolution} {ratio} is {asked} (height x width); the file has {size}")
    else:
        raise UsageError("no frame size is given", hint="use --res NAME, e.g. --res 240p, or --size HEIGHTxWIDTH")
    _check_limits(size, constraints)
    return asked, size, notes


def parse_size(text: str) -> Size:
    """ "480x854" as height and width."""
    match = re.fullmatch(r"\s*([0-9]+)\s*[xX×]\s*([0-9]+)\s*", text)
    if match is None:
        raise UsageError(f"size {text!r} is not HEIGHTxWIDTH", hint="example: --size 480x848, height first")
    return Size(int(match[1]), int(match[2]))


def _table(resolution: str) -> Resolution:
    if resolution not in resolutions():
        names = list(resolutions())
        close = did_you_mean(resolution, names)
        known = f"known: {', '.join(names)}"
        raise UsageError(f"unknown resolution {resolution!r}", hint="\n".join(line for line in (close, known) if line))
    return resolutions()[resolution]


def _checked_aspect(ratio: str) -> str:
    """The table's name or key for a width:height name; unknown names are refused before any table is looked at."""
    name = flip_aspect(ratio)
    keys = {key for table in resolutions().values() for key in table.sizes}
    if name not in aspect_names() and name not in keys:
        raise _unknown_aspect(ratio)
    return name


def _unknown_aspect(ratio: str) -> UsageError:
    """Suggests the name that is nearest as a number, not the one spelt most alike."""
    lines = [f"known: {', '.join(aspect_ratio_names())}"]
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?):([0-9]+(?:\.[0-9]+)?)", ratio)
    if match and float(match[1]) > 0 and float(match[2]) > 0:
        wanted = float(match[2]) / float(match[1])
        nearest = min(aspect_names(), key=lambda name: abs(float(aspect_names()[name]) - wanted))
        lines.insert(0, f"the nearest is {flip_aspect(nearest)}")
    else:
        lines.insert(0, "write it width:height, e.g. 16:9 for landscape")
    return UsageError(f"unknown aspect ratio {ratio!r}", hint="\n".join(lines))


def _missing_aspect(table: Resolution, aspect: str) -> UsageError:
    """Both ways to write it are listed: width:height names, and keys for shapes that have no name."""
    names: dict[str, str] = {}
    for name, key in aspect_names().items():
        names.setdefault(key, flip_aspect(name))
    named = [names[key] for key in table.sizes if key in names]
    unnamed = [key for key in table.sizes if key not in names]
    lines = [f"{table.name} has {', '.join(named)} (width:height)"]
    if unnamed:
        lines.append(f"and these keys (height / width): {', '.join(unnamed)}")
    return UsageError(f"resolution {table.name} has no aspect ratio {flip_aspect(aspect)}", hint="\n".join(lines))


def _check_multiple(size: Size, multiple: int) -> None:
    if size.height % multiple == 0 and size.width % multiple == 0:
        return
    lines = []
    for side, value in (("height", size.height), ("width", size.width)):
        if value % multiple:
            below = value // multiple * multiple
            lines.append(f"{side} {value}: use {_either(below or None, below + multiple)}")
    raise UsageError(f"size {size} (height x width) is not made of multiples of {multiple}", hint="\n".join(lines))


def _check_limits(size: Size, constraints: Constraints) -> None:
    low, high = constraints.min_side, constraints.max_side
    if low <= min(size) and max(size) <= high:
        return
    word = "small" if min(size) < low else "large"
    raise UsageError(
        f"size {size} (height x width) is too {word} for this model",
        hint=f"each side must be {low} to {high} pixels" + (f"; {constraints.trained}" if constraints.trained else ""),
    )


def _either(below: int | None, above: int | None) -> str:
    return " or ".join(str(value) for value in (below, above) if value is not None)


# -- lengths -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def durations() -> Mapping[str, int]:
    """Named lengths -> frames."""
    return dict(read_table("durations")["frames"])


def table_frames(value: str | float) -> int:
    """Frames of a named length; a number (or its text) is a number of frames already. ValueError for other text."""
    if isinstance(value, str) and value in durations():
        return durations()[value]
    return int(value)


def resolve_frames(shape: ShapeSection, constraints: Constraints, fps: float) -> tuple[int, list[str]]:
    """(number of frames, notes). Exact counts that do not fit are refused; lengths in seconds take the nearest."""
    if shape.frames is not None:
        check_frames(shape.frames, constraints)
        return shape.frames, []
    if shape.duration is None:
        raise UsageError("no length is given", hint="use --len NAME, e.g. --len 2s, or --frames N")
    return _duration_frames(shape.duration, constraints, fps)


def check_frames(num_frames: int, constraints: Constraints) -> None:
    """UsageError naming the neighbours when a model cannot make this number of frames."""
    nearby = list(_accepted_around(num_frames, constraints))
    if num_frames not in nearby:
        limit = constraints.max_frames
        reason = f"makes at most {limit}" if limit and num_frames > limit else _frame_rule(constraints)
        raise UsageError(
            f"{num_frames} frames do not fit: this model {reason}",
            hint=f"use --frames {' or '.join(str(count) for count in nearby)}",
        )


def is_accepted(num_frames: int, constraints: Constraints) -> bool:
    """Whether a model can make this number of frames."""
    return num_frames in _accepted_around(num_frames, constraints)


def accepted_from(num_frames: int, constraints: Constraints) -> int:
    """The least number of frames, from this one on, that a model can make. UsageError when there is none."""
    most = max(_accepted_around(num_frames, constraints))
    if most < num_frames:
        raise UsageError(
            f"{num_frames} frames do not fit: this model makes at most {constraints.max_frames}",
            hint="ask for less, several times with --segments N",
        )
    return most


def _duration_frames(duration: str, constraints: Constraints, fps: float) -> tuple[int, list[str]]:
    seconds = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)s", duration)
    name = f"{float(seconds[1]):g}s" if seconds else duration
    if name in durations():
        wanted = float(durations()[name])
        meaning = f"{name} is {wanted:g} frames"
    elif seconds:
        wanted = float(seconds[1]) * fps
        meaning = f"{name} is {wanted:g} frames at {fps:g} fps"
    elif re.fullmatch(r"[0-9]+", duration):
        check_frames(int(duration), constraints)
        return int(duration), [f"length {duration} is {counted(int(duration), 'frame')}; for seconds say {name}s"]
    else:
        raise _unknown_duration(duration)
    limit = constraints.max_frames
    if wanted <= 0 or (limit is not None and wanted >= limit + constraints.frame_step):
        rule = f"at most {limit} frames, more with --segments N" if limit else "at least one frame"
        raise UsageError(f"length {duration} does not fit: {meaning}", hint=f"this model makes {rule}")
    nearest = min(_accepted_around(wanted, constraints), key=lambda count: abs(count - wanted))
    if name in durations() and nearest == wanted:
        return nearest, []
    return nearest, [f"{meaning}; the clip has {nearest} ({nearest / fps:.3g} s)"]


def _unknown_duration(duration: str) -> UsageError:
    names = list(durations())
    lines = [did_you_mean(duration, names), f"known: {', '.join(names)}; or seconds, e.g. 3s or 2.5s"]
    return UsageError(f"unknown length {duration!r}", hint="\n".join(line for line in lines if line))


def _accepted_around(wanted: float, constraints: Constraints) -> Iterable[int]:
    """The accepted counts just below and above, shortest first; a single one when it fits or only one side exists."""
    first, step, limit = constraints.first_frames, constraints.frame_step, constraints.max_frames
    last = None if limit is None else first + (limit - first) // step * step
    steps = max(0.0, (wanted - first) / step)
    counts = {first + math.floor(steps) * step, first + math.ceil(steps) * step}
    return sorted({count if last is None else min(count, last) for count in counts})


def _frame_rule(constraints: Constraints) -> str:
    first, step = constraints.first_frames, constraints.frame_step
    if step == 1:
        return f"makes {first} or more"
    return f"makes {first}, {first + step}, {first + 2 * step}, ... frames"


# -- sizes seen in training --------------------------------------------------------------------------------------


def training_notes(shape: ShapeSection, size: Size, num_frames: int, constraints: Constraints) -> list[str]:
    """A line when the model was not trained on this size and length, with the nearest it was trained on.

    A size counts as trained when it has no more pixels than a trained resolution and no fewer than the smallest.
    """
    trained = sorted(constraints.trained_sizes, key=lambda one: resolutions()[one.resolution].pixels)
    if not trained:
        return []
    pixels = size.height * size.width
    covering = [one for one in trained if pixels <= _most_pixels(one)]
    if pixels < _fewest_pixels(trained[0]):
        nearest, word = trained[:1], "smaller than"
    elif any(num_frames <= one.max_frames for one in covering):
        return []
    else:
        # The largest that is no larger than what was asked, and the largest that is as long.
        word = "beyond"
        nearest = covering[:1] or trained[-1:]
        longest = min(num_frames, max(one.max_frames for one in trained))
        nearest += [one for one in trained if one.max_frames >= longest > nearest[0].max_frames][-1:]
    name = str(size) if shape.size is not None else f"{shape.resolution} ({size})"
    length = "an image" if num_frames == 1 else f"{num_frames} frames"
    known = ", ".join(f"{one.resolution} up to {frames_name(one.max_frames)}" for one in nearest)
    return [f"{name}, {length}, is {word} what this model was trained on; nearest: {known}"]


def _most_pixels(trained: TrainedSize) -> int:
    return max(size.height * size.width for size in resolutions()[trained.resolution].sizes.values())


def _fewest_pixels(trained: TrainedSize) -> int:
    return min(size.height * size.width for size in map(file_size, resolutions()[trained.resolution].sizes.values()))


def frames_name(num_frames: int) -> str:
    """The length in seconds of a named number of frames, e.g. "4s"; otherwise in frames."""
    names = [name for name, frames in durations().items() if frames == num_frames and name.endswith("s")]
    return names[0] if names else f"{num_frames} frames"


# -- covering names, for launch tables ---------------------------------------------------------------------------


def covering_resolution(size: Size, names: Iterable[str]) -> str | None:
    """The smallest of these resolutions with at least as many pixels as the size; None when all are smaller."""
    fitting = [resolutions()[name] for name in names if resolutions()[name].pixels >= size.height * size.width]
    return min(fitting, key=lambda table: table.pixels).name if fitting else None


def covering_duration(num_frames: int, names: Iterable[str]) -> str | None:
    """The shortest of these lengths with at least as many frames; None when all are shorter."""
    fitting = [name for name in names if durations()[name] >= num_frames]
    return min(fitting, key=lambda name: durations()[name]) if fitting else None
