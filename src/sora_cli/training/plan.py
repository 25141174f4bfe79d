"""The batches of an epoch: which rows are trained together, in which order, on which rank.

A plan is a function of the assignment, the seed and the epoch alone. Micro-batches are numbered over all ranks; at
iteration i of a run that continues at micro-batch `start`, rank r of R takes number start + i R + r. So a run can go on
with another number of ranks and neither repeats nor loses a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .buckets import Assignment, BucketTable, hashed_uniforms

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Clips of other buckets that stand by for a micro-batch.
OTHERS = 8


class MicroBatch(NamedTuple):
    """Rows trained together. size: (frames, height, width); is_repeat: True for rows that fill up, (n,)."""

    size: tuple[int, int, int]
    rows: NDArray[np.int64]
    is_repeat: NDArray[np.bool_]


@dataclass(frozen=True)
class Bucket:
    """The rows of one bucket in an epoch, in the order of training, cut or filled up to whole micro-batches."""

    pair: int
    aspect: int
    num_rows: int
    batch_size: int
    rows: NDArray[np.int64]

    @property
    def num_batches(self) -> int:
        """Micro-batches of it."""
        return len(self.rows) // self.batch_size


class EpochPlan:
    """All micro-batches of an epoch."""

    def __init__(
        self,
        table: BucketTable,
        assignment: Assignment,
        *,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        """shuffle: in a random order, so that other rows are left over in each epoch.

        drop_last: leave out what does not fill a micro-batch; otherwise rows of the bucket are repeated until it does.
        """
        self.table, self.seed, self.epoch = table, seed, epoch
        self.drop_last = drop_last
        self.buckets = [self._bucket(pair, aspect, rows, shuffle) for pair, aspect, rows in members(table, assignment)]
        of_batch = np.repeat(np.arange(len(self.buckets)), [bucket.num_batches for bucket in self.buckets])
        place = [np.arange(bucket.num_batches) for bucket in self.buckets]
        in_bucket = np.concatenate(place) if place else np.zeros(0, np.int64)
        if shuffle:
            order = self._shuffled(len(of_batch), "micro-batches")
            of_batch, in_bucket = of_batch[order], in_bucket[order]
        self._of_batch, self._in_bucket = of_batch, in_bucket

    def __len__(self) -> int:
        """Micro-batches over all ranks."""
        return len(self._of_batch)

    def num_steps(self, num_ranks: int, start: int = 0) -> int:
        """Iterations from micro-batch `start` on, the same on every rank."""
        left = max(len(self) - start, 0)
        return left // num_ranks if self.drop_last else -(-left // num_ranks)

    def micro_batch(self, number: int) -> MicroBatch:
        """A micro-batch by number. Numbers past the end, asked for when nothing is dropped, repeat the first ones."""
        is_past = number >= len(self)
        index = number % len(self)
        bucket = self.buckets[self._of_batch[index]]
        start = int(self._in_bucket[index]) * bucket.batch_size
        places = np.arange(start, start + bucket.batch_size)
        is_repeat = np.logical_or(places >= bucket.num_rows, is_past)
        return MicroBatch(self.table.size(bucket.pair, bucket.aspect), bucket.rows[places], is_repeat)

    def spares(self, number: int, count: int) -> NDArray[np.int64]:
        """Rows that stand by: up to `count` of the same bucket, drawn at random, then some of others.

        They are not those of the micro-batch if the bucket has others.
        """
        index = self._of_batch[number % len(self)]
        bucket, key = self.buckets[index], (self.seed, self.epoch, "spares", number)
        own = _spares(bucket.rows, self.micro_batch(number).rows, count, key)
        # Behind them clips of other shapes and sizes that are long enough, for a bucket without a good one.
        length = self.table.pairs[bucket.pair].num_frames
        others = [
            other.rows
            for place, other in enumerate(self.buckets)
            if place != index and len(other.rows) and self._can_replace(self.table.pairs[other.pair].num_frames, length)
        ]
        if not others:
            return own
        chosen = (hashed_uniforms(np.arange(OTHERS), (*key, "buckets")) * len(others)).astype(np.int64)
        places = hashed_uniforms(np.arange(OTHERS), (*key, "rows"))
        rows = [others[one][int(place * len(others[one]))] for one, place in zip(chosen, places, strict=True)]
        return np.concatenate([own, np.array(list(dict.fromkeys(rows)), np.int64)])

    @staticmethod
    def _can_replace(other: int, length: int) -> bool:
        return (other == 1) == (length == 1) and other >= length

    def batches(self, rank: int, num_ranks: int, start: int = 0) -> list[MicroBatch]:
        """What one rank trains from micro-batch `start` on."""
        return [self.micro_batch(start + step * num_ranks + rank) for step in range(self.num_steps(num_ranks, start))]

    def _bucket(self, pair: int, aspect: int, rows: NDArray[np.int64], shuffle: bool) -> Bucket:
        size = self.table.pairs[pair].batch_size
        assert size is not None  # an entry without one keeps nothing
        if shuffle:  # before cutting, so that every row is equally likely to be left over
            rows = rows[self._shuffled(len(rows), self.table.bucket(pair, aspect))]
        whole = len(rows) // size * size
        filled = rows[:whole] if self.drop_last else np.resize(rows, -(-len(rows) // size) * size)
        return Bucket(pair, aspect, len(rows), size, filled)

    def _shuffled(self, count: int, of_what: Any) -> NDArray[np.int64]:
        numbers = hashed_uniforms(np.arange(count), (self.seed, self.epoch, "order", of_what))
        order: NDArray[np.int64] = numbers.argsort(kind="stable")
        return order


class FixedPlan:
    """The micro-batches of an epoch where all clips have one size, from micro-batch `start` on.

    The rows left, in a random order if asked, are repeated from the first up to a multiple of the ranks and dealt out
    one by one; what does not fill a rank's last batch is left out.
    """

    def __init__(
        self,
        num_rows: int,
        size: tuple[int, int, int],
        batch_size: int,
        *,
        num_ranks: int,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        drop_last: bool = True,
        start: int = 0,
    ) -> None:
        """size: (frames, height, width) of the clips. drop_last: otherwise rows are repeated to fill the last batch."""
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, epoch
        self.num_ranks, self.start, self.drop_last = num_ranks, start, drop_last
        rows = np.arange(num_rows)
        if shuffle:
            rows = rows[hashed_uniforms(rows, (seed, epoch, "order", "all rows")).argsort(kind="stable")]
        self.order, self.rows = rows, rows[start * batch_size :]

    def __len__(self) -> int:
        """Micro-batches over all ranks, with those before `start`."""
        return self.start + self.num_steps(self.num_ranks, self.start) * self.num_ranks

    def num_steps(self, num_ranks: int, start: int = 0) -> int:
        """Iterations from micro-batch `start` on."""
        if num_ranks != self.num_ranks:
            raise ValueError(f"a plan for {self.num_ranks} ranks cannot be used by {num_ranks}")
        each = -(-len(self.rows) // num_ranks)
        whole = each // self.batch_size if self.drop_last else -(-each // self.batch_size)
        return max(whole - (start - self.start) // num_ranks, 0)

    def micro_batch(self, number: int) -> MicroBatch:
        """A micro-batch by number."""
        step, rank = divmod(number - self.start, self.num_ranks)
        first = step * self.batch_size
        places = np.arange(first, first + self.batch_size) * self.num_ranks + rank
        is_repeat = places >= len(self.rows)
        # From the first row of the epoch, wherever this plan starts.
        first_rows = self.order[(places - len(self.rows)) % len(self.order)]
        inside = self.rows[np.minimum(places, len(self.rows) - 1)] if len(self.rows) else first_rows
        return MicroBatch(self.size, np.where(is_repeat, first_rows, inside), is_repeat)

    def spares(self, number: int, count: int) -> NDArray[np.int64]:
        """As `EpochPlan.spares`, of all rows."""
        return _spares(self.order, self.micro_batch(number).rows, count, (self.seed, self.epoch, "spares", number))


def _spares(members: NDArray[np.int64], used: NDArray[np.int64], count: int, key: tuple[Any, ...]) -> NDArray[np.int64]:
    drawn = members[(hashed_uniforms(np.arange(count), key) * len(members)).astype(np.int64)]
    distinct = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    others: NDArray[np.int64] = distinct[~np.isin(distinct, used)]
    return others if len(others) else distinct


def feature_batches(
    num_files: int, batches_per_file: int, *, rank: int, num_ranks: int, start: int = 0
) -> NDArray[np.int64]:
    """Numbers of the stored batches that one rank trains, from its batch `start` on: files in turn, equally many each.

    Number = file x batches_per_file + place in the file; files beyond a multiple of the ranks are not used.
    """
    own = num_files // num_ranks * batches_per_file
    return np.arange(rank * own + start, (rank + 1) * own)


def members(table: BucketTable, assignment: Assignment) -> list[tuple[int, int, NDArray[np.int64]]]:
    """(pair, aspect, rows) of the buckets that are not empty, ordered by their first row; rows in table order."""
    rows = np.flatnonzero(assignment.pair >= 0)
    if not len(rows):
        return []
    codes = assignment.pair[rows].astype(np.int32) * 64 + assignment.aspect[rows]
    order = codes.argsort(kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    groups = [rows[part] for part in np.split(order, cuts)]
    groups.sort(key=lambda members: members[0])
    return [(int(assignment.pair[group[0]]), int(assignment.aspect[group[0]]), group) for group in groups]
