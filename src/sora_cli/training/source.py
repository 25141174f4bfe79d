"""Where the batches of a run come from: plans and loaders for a table of clips."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .buckets import Assignment, BucketTable
from .plan import EpochPlan, FixedPlan

if TYPE_CHECKING:
    import torch

    from sora_cli.config.train_schema import ClipSection

    from .dataset import Batch, KeptWorkers
    from .dataset import Plan as BatchPlan
    from .table import ClipTable

Plan = EpochPlan | FixedPlan


@dataclass(frozen=True)
class ClipSource:
    """Batches of a table. buckets: None where all clips get one size, (frames, height, width)."""

    table: ClipTable
    data: ClipSection
    seed: int
    buckets: BucketTable | None
    size: tuple[int, int, int] | None = None

    @property
    def has_chance(self) -> bool:
        """Whether epochs differ in their number of micro-batches."""
        return self.buckets is not None and self.buckets.has_chance

    def assign(self, epoch: int) -> Assignment:
        """The buckets of all rows in an epoch."""
        assert self.buckets is not None  # asked for tables with buckets only
        columns = [self.table.numbers(name) for name in ("num_frames", "height", "width")]
        interval = self.data.frame_interval
        return self.buckets.assign(*columns, seed=self.seed, epoch=epoch, frame_interval=interval)

    def plan(self, epoch: int, *, num_ranks: int, start: int = 0, shuffle: bool = True, drop_last: bool = True) -> Plan:
        """The micro-batches of an epoch, of which `start` are done. drop_last: of buckets; see `EpochPlan`."""
        if self.buckets is not None:
            assigned = self.assign(epoch)
            order = {"shuffle": shuffle, "drop_last": drop_last}
            return EpochPlan(self.buckets, assigned, seed=self.seed, epoch=epoch, **order)
        assert self.size is not None  # one or the other
        return FixedPlan(
            len(self.table),
            self.size,
            self.data.batch_size or 1,
            num_ranks=num_ranks,
            seed=self.seed,
            epoch=epoch,
            start=start,
            shuffle=shuffle,
            drop_last=drop_last,
        )

    def load(
        self,
        plan: BatchPlan,
        numbers: Sequence[int],
        epoch: int,
        *,
        dtype: torch.dtype,
        pin_memory: bool,
        kept: KeptWorkers | None = None,
        skips_bad: bool = False,
    ) -> Generator[Batch, None, None]:
        """The batches of these micro-batches. dtype: of pixels; kept, skips_bad: of `load_batches`, `ClipOptions`."""
        from .dataset import ClipOptions, load_batches

        data = self.data
        shared: dict[str, Any] = {
            name: getattr(data, name)
            for name in (
                *("transform", "frame_interval", "exact_stride", "fps_condition", "aspect_condition"),
                *("score_captions", "score_drop", "reader"),
            )
            if hasattr(data, name)  # autoencoders are told nothing of a clip
        }
        options = ClipOptions(seed=self.seed, dtype=dtype, skips_bad=skips_bad, **shared)
        # More processes than cores make each other wait; results do not depend on their number.
        workers = min(data.workers, os.cpu_count() or 1, *([] if kept is not None else [len(numbers)]))
        return load_batches(
            self.table,
            plan,
            numbers,
            options,
            epoch,
            num_workers=workers,
            prefetch=data.prefetch,
            pin_memory=pin_memory,
            kept=kept,
        )
