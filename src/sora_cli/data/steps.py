"""A chain of steps over a table that is read in batches, with a count of the rows after each step.

Most steps work on one batch after the other, so memory does not grow with the table. Some need all rows at once, or
another table; those are handed to polars as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sora_cli.errors import UsageError, did_you_mean

from .tables import ROWS_AT_ONCE, through

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

#: Rows at a time where each needs a moment.
SLOW_ROWS = 8192


class BatchFunction(Protocol):
    """What a step does to a batch of rows; it may keep things in mind from batch to batch."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows that stay, as they are to be."""
        ...


@dataclass(frozen=True)
class Step:
    """One operation, on batches or on the whole table.

    name: as the user gave it; start: makes the function for one pass over the table; needs: columns that must be there;
    numbers: columns it reads as numbers; rows_at_once: fewer for slow steps, to show that they go on.
    """

    name: str
    start: Callable[[], BatchFunction] | None = None
    whole: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None
    needs: Sequence[str] = ()
    numbers: Sequence[str] = ()
    rows_at_once: int = ROWS_AT_ONCE

    def check(self, columns: Sequence[str]) -> None:
        """Raise UsageError when a column is missing."""
        for column in self.needs:
            if column not in columns:
                lines = [did_you_mean(column, columns), f"it has {', '.join(columns)}"]
                raise UsageError(
                    f"{self.name} needs the column {column}, which the table lacks", hint="\n".join(filter(None, lines))
                )


@dataclass
class Tally:
    """Rows in the table and after each step. first_complete: counts before it are partial, as reading stopped.

    total: rows of the table, where they are known. read: told how many were read.
    """

    rows: list[int]
    first_complete: int = 0
    total: int | None = None
    read: Callable[[int], None] = field(default=lambda rows: None)

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Tally:
        """Nothing is counted yet."""
        return cls([0] * (len(steps) + 1))

    def after(self, index: int) -> int | None:
        """Rows after so many steps, None when they were not all read."""
        return self.rows[index] if index >= self.first_complete else None


class FirstRows:
    """The first rows of a table."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """What is still wanted of the batch."""
        part = batch.head(self.left)
        self.left -= part.height
        return part


class FirstOfEach:
    """Keeps the first row of each value; missing ones are equal. 16 bytes are kept for each value that was seen.

    Values are compared by 128 bits of hashes, which lie in sorted runs that are merged when they are of like length.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.runs: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = []

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows whose value has not been there before."""
        import polars as pl

        values = batch.select(pl.when(pl.col(self.column) != "").then(pl.col(self.column)))[self.column]
        first, second = values.hash(1).to_numpy(), values.hash(2).to_numpy()
        order = np.argsort(first)  # neighbours are looked up in the same part of a run
        first, second = first[order], second[order]
        is_new = values.is_first_distinct().to_numpy()[order]
        for run_first, run_second in self.runs:
            place = np.minimum(np.searchsorted(run_first, first), len(run_first) - 1)
            is_new &= ~((run_first[place] == first) & (run_second[place] == second))
        if is_new.any():
            self._add(first[is_new], second[is_new])
        kept = np.empty_like(is_new)
        kept[order] = is_new
        return batch.filter(pl.Series(kept))

    def _add(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> None:
        """A sorted run more."""
        while self.runs and len(self.runs[-1][0]) <= 2 * len(first):
            other_first, other_second = self.runs.pop()
            first, second = np.concatenate([other_first, first]), np.concatenate([other_second, second])
            order = np.argsort(first, kind="stable")  # which merges runs that are sorted
            first, second = first[order], second[order]
        self.runs.append((first, second))


def apply_steps(frame: pl.LazyFrame, steps: Sequence[Step], tally: Tally, *, count_all: bool = False) -> pl.LazyFrame:
    """The table after the steps; `tally` is filled while it is read.

    count_all: read on when all rows that are wanted are there, to count what the steps before would drop. Raises
    UsageError for columns that are missing.
    """
    at = 0
    while True:
        group = list(itertools.takewhile(lambda step: step.start is not None, steps[at:]))
        frame = _in_batches(frame, group, at, tally, count_all)
        at += len(group)
        if at == len(steps):
            return frame
        step = steps[at]
        step.check(frame.collect_schema().names())
        assert step.whole is not None  # one or the other
        frame = step.whole(frame)
        at += 1


def _in_batches(frame: pl.LazyFrame, steps: Sequence[Step], at: int, tally: Tally, count_all: bool) -> pl.LazyFrame:
    empty = frame.collect_schema().to_frame(eager=True)
    for step, function in zip(steps, _started(steps), strict=True):
        step.check(empty.columns)
        empty = function(empty)

    def work(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        functions = _started(steps)
        tally.rows[at : at + len(steps) + 1] = [0] * (len(steps) + 1)
        for batch in _slices(batches, min([ROWS_AT_ONCE, *(step.rows_at_once for step in steps)])):
            tally.rows[at] += batch.height
            if at == 0:
                tally.read(tally.rows[0])
            for index, function in enumerate(functions, at + 1):
                batch = function(batch)
                tally.rows[index] += batch.height
            yield batch
            full = [
                index for index, each in enumerate(functions, at + 1) if isinstance(each, FirstRows) and each.left <= 0
            ]
            if full and not count_all:
                if at or tally.rows[0] != tally.total:
                    tally.first_complete = full[-1]
                return

    return through(frame, work, empty.schema)


def _slices(batches: Iterator[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    for batch in batches:
        yield from batch.iter_slices(size)


def _started(steps: Sequence[Step]) -> list[BatchFunction]:
    return [step.start() for step in steps if step.start is not None]
