"""Where the validation loss is measured: sizes and lengths, and the batches of clips in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sora_cli.config.train_schema import with_numbers
from sora_cli.errors import UsageError, unknown_name
from sora_cli.presets import read_table
from sora_cli.training.buckets import BucketTable
from sora_cli.training.plan import MicroBatch, members

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sora_cli.training.source import ClipSource


class LossBucket(NamedTuple):
    """A cell of the result. batch_size: clips at a time at most."""

    resolution: str
    num_frames: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.resolution}, {self.num_frames} frame{'s' if self.num_frames > 1 else ''}"

    @property
    def table(self) -> BucketTable:
        """The configuration with this bucket alone: what is in it does not depend on the others."""
        return BucketTable(bucket_config([self]))


def bucket_config(buckets: Sequence[LossBucket]) -> dict[str, dict[int, list[Any]]]:
    """In the grammar of training, every clip kept. The buckets are in the order of rows and lengths."""
    config: dict[str, dict[int, list[Any]]] = {}
    for bucket in buckets:
        config.setdefault(bucket.resolution, {})[bucket.num_frames] = [1.0, bucket.batch_size]
    return config


def loss_buckets(
    table: Mapping[str, Any] | None = None,
    *,
    rows: Sequence[str] = (),
    start: int = 0,
    end: int | None = None,
    most: int | None = None,
) -> list[LossBucket]:
    """The buckets of a table, in its order.

    table: {resolution: {frames: batch size}}, or with [chance, batch size] as in training, where the chance has no
    meaning here; None for our own. Entries without a batch size are left out. rows: names of those that are wanted,
    none for all; start, end: of the rows, half-open, beyond the last one too. most: clips at a time, whatever the table
    says. Raises UsageError for a name that is not in the table, and for what `BucketTable` refuses.
    """
    if table is None:
        table = with_numbers(read_table("loss-buckets")["buckets"])
    if not isinstance(table, Mapping) or not all(isinstance(lengths, Mapping) for lengths in table.values()):
        raise UsageError("data.bucket_config must hold {resolution: {frames: batch size}}")
    for name in rows:
        if name not in table:
            raise unknown_name("row of the bucket table", name, table)
    found = []
    for name in list(table)[start:end]:
        for frames, entry in table[name].items():
            batch = entry[-1] if isinstance(entry, list | tuple) and entry else entry
            if batch is None or (rows and name not in rows):
                continue
            BucketTable({name: {frames: [1.0, batch]}})  # what it refuses is named
            found.append(LossBucket(name, frames, batch if most is None else min(batch, most)))
    return found


def parse_bucket(text: str) -> LossBucket:
    """ "144p:51:8" as resolution, frames and batch size; the last may be left out, and is 1 then."""
    name, *numbers = text.split(":")
    if len(numbers) not in (1, 2) or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise UsageError(f"--bucket {text!r} is not RES:FRAMES:BATCH", hint="example: --bucket 144p:51:8")
    BucketTable({name: {int(numbers[0]): [1.0, 1]}})
    return LossBucket(name, int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 1)


@dataclass(frozen=True)
class LossBatches:
    """The batches of a bucket, each of one size; used like `training.plan.EpochPlan`.

    num_rows: clips in the bucket; left_out: clips that are not, by reason.
    """

    batches: Sequence[MicroBatch]
    num_rows: int
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        """Batches."""
        return len(self.batches)

    def micro_batch(self, number: int) -> MicroBatch:
        """A batch by number."""
        return self.batches[number]

    def spares(self, number: int, count: int) -> NDArray[np.int64]:
        """None: a clip that cannot be read is not measured, and another one in its place would count twice."""
        return np.zeros(0, np.int64)


def loss_batches(source: ClipSource, bucket: LossBucket, *, num_ranks: int = 1, wraps: bool = False) -> LossBatches:
    """Every clip of the bucket once, in the order of the table, the last batch of each shape short.

    A clip belongs to it with 0.8 of its pixels and more frames than it has, a picture where it has one frame; the shape
    is the nearest one. num_ranks: batches get smaller rather than that one of so many processes has none. wraps: as the
    reference, see `_wrapped`.
    """
    table = bucket.table
    columns = [source.table.numbers(name) for name in ("num_frames", "height", "width")]
    assigned = table.assign(*columns, seed=source.seed, epoch=0, frame_interval=source.data.frame_interval)
    groups = [(table.size(pair, aspect), rows) for pair, aspect, rows in members(table, assigned)]
    num_rows = sum(len(rows) for _, rows in groups)
    left_out = {reason: count for reason, count in assigned.dropped().items() if count}
    if bucket.num_frames == 1 and "too short" in left_out:
        left_out["no pictures"] = left_out.pop("too short")
    if wraps:
        return LossBatches(_wrapped(groups, bucket.batch_size), num_rows, left_out)
    most = max(1, min(bucket.batch_size, -(-num_rows // num_ranks)))
    starts = [(size, rows, start) for size, rows in groups for start in range(0, len(rows), most)]
    batches = [_batch(size, rows[start : start + most]) for size, rows, start in starts]
    return LossBatches(batches, num_rows, left_out)


def _wrapped(groups: Sequence[tuple[tuple[int, int, int], NDArray[np.int64]]], batch_size: int) -> list[MicroBatch]:
    """As many batches as all groups have whole ones, of groups filled up with their own first rows.

    So rows of early groups count twice, and the last ones of later groups not at all. A group of less than half a batch
    cannot be filled up, and is gone.
    """
    batches = []
    for size, rows in groups:
        filled = np.concatenate([rows, rows[: -len(rows) % batch_size]])
        whole = len(filled) // batch_size * batch_size
        batches += [_batch(size, filled[start : start + batch_size]) for start in range(0, whole, batch_size)]
    return batches[: sum(len(rows) // batch_size for _, rows in groups)]


def _batch(size: tuple[int, int, int], rows: NDArray[np.int64]) -> MicroBatch:
    return MicroBatch(size, rows, np.zeros(len(rows), bool))
