"""Ways to show a running count: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 5.0


class _Silent:
    def advance(self, n: int = 1) -> None:
        """Count, showing nothing."""

    def update(self, done: int) -> None:
        """Count, showing nothing."""


@contextlib.contextmanager
def silent() -> Iterator[_Silent]:
    """A count that nobody sees."""
    yield _Silent()


class _Bar:
    def __init__(self, description: str, total: int, done: int) -> None:
        # rich is imported here because only a terminal needs it.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.view = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.view.add_task(description, total=total, completed=done)

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.view.advance(self.task, n)

    def update(self, done: int) -> None:
        """Set how many are done in all."""
        self.view.update(self.task, completed=done)


@contextlib.contextmanager
def bar(description: str, total: int, done: int = 0) -> Iterator[_Bar]:
    """A bar on stderr with elapsed and remaining time."""
    shown = _Bar(description, total, done)
    with shown.view:
        yield shown


class _Lines:
    def __init__(self, description: str, total: int, say: Callable[[str], None], done: int) -> None:
        self.description, self.total, self.say = description, total, say
        self.done = self.before = done
        self.start = self.said_at = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.update(self.done + n)

    def update(self, done: int) -> None:
        """Set how many are done in all; says so when the last line is old enough."""
        self.done = done
        now = time.monotonic()
        if done < self.total and now - self.said_at >= SECONDS_BETWEEN_LINES:
            self.said_at = now
            elapsed = now - self.start
            new = done - self.before
            left = f", about {clock(elapsed / new * (self.total - done))} left" if new > 0 else ""
            self.say(f"{self.description}: {done}/{self.total}, {clock(elapsed)} so far{left}")


@contextlib.contextmanager
def lines(description: str, total: int, say: Callable[[str], None], done: int = 0) -> Iterator[_Lines]:
    """One line at the start, one at most every 5 seconds, one at the end."""
    say(f"{description} ...")
    shown = _Lines(description, total, say, done)
    yield shown
    # Only when nothing was raised: an error has its own message.
    say(f"{description}: {shown.done}/{total} in {clock(time.monotonic() - shown.start)}")


def clock(seconds: float) -> str:
    """A length of time for people: 4.2 s, 3:07, 1:02:05."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
