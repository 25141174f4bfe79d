"""Functions over many values in several processes; results do not depend on how many there are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from sora_cli.errors import SoraError
from sora_cli.launch.parent import end_with_parent

from .local import Workers
from .work import Job, Made, Row, Work

Value = TypeVar("Value")
Result = TypeVar("Result")
#: Fewer values are not worth a process.
LEAST_VALUES = 2000


class RowMap:
    """Keeps its processes from call to call; to be used with `with`. seconds: that a file may take."""

    def __init__(self, workers: int, *, seconds: float = 600.0) -> None:
        self.workers, self.seconds = workers, seconds
        self._pool: ProcessPoolExecutor | None = None
        self._for_files: dict[str, Workers] = {}

    def __enter__(self) -> RowMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for workers in self._for_files.values():
            workers.__exit__(kind, error, trace)

    def __call__(
        self, function: Callable[[Value], Result], values: Sequence[Value], *, least: int = LEAST_VALUES
    ) -> list[Result]:
        """function(value) of each value, in order. least: of fewer values none goes to another process.

        The function must be one of a module, or a `functools.partial` of one.
        """
        if self.workers <= 1 or len(values) < least:
            return [function(value) for value in values]
        if self._pool is None:
            # A process that polars has threads in must not be forked.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=end_with_parent)
        size = max(1, len(values) // (self.workers * 8))
        try:
            return list(self._pool.map(function, values, chunksize=size))
        except BrokenProcessPool as error:
            raise SoraError(
                "a worker process was killed", hint="it may have run out of memory; try --workers 1"
            ) from error

    def of_files(self, work: Work, rows: Sequence[Row]) -> list[Made]:
        """What the work makes of each row, in order, by processes that a file may hang or end; see `local.Workers`.

        Works are told apart by their names.
        """
        if work.name not in self._for_files:
            self._for_files[work.name] = Workers(work, ("cpu",) * self.workers)
        places = range(len(rows))
        size = work.rows_at_once
        jobs = (Job(places[start : start + size], rows[start : start + size]) for start in places[::size])
        made = {key: made for outcomes in self._for_files[work.name].do(jobs) for key, made in outcomes}
        return [made[place] for place in places]
