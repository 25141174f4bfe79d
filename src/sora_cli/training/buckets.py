"""Buckets: which clip is trained at which resolution, length and aspect ratio.

A bucket is (resolution, number of frames, aspect key). The configuration names (resolution, frames) pairs only; the
aspect key is the one of the resolution's table that is nearest to the clip's. Every decision of chance is a hash of the
seed, the epoch, the row and the names in the pair, so it does not depend on other rows, other pairs, or the number of
processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.errors import SoraError, UsageError, unknown_name
from sora_cli.video.shapes import resolutions

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A clip may be enlarged by up to a quarter of its area.
LEAST_AREA = 0.8
#: Rows assigned at a time, so that memory does not grow with the table.
ROWS_AT_ONCE = 1 << 18
#: Why a row is in no bucket of an epoch: codes in `Assignment.reason`, in this order; "" for rows that are in one.
REASONS = ("", "too small", "too short", "blocked", "left out by chance")
TOO_SMALL, TOO_SHORT, BLOCKED, BY_CHANCE = range(1, 5)


@dataclass(frozen=True)
class BucketPair:
    """One entry of a bucket configuration.

    keep: the chance that a clip offered to this pair stays; otherwise it is offered to smaller resolutions. length: the
    chance that this length is tried at all for a clip that is long enough, None for always. batch_size: clips of a
    micro-batch on one rank; None only where `keep` is 0, in an entry that sends its clips on.
    """

    resolution: str
    num_frames: int
    keep: float
    length: float | None
    batch_size: int | None


@dataclass(frozen=True)
class Assignment:
    """The bucket of every row of a table in one epoch.

    pair (N,) int16: index in `BucketTable.pairs`, -1 for none. aspect (N,) int16: place of the aspect key in the
    resolution's table. reason (N,) uint8: index in REASONS.
    """

    pair: NDArray[np.int16]
    aspect: NDArray[np.int16]
    reason: NDArray[np.uint8]

    def dropped(self) -> dict[str, int]:
        """Rows that are in no bucket, by reason."""
        counts = np.bincount(self.reason, minlength=len(REASONS))
        return {name: int(count) for name, count in zip(REASONS[1:], counts[1:], strict=True)}


class BucketTable:
    """A bucket configuration in the order in which clips are offered: largest resolution first, longest first in it."""

    def __init__(
        self, config: Mapping[str, Mapping[Any, Any]], check_frames: Callable[[int], None] | None = None
    ) -> None:
        """config: {resolution: {num_frames: [keep or [keep, length], batch size]}}.

        check_frames: raises UsageError for a length that the autoencoder cannot divide. Raises UsageError for anything
        that the grammar does not allow, naming the entry.
        """
        known = resolutions()
        if not config:
            raise UsageError("the bucket configuration is empty")
        for name in config:
            if name not in known:
                raise unknown_name("resolution in the bucket configuration", str(name), known)
            if not isinstance(config[name], Mapping) or not config[name]:
                raise UsageError(f"bucket_config.{name}: there is no length in it")
        # Stable: of two tables with equal pixels the one that is written first comes first.
        order = sorted(config, key=lambda name: -known[name].pixels)
        pairs = []
        for name in order:
            entries = [_entry(name, frames, entry) for frames, entry in config[name].items()]
            pairs += sorted(entries, key=lambda pair: -pair.num_frames)
        self.pairs: tuple[BucketPair, ...] = tuple(pairs)
        if check_frames is not None:
            for pair in self.pairs:
                if pair.keep > 0:
                    _naming(pair, check_frames)

    @cached_property
    def num_buckets(self) -> int:
        """(resolution, frames, aspect) triples."""
        return sum(len(resolutions()[pair.resolution].sizes) for pair in self.pairs)

    @property
    def has_chance(self) -> bool:
        """Whether another epoch can put clips elsewhere."""
        return any(0 < pair.keep < 1 or pair.length not in (None, 1.0) for pair in self.pairs)

    def bucket(self, pair: int, aspect: int) -> tuple[str, int, str]:
        """(resolution, frames, aspect key)."""
        entry = self.pairs[pair]
        return entry.resolution, entry.num_frames, list(resolutions()[entry.resolution].sizes)[aspect]

    def size(self, pair: int, aspect: int) -> tuple[int, int, int]:
        """(frames, height, width) at which clips of the bucket are trained."""
        resolution, frames, key = self.bucket(pair, aspect)
        return (frames, *resolutions()[resolution].sizes[key])

    def assign(
        self,
        num_frames: NDArray[Any],
        height: NDArray[Any],
        width: NDArray[Any],
        *,
        seed: int,
        epoch: int,
        frame_interval: int = 1,
        uniforms: Any = None,
    ) -> Assignment:
        """The bucket of every row. num_frames, height, width (N,): of the files; frame_interval: frames per frame used.

        A clip needs more than frames x frame_interval frames (the comparison is strict). uniforms: for tests, a
        function (pair, "length" or "keep", rows) -> numbers in [0, 1); by default a hash of seed, epoch, row and pair.
        """
        total = len(num_frames)
        found = Assignment(np.full(total, -1, np.int16), np.zeros(total, np.int16), np.full(total, TOO_SMALL, np.uint8))
        draw = uniforms or (lambda pair, which, rows: hashed_uniforms(rows, (seed, epoch, *_key(pair), which)))
        for start in range(0, total, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            rows = np.arange(start, min(start + ROWS_AT_ONCE, total))
            frames, high, wide = (np.asarray(column[part], np.int64) for column in (num_frames, height, width))
            self._assign_part(rows, frames, high, wide, frame_interval, draw, found)
        return found

    def _assign_part(
        self,
        rows: NDArray[np.int64],
        frames: NDArray[np.int64],
        height: NDArray[np.int64],
        width: NDArray[np.int64],
        interval: int,
        draw: Any,
        found: Assignment,
    ) -> None:
        area, is_image = height * width, frames == 1
        pair_of, reason = found.pair[rows[0] : rows[-1] + 1], found.reason[rows[0] : rows[-1] + 1]
        open_rows = np.arange(len(rows))
        for name in dict.fromkeys(pair.resolution for pair in self.pairs):
            numbers = [index for index, pair in enumerate(self.pairs) if pair.resolution == name]
            large = open_rows[area[open_rows] >= LEAST_AREA * resolutions()[name].pixels]
            chosen = np.full(len(rows), -1, np.int16)
            skipped = np.zeros(len(rows), bool)
            for index in numbers:
                pair = self.pairs[index]
                free = large[chosen[large] < 0]
                if pair.num_frames == 1:
                    chosen[free[is_image[free]]] = index
                    continue
                long = free[~is_image[free] & (frames[free] > pair.num_frames * interval)]
                if pair.length is not None and len(long):
                    is_tried = draw(pair, "length", rows[long]) <= pair.length
                    skipped[long[~is_tried]] = True
                    long = long[is_tried]
                chosen[long] = index
            without = large[chosen[large] < 0]
            reason[without] = np.maximum(reason[without], np.where(skipped[without], BY_CHANCE, TOO_SHORT))
            for index in numbers:
                pair, offered = self.pairs[index], large[chosen[large] == index]
                if pair.keep >= 1 or not len(offered):
                    is_kept = np.ones(len(offered), bool)
                else:
                    is_kept = draw(pair, "keep", rows[offered]) < pair.keep
                pair_of[offered[is_kept]] = index
                lost = offered[~is_kept]
                reason[lost] = np.maximum(reason[lost], BLOCKED if pair.keep == 0 else BY_CHANCE)
            open_rows = open_rows[pair_of[open_rows] < 0]
            settled = large[pair_of[large] >= 0]
            reason[settled] = 0
            found.aspect[rows[settled]] = nearest_aspects(name, height[settled], width[settled])


def nearest_aspects(resolution: str, height: NDArray[Any], width: NDArray[Any]) -> NDArray[np.int16]:
    """Places of the aspect keys nearest to height / width in the resolution's table; the first wins a tie."""
    keys = np.array([float(key) for key in resolutions()[resolution].sizes])
    if not len(height):
        return np.zeros(0, np.int16)
    distances = np.abs(keys - (height / width)[:, None])
    nearest: NDArray[np.int16] = distances.argmin(1).astype(np.int16)
    return nearest


