"""What the processes of a run say, carried to the command that started them.

Each process writes JSON lines to a file of its own in the run's folder; the parent follows the files and says the same
through its own console, so that --json, --quiet and progress bars work as with one process.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_cli import console as consoles
from sora_cli.console import Console, Progress
from sora_cli.errors import NotEnoughMemoryError, SoraError


class LostConnectionError(SoraError):
    """A process lost the others, or did not find them."""


def events_path(folder: Path, rank: int) -> Path:
    """The file of one process."""
    return folder / f"events-{rank:04}.jsonl"


class EventConsole(Console):
    """A console that writes down what it is asked to print. is_spokesman: whether notes and progress are written."""

    def __init__(self, path: Path, *, is_spokesman: bool) -> None:
        super().__init__("human")
        self._file = path.open("a", encoding="utf-8")
        self.is_spokesman = is_spokesman

    def result(self, value: str | Path, record: Mapping[str, Any] | None = None) -> None:
        """As the console."""
        self._write("result", value=str(value), record=None if record is None else dict(record))

    def note(self, text: str) -> None:
        """As the console."""
        if self.is_spokesman:
            self._write("note", text=text)

    def warn(self, text: str) -> None:
        """As the console."""
        if self.is_spokesman:
            self._write("warn", text=text)

    def error(self, error: SoraError) -> None:
        """As the console, with the exit code."""
        content = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        kinds = {
            "is_memory": isinstance(error, NotEnoughMemoryError),
            "is_lost": isinstance(error, LostConnectionError),
        }
        self._write("error", at=time.time(), **kinds, **content)

    @contextlib.contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        """As the console."""
        if not self.is_spokesman:
            from sora_cli.progress import silent

            with silent() as nothing:
                yield nothing
            return
        self._write("start", description=description, total=total, done=done)
        yield _WrittenProgress(self, done)
        self._write("end")

    def _write(self, kind: str, **content: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **content}) + "\n")
        self._file.flush()


class _WrittenProgress:
    def __init__(self, console: EventConsole, done: int) -> None:
        self.console, self.done = console, done

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.update(self.done + n)

    def update(self, done: int) -> None:
        """Set how many are done in all."""
        self.done = done
        self.console._write("update", done=done)


def use_event_console(path: Path, *, is_spokesman: bool) -> EventConsole:
    """Make everything this process prints go to the file."""
    console = EventConsole(path, is_spokesman=is_spokesman)
    consoles._console = console
    return console


class Replay:
    """Says in this process what the others wrote. Results come in the order of `order`, whoever is ready first."""

    def __init__(self, folder: Path, num_processes: int, order: list[str], said: Sequence[str] = ()) -> None:
        """order: the values of all results that may come; said: values of results that are not said again."""
        self.paths = [events_path(folder, rank) for rank in range(num_processes)]
        self.read = [0] * num_processes
        self.order, self.said = order, frozenset(said)
        self.waiting: dict[str, Any] = {}
        self.error: SoraError | None = None
        #: Kept apart: it tells that another process ended, not why.
        self.lost_connection: SoraError | None = None
        self._failed_at = float("inf")
        self._progress: tuple[Any, Progress] | None = None

    def poll(self) -> None:
        """Say what is new."""
        for index, path in enumerate(self.paths):
            if not path.is_file():
                continue
            with path.open(encoding="utf-8") as file:
                file.seek(self.read[index])
                while (line := file.readline()).endswith("\n"):
                    self.read[index] = file.tell()
                    self._say(json.loads(line))

    def _say(self, event: dict[str, Any]) -> None:
        console = consoles.get_console()
        match event["kind"]:
            case "note":
                console.note(event["text"])
            case "warn":
                console.warn(event["text"])
            case "error" if event["is_lost"]:
                self.lost_connection = LostConnectionError(event["message"], hint=event["hint"])
            case "error":
                # The first counts; later ones are mostly what it led to.
                if event["at"] < self._failed_at:
                    self._failed_at = event["at"]
                    kind = NotEnoughMemoryError if event["is_memory"] else SoraError
                    self.error = kind(event["message"], hint=event["hint"], exit_code=event["exit_code"])
            case "result" if event["value"] not in self.said:
                self.waiting[event["value"]] = event["record"]
                while self.order and self.order[0] in self.waiting:
                    value = self.order.pop(0)
                    console.result(value, self.waiting.pop(value))
            case "start":
                manager = console.progress(event["description"], event["total"], event["done"])
                self._progress = (manager, manager.__enter__())
            case "update" if self._progress is not None:
                self._progress[1].update(event["done"])
            case "end":
                self.close()

    def flush(self) -> None:
        """Say the results that still wait for others, which another machine may have made."""
        for value, record in self.waiting.items():
            consoles.get_console().result(value, record)
        self.waiting.clear()

    def close(self) -> None:
        """End a progress that is shown."""
        if self._progress is not None:
            self._progress[0].__exit__(None, None, None)
            self._progress = None
