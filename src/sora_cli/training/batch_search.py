"""The largest batch of a bucket that fits, and is faster than a wanted time per update."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class NoDataError(Exception):
    """The bucket has too few clips to be measured."""


class FoundBatch(NamedTuple):
    """batch_size: 0 when none fits; seconds: of an update with it."""

    batch_size: int
    seconds: float


def search_batch_size(
    measure: Callable[[int], float | None], lower: int, upper: int, wanted_seconds: float | None = None
) -> FoundBatch:
    """Halve the range [lower, upper] until the batch size is found.

    measure: seconds of an update, None when it fails (out of memory); raises NoDataError when there is nothing to
    measure. wanted_seconds: only sizes strictly faster qualify, and the one closest to it wins; None for the largest
    that runs.
    """
    best = FoundBatch(0, 0.0)
    while lower <= upper:
        middle = (lower + upper) // 2
        try:
            seconds = measure(middle)
        except NoDataError:
            return FoundBatch(0, 0.0)
        if seconds is None or (wanted_seconds is not None and seconds >= wanted_seconds):
            upper = middle - 1
            continue
        if wanted_seconds is None or best.batch_size == 0 or seconds > best.seconds:
            best = FoundBatch(middle, seconds)
        lower = middle + 1
    return best
