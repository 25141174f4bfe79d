"""Work on this machine: a process for each worker, stopped when it takes too long and replaced when it dies."""

from __future__ import annotations

import errno
import functools
import importlib
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

from sora_cli.errors import EXIT_FAILED, MissingError, SoraError, StopError
from sora_cli.launch.parent import end_with_parent
from sora_cli.plugin.blame import culprit

from .work import Job, Made, Outcome, Row, RowFunction, Work

#: Jobs that wait in front of every worker, so that it never does.
WAITING = 2
#: What a write fails with where nothing more can be written.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
#: Times that a row on its own may end its process before it is given up: the first may be another's fault.
ATTEMPTS = 2


@dataclass
class LocalEngine:
    """Processes of this machine. devices: one worker each, for example ("cuda:0", "cuda:1") or ("cpu",) * 4."""

    devices: Sequence[str] = ("cpu",)

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        """See `work.Engine`."""
        with Workers(work, self.devices) as workers:
            yield from workers.do(jobs)


class Workers:
    """Processes that are ready for one kind of work."""

    def __init__(self, work: Work, devices: Sequence[str]) -> None:
        pool = _pool_class()
        threads = max(1, available_cores() // len(devices))
        # Of processes that are stopped, so that they leave nothing behind.
        self._temporary = tempfile.TemporaryDirectory(prefix="sora-", ignore_cleanup_errors=True)
        settings = (work.target, dict(work.options), threads, self._temporary.name)
        self.work, self.workers = work, [_Worker(pool, settings, device, work.seconds) for device in devices]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.is_ended = True
        for worker in self.workers:
            worker.close()
        self._temporary.cleanup()

    def do(self, jobs: Iterator[Job], *, is_limited: bool = True) -> Iterator[Sequence[Outcome]]:
        """The outcomes of jobs as they come; see `work.Engine`. is_limited: whether the work's time counts."""
        again: deque[_Task] = deque()
        running: dict[Any, tuple[_Worker, _Task]] = {}
        while True:
            for _ in range(WAITING):
                for worker in self.workers:
                    if sum(1 for other, _ in running.values() if other is worker) < WAITING:
                        task = again.popleft() if again else _next_task(jobs)
                        if task is not None:
                            running[worker.start(task, is_limited)] = worker, task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                _, task = running.pop(future)
                yield _outcomes(future, task, self.work, again)


class _Task(NamedTuple):
    job: Job
    attempt: int = 0


class _Failed(NamedTuple):
    """An error of ours on its way to the main process."""

    message: str
    hint: str | None
    exit_code: int


class _Worker:
    """One process, replaced when it ends."""

    def __init__(self, pool: Any, settings: tuple[Any, ...], device: str, seconds: float) -> None:
        # A forked copy of a process with threads, which polars has, may hang.
        context = multiprocessing.get_context("spawn")
        initargs = (device, *settings)
        self.make = functools.partial(pool, max_workers=1, initializer=_settle, initargs=initargs, context=context)
        self.pool = self.make()
        self.seconds = seconds
        self.is_ended = False

    def start(self, task: _Task, is_limited: bool) -> Any:
        if self.is_ended:  # by another thread than the one that hands out tasks
            raise SoraError("the run has ended")
        if not self.pool.active:  # its process was ended by somebody between two tasks
            self.close()
            self.pool = self.make()
        # Counted from when the process takes it, so loading networks at its start is not part of it.
        seconds = self.seconds * len(task.job.rows) if is_limited else None
        return self.pool.schedule(_do, args=(list(task.job.rows),), timeout=seconds)

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool_class() -> Any:
    try:
        from pebble import ProcessPool
    except ImportError as error:
        raise MissingError("the package pebble is missing", hint="pip install 'sora-cli[data]'") from error
    return ProcessPool


def _next_task(jobs: Iterator[Job]) -> _Task | None:
    job = next(jobs, None)
    return None if job is None else _Task(job)


def _outcomes(future: Any, task: _Task, work: Work, again: deque[_Task]) -> Sequence[Outcome]:
    """What came of a task; parts of it that must be tried on their own are put into `again`."""
    from pebble import ProcessExpired

    job = task.job
    try:
        made = future.result()
    except (FutureTimeoutError, ProcessExpired, BrokenProcessPool) as error:
        if len(job.rows) > 1:
            again.extend(_Task(Job([key], [row])) for key, row in zip(job.keys, job.rows, strict=True))
            return []
        is_late = isinstance(error, FutureTimeoutError)
        if not is_late and task.attempt + 1 < ATTEMPTS:
            again.append(_Task(job, task.attempt + 1))
            return []
        why = f"it took longer than {work.seconds:g} s" if is_late else f"the process ended ({_ending(error)})"
        return [Outcome(job.keys[0], Made(reason=f"{_name(job.rows[0])}: {why}"))]
    if isinstance(made, _Failed):
        raise SoraError(made.message, hint=made.hint, exit_code=made.exit_code)
    return [Outcome(key, named(row, one)) for key, row, one in zip(job.keys, job.rows, made, strict=True)]


def _ending(error: Any) -> str:
    code = getattr(error, "exitcode", None)
    if code is None:
        return "it was ended"
    return f"signal {-code}" if isinstance(code, int) and code < 0 else f"exit code {code}"


def named(row: Row, made: Made) -> Made:
    """What was made of a row, with its name before the reason."""
    return made if made.reason is None else Made(made.rows, f"{_name(row)}: {made.reason}")


def _name(row: Row) -> str:
    return str(row.get("path", "a row"))


# -- in the worker ---------------------------------------------------------------------------------------------------

_function: RowFunction | _Failed


def _settle(device: str, target: str, options: Mapping[str, Any], threads: int, temporary: str) -> None:
    global _function
    end_with_parent()
    tempfile.tempdir = temporary
    # Libraries that are imported from here on would start a thread for every core in every process.
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, str(threads))
    try:
        _function = make_function(target, options, device)
    except SoraError as error:
        _function = _Failed(error.message, error.hint, error.exit_code)
    except Exception as error:  # the pool would only say that it is broken
        _function = _Failed(f"{target} cannot start: {_reason(error)}", None, EXIT_FAILED)


