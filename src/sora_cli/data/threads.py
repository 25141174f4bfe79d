"""Work that waits for others, such as services: threads of this process, which share one row function.

What must be prepared from files, where a decoder may hang or crash, is done before in processes of its own.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sora_cli.console import get_console

from .local import Workers, apply, make_function, named
from .work import Job, Made, Outcome, Row, RowFunction, Work


class _Task(NamedTuple):
    key: int
    row: Row


#: What a thread says when it has ended; the other messages are outcomes and errors.
_ENDED = object()


@dataclass
class ThreadEngine:
    """Rows are done by so many threads, one row at a time each.

    before: work that is done with every row first, in processes on these devices; the one row that it makes replaces
    the row. After Ctrl-C, or an error that stops everything, rows that are under way are finished and kept.
    """

    threads: int
    before: Work | None = None
    devices: Sequence[str] = ("cpu",)

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        """See `work.Engine`. The row function must be safe to be called by several threads.

        It is made at once, so that a service that cannot be asked is an error before anything is begun.
        """
        return self._outcomes(make_function(work.target, work.options, "cpu"), jobs)

    def _outcomes(self, function: RowFunction, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        with contextlib.ExitStack() as stack:
            workers = None
            if self.before is not None:
                workers = stack.enter_context(Workers(self.before, self.devices))
            yield from _Run(function, self.threads).outcomes(jobs, workers)


class _Run:
    """One run of the engine: a thread that fetches rows, those that do them, and the caller, who gets the outcomes."""

    def __init__(self, function: RowFunction, threads: int) -> None:
        self.function, self.threads = function, threads
        self.is_stopping = False
        # As many rows wait as are under way: frames of clips need memory.
        self.tasks: queue.Queue[_Task | None] = queue.Queue(threads)
        # May be put into by a signal handler, which other queues may not.
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def outcomes(self, jobs: Iterator[Job], workers: Workers | None) -> Iterator[Sequence[Outcome]]:
        """All of them as they come. Raises the error that stopped the run, and KeyboardInterrupt."""
        error: BaseException | None = None
        with _interrupts_put_into(self.done) as let_through:
            self._start(jobs, workers)
            running = self.threads
            try:
                while running:
                    message = self.done.get()
                    if message is _ENDED:
                        running -= 1
                    elif isinstance(message, Outcome):
                        yield [message]
                    elif error is None:
                        error = message
                        if isinstance(error, KeyboardInterrupt):
                            get_console().note("waiting for the answers that are under way; Ctrl-C again does not")
                        let_through()
                        self._stop()
            finally:
                self._stop()
        if error is not None:
            raise error

    def _start(self, jobs: Iterator[Job], workers: Workers | None) -> None:
        """Threads that keep no program from ending."""
        threading.Thread(target=self._feed, args=(jobs, workers), daemon=True).start()
        for _ in range(self.threads):
            threading.Thread(target=self._serve, daemon=True).start()

    def _stop(self) -> None:
        """Begin no further row."""
        self.is_stopping = True
        for _ in range(self.threads):
            with contextlib.suppress(queue.Full):  # those that are busy find what is in the queue
                self.tasks.put_nowait(None)

    def _feed(self, jobs: Iterator[Job], workers: Workers | None) -> None:
        try:
            for task in self._tasks(jobs, workers):
                if self.is_stopping:
                    return
                self.tasks.put(task)
        except BaseException as error:  # it is the caller who raises it
            self.done.put(error)
        else:
            for _ in range(self.threads):
                self.tasks.put(None)

    def _tasks(self, jobs: Iterator[Job], workers: Workers | None) -> Iterator[_Task]:
        """Rows that are ready; those that cannot be made ready are done with that."""
        if workers is None:
            for job in jobs:
                yield from map(_Task, job.keys, job.rows)
            return
        for outcomes in workers.do(jobs):
            for outcome in outcomes:
                if outcome.made.reason is None:
                    yield _Task(outcome.key, outcome.made.rows[0])
                else:
                    self.done.put(outcome)

    def _serve(self) -> None:
        try:
            while not self.is_stopping and (task := self.tasks.get()) is not None:
                if not self.is_stopping:
                    self.done.put(Outcome(task.key, self._make(task.row)))
        except BaseException as error:
            self.done.put(error)
        finally:
            self.done.put(_ENDED)

    def _make(self, row: Row) -> Made:
        return named(row, apply(self.function, [row])[0])


@contextlib.contextmanager
def _interrupts_put_into(done: queue.SimpleQueue[Any]) -> Iterator[Any]:
    """Ctrl-C and SIGTERM are messages, so that they interrupt no writing; what is given lets the next one interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {stop: signal.signal(stop, lambda *_: done.put(KeyboardInterrupt())) for stop in stops}

    def restore() -> None:
        for stop, handler in before.items():
            signal.signal(stop, handler)

    try:
        yield restore
    finally:
        restore()
