"""Where references go in a clip: the mask-strategy grammar of the released models, in latent frames. Pure Python.

A strategy is groups separated by ";", each up to six numbers separated by ",": loop, reference, first frame in the
reference, first frame in the clip, length, edit ratio. Positions count latent frames, negative ones from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sora_cli.errors import UsageError

FIELDS = ("loop", "reference", "reference start", "target start", "length", "edit ratio")
FORM = "groups LOOP,REFERENCE,REFERENCE START,TARGET START,LENGTH,EDIT RATIO separated by ';', later fields optional"


@dataclass(frozen=True)
class Group:
    """One piece of a reference that is put into a clip. edit_ratio: 0 keeps it, 1 makes it anew, between re-noises."""

    loop: int = 0
    reference: int = 0
    reference_start: int = 0
    target_start: int = 0
    length: int = 1
    edit_ratio: float = 0.0

    def __str__(self) -> str:
        """As it is written."""
        return ",".join(
            map(
                str,
                (self.loop, self.reference, self.reference_start, self.target_start, self.length, self.edit_ratio),
            )
        )


@dataclass(frozen=True)
class Placement:
    """A group where it really lands: `length` latent frames from `source` of the reference to `target` of the clip."""

    reference: int
    source: int
    target: int
    length: int
    edit_ratio: float


def parse_strategy(text: str | None) -> tuple[Group, ...]:
    """The groups of a strategy; none for "" and None. Raises UsageError saying which field of which group is wrong."""
    if not text:
        return ()
    groups, place = [], 0
    for number, part in enumerate(text.split(";"), start=1):
        groups.append(_parse_group(part, number, text, place))
        place += len(part) + 1
    return tuple(groups)


def _parse_group(part: str, number: int, text: str, place: int) -> Group:
    """place: where the group starts in the text."""

    def wrong(what: str) -> UsageError:
        return UsageError(
            f"group {number} of the mask strategy {text!r}: {what}", hint=f"{text}\n{' ' * place}^\n{FORM}"
        )

    values: list[float] = []
    fields = part.split(",")
    for index, field in enumerate(fields):
        if index == len(FIELDS):
            raise wrong(f"{len(fields)} fields instead of at most {len(FIELDS)}")
        name = FIELDS[index]
        try:
            values.append(float(field.strip()) if name == "edit ratio" else int(field.strip()))
        except ValueError:
            raise wrong(f"{name} {f'{field!r} is no number' if field.strip() else 'is empty'}") from None
        if name == "edit ratio" and not 0.0 <= values[-1] <= 1.0:
            raise wrong(f"{name} {values[-1]:g} is not between 0 and 1")
        place += len(field) + 1
    return Group(*values)  # type: ignore[arg-type]  # whole numbers but for the last


def nearest_border(value: int, step: int, most: int) -> int:
    """The multiple of `step` that a position is moved to; never the last one at or above `most`."""
    quotient = value // step
    if value % step > step / 2 and quotient < most // step - 1:
        quotient += 1
    return quotient * step


def place(
    groups: Sequence[Group], *, loop: int, latent_frames: int, reference_frames: Sequence[int], align: int | None = None
) -> list[Placement]:
    """Where the groups of a loop land, in order; later ones overwrite earlier ones.

    latent_frames: of the clip; reference_frames: latent frames of each reference; align: positions are moved to
    multiples of it, the borders of pieces that an autoencoder decodes alone. Raises UsageError for a reference that is
    not there and for positions outside.
    """
    placements = []
    for group in groups:
        if group.loop != loop:
            continue
        if not 0 <= group.reference < len(reference_frames):
            raise UsageError(
                f"the mask strategy {group} names reference {group.reference}, and there are {len(reference_frames)}",
                hint="references are counted from 0",
            )
        available = reference_frames[group.reference]
        source = group.reference_start + (available if group.reference_start < 0 else 0)
        target = group.target_start + (latent_frames if group.target_start < 0 else 0)
        if align is not None:
            source = nearest_border(source, align, available)
            target = nearest_border(target, align, latent_frames)
        length = min(group.length, latent_frames - target, available - source)
        if length <= 0 or source < 0 or target < 0:
            raise UsageError(
                f"the mask strategy {group} lies outside: the reference has {available} latent frames, the clip "
                f"{latent_frames}"
            )
        placements.append(Placement(group.reference, source, target, length, group.edit_ratio))
    return placements


def frame_mask(placements: Sequence[Placement], latent_frames: int) -> list[float]:
    """What is made of each latent frame: 1 anew, 0 kept, between re-noised."""
    mask = [1.0] * latent_frames
    for each in placements:
        mask[each.target : each.target + each.length] = [each.edit_ratio] * each.length
    return mask


def continuing(text: str | None, *, loop: int, reference: int, overlap: int, edit_ratio: float = 0.0) -> str:
    """A strategy with the group of a later loop: the last `overlap` latent frames of the clip before come first."""
    group = Group(loop, reference, -overlap, 0, overlap, float(edit_ratio))
    return f"{text};{group}" if text else str(group)


def overlap_frames(latent_frames: int, piece_latents: int = 5, piece_frames: int = 17) -> int:
    """Frames of so many latent frames that are whole pieces. Raises UsageError for others."""
    if latent_frames % piece_latents:
        raise UsageError(f"{latent_frames} latent frames are not whole pieces of {piece_latents}")
    return latent_frames // piece_latents * piece_frames