def _do(rows: list[Row]) -> Sequence[Made] | _Failed:
    """The rows' results; a row that raises has its reason."""
    try:
        return _function if isinstance(_function, _Failed) else apply(_function, rows)
    except StopError as error:
        return _Failed(error.message, error.hint, error.exit_code)


def make_function(target: str, options: Mapping[str, Any], device: str) -> RowFunction:
    """What `Work.target` names, ready."""
    module, _, name = target.partition(":")
    function: RowFunction = getattr(importlib.import_module(module), name)(options, device)
    return function


def apply(function: RowFunction, rows: Sequence[Row]) -> Sequence[Made]:
    """The results of rows; where it raises, each row's on its own, so that only the bad one is without.

    Raises StopError when the function does, and when nothing more can be written.
    """
    try:
        return function(rows)
    except StopError:
        raise
    except Exception as error:  # any fault of any library in a file that somebody else made
        if _is_full(error):
            raise StopError(_reason(error), hint="make room, and give the same command again: it goes on") from error
        if len(rows) == 1:
            return [Made(reason=_reason(error))]
    return [apply(function, [row])[0] for row in rows]


def _is_full(error: BaseException) -> bool:
    """Whether an error comes from a file system that takes no more, which is no fault of a row."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in FULL):
        cause = cause.__cause__
    return cause is not None


def _reason(error: Exception) -> str:
    if isinstance(error, SoraError):
        return error.message
    text = str(error).strip().splitlines()
    place = culprit(error)
    return ": ".join([*([place] if place else []), type(error).__name__, *text[:1]])
