"""Scenes that several detectors find in one video: cut where either of them does, or only where all do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

from .timestamps import Scene

#: Seconds that the cuts of two detectors may be apart and mean the same; they differ most in dissolves.
NEAR = Fraction(1, 4)


def either(found: Sequence[Sequence[Scene]], near: Fraction = NEAR) -> list[Scene]:
    """What is within one scene of each detector. found: scenes (start, end) in seconds of each, in order.

    Of cuts that mean the same the stretch between them is left out.
    """
    scenes = list(found[0])
    for others in found[1:]:
        parts = [
            (max(start, first), min(end, last))
            for start, end in scenes
            for first, last in others
            if max(start, first) < min(end, last)
        ]
        whole = [part for part in parts if part[1] - part[0] > near]
        scenes = whole or parts  # a video that is shorter than that is one scene still
    return scenes


def both(found: Sequence[Sequence[Scene]], near: Fraction = NEAR) -> list[Scene]:
    """The first detector's scenes, put together where another one does not cut. found: as for `either`."""
    first, *rest = found
    scenes: list[Scene] = []
    for start, end in first:
        if scenes and not all(_cuts(others, scenes[-1][1] - near, start + near) for others in rest):
            scenes[-1] = (scenes[-1][0], end)
        else:
            scenes.append((start, end))
    return scenes


def _cuts(scenes: Sequence[Scene], start: Fraction, end: Fraction) -> bool:
    """Whether a scene ends, and the next begins, in this stretch or around it."""
    return any(before[1] <= end and after[0] >= start for before, after in itertools.pairwise(scenes))