def hashed_uniforms(rows: NDArray[np.int64], key: tuple[Any, ...]) -> NDArray[np.float64]:
    """Numbers in [0, 1), one per row, that depend on the row and the key alone.

    The key is hashed once (BLAKE2b); with it as the start, row numbers go through the mixing function of SplitMix64
    (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    state = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(digest, "little"))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    numbers: NDArray[np.float64] = ((state ^ (state >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return numbers


def _key(pair: BucketPair) -> tuple[str, int]:
    return pair.resolution, pair.num_frames


def _entry(resolution: str, frames: Any, entry: Any) -> BucketPair:
    """Read one entry. Raises UsageError that names it."""
    where = f"bucket_config.{resolution}.{frames}"
    if not _is_count(frames):
        raise UsageError(f"{where}: the number of frames must be a whole number from 1")
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        raise UsageError(f"{where}: {entry!r} is not [keep, batch size] or [[keep, length], batch size]")
    chance, batch_size = entry
    keep, length = chance if isinstance(chance, list | tuple) and len(chance) == 2 else (chance, None)
    for name, value in (("keep", keep), ("length", 1.0 if length is None else length)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise UsageError(f"{where}: {name} {value!r} is not a probability from 0 to 1")
    if frames == 1:
        length = None  # a picture has no other length to fall back on
    if batch_size is None and keep > 0:
        raise UsageError(f"{where}: clips stay here with probability {keep:g}, so it needs a batch size")
    if batch_size is not None and not _is_count(batch_size):
        raise UsageError(f"{where}: the batch size must be a whole number from 1, not {batch_size!r}")
    return BucketPair(resolution, frames, float(keep), None if length is None else float(length), batch_size)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _naming(pair: BucketPair, check: Callable[[int], None]) -> None:
    try:
        check(pair.num_frames)
    except SoraError as error:
        message = f"bucket_config.{pair.resolution}.{pair.num_frames}: {error.message}"
        raise UsageError(message, hint=error.hint) from None
