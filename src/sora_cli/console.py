"""What the program says: results on stdout, everything else on stderr, for people, for programs and for pipes.

human: tables and text. json: one JSON document on stdout when the command ends. quiet: only results, one a line;
warnings and errors still reach stderr.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from .errors import SoraError
from .redaction import redact

Mode = Literal["human", "json", "quiet"]


def counted(count: int, noun: str) -> str:
    """A number of things for people: "1 row", "2 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Progress(Protocol):
    """A running count, from `Console.progress`."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        ...

    def update(self, done: int) -> None:
        """Set how many are done in all."""
        ...


class Console:
    """Everything the program prints goes through one of these verbs."""

    def __init__(self, mode: Mode = "human") -> None:
        self.mode = mode
        self._results: list[Any] = []
        self._document: Any = None
        self._has_document = False

    def result(self, value: str | Path, record: Mapping[str, Any] | None = None) -> None:
        """Something the user asked for, usually a path. In JSON the document is the list of all `record`s."""
        if self.mode == "json":
            self._results.append(dict(record) if record is not None else str(value))
        else:
            self._print(str(value))

    def record(self, mapping: Mapping[str, Any], title: str | None = None) -> None:
        """Keys and values; in JSON the whole document is this object. Nested mappings are indented."""
        if self.mode == "json":
            self._set_document(dict(mapping))
        else:
            self._print_record(mapping, title)

    def records(self, mappings: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> None:
        """Several records under their titles; in JSON the document is the list of them, even of one."""
        if self.mode == "json":
            self._set_document([dict(mapping) for mapping in mappings])
            return
        for index, (mapping, title) in enumerate(zip(mappings, titles, strict=True)):
            if index and self.mode == "human":
                self._print("")
            self._print_record(mapping, title)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None) -> None:
        """Rows by column; in JSON a list of objects with all keys of each row, `[]` when empty.

        Quiet prints the column "name", or the first one, a row per line.
        """
        if self.mode == "json":
            self._set_document([dict(row) for row in rows])
        elif self.mode == "quiet":
            key = "name" if "name" in columns else columns[0]
            for row in rows:
                self._print(str(row.get(key, "")))
        else:
            for line in _table_lines(rows, columns, title):
                self._print(line)

    def text(self, text: str, document: Any) -> None:
        """Text printed as it is (a script, a YAML file); in JSON the document is `document`."""
        if self.mode == "json":
            self._set_document(document)
        else:
            self._print(text.rstrip("\n"))

    def note(self, text: str) -> None:
        """Something worth knowing; on stderr, not in quiet mode."""
        if self.mode != "quiet":
            self._say(text)

    def warn(self, text: str) -> None:
        """Something the user can act on; on stderr in every mode."""
        self._say(f"warning: {text}")

    def error(self, error: SoraError) -> None:
        """Why it failed and what to do next; on stderr in every mode."""
        lines = [f"error: {error.message}", *(f"  {line}" for line in (error.hint or "").splitlines())]
        self._say("\n".join(lines))

    def progress(self, description: str, total: int, done: int = 0) -> contextlib.AbstractContextManager[Progress]:
        """Count `total` steps: a bar with elapsed and remaining time on a terminal, else a line now and then.

        done: how many were done before, which say nothing about the time that is left. In quiet mode nothing is shown.
        """
        from . import progress

        if self.mode == "quiet":
            return progress.silent()
        if is_terminal(sys.stderr):
            return progress.bar(description, total, done)
        return progress.lines(description, total, self._say, done)

    def finish(self) -> None:
        """Print the JSON document; called once when a command ends. The other modes have printed already."""
        if self.mode != "json":
            return
        document = self._document if self._has_document else self._results
        is_ascii = not _output_encoding().startswith("utf")
        self._print(json.dumps(document, indent=2, ensure_ascii=is_ascii, default=str))

    def has_output(self) -> bool:
        """Whether a JSON document has been started."""
        return self._has_document or bool(self._results)

    def _set_document(self, document: Any) -> None:
        if self.has_output():
            raise RuntimeError("a command prints one JSON document: use one of result, record, records, table or text")
        self._document, self._has_document = document, True

    def _print_record(self, mapping: Mapping[str, Any], title: str | None) -> None:
        if title and self.mode == "human":
            self._print(title)
        for line in _record_lines(mapping, "  " if title and self.mode == "human" else ""):
            self._print(line)

    def _print(self, text: str) -> None:
        encoding = _output_encoding()
        try:
            # Letters that the terminal's encoding lacks are no reason to fail.
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            print(text, file=sys.stdout, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SoraError(f"cannot write to standard output: {error.strerror}") from error

    def _say(self, text: str) -> None:
        # Results come first where both streams are the same terminal or file.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        print(redact(text), file=sys.stderr, flush=True)


_console = Console()


def get_console() -> Console:
    """The console of the running command."""
    return _console


def set_console(mode: Mode = "human") -> Console:
    """Start a fresh console for a command."""
    global _console
    _console = Console(mode)
    return _console


@contextlib.contextmanager
def command_output(*, json: bool = False, quiet: bool = False) -> Iterator[Console]:
    """The console for one command, with its JSON document printed at the end.

    A command that fails prints no document, unless some results were already finished: those are printed.
    """
    console = set_console("json" if json else "quiet" if quiet else "human")
    try:
        yield console
    except BaseException:
        if console.has_output():
            console.finish()
        raise
    console.finish()


def _output_encoding() -> str:
    return (sys.stdout.encoding or "utf-8").lower()  # a stream that takes text as it is names none


def is_terminal(stream: Any) -> bool:
    """Whether a person is looking at `stream`; a terminal that cannot move the cursor (TERM=dumb) does not count."""
    import os

    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) if value else "-"
    return str(value)


def _table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None) -> list[str]:
    """Columns padded to their widest cell, a header line first; the last column is cut at the terminal's edge."""
    import shutil

    lines = [title] if title else []
    if not rows:
        return [*lines, "(none)"]
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    # A pipe gets everything; only a terminal has an edge.
    edge = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else sys.maxsize
    for line in [list(columns), *cells]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        lines.append(text if len(text) <= edge else text[: edge - 1] + "…")
    return lines


def _record_lines(mapping: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    plain = [len(str(key)) for key, value in mapping.items() if not isinstance(value, Mapping) or not value]
    width = max(plain, default=0)
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{key}")
            lines.extend(_record_lines(value, indent + "  "))
        else:
            shown = "-" if isinstance(value, Mapping) else _cell(value)
            lines.append(f"{indent}{str(key).ljust(width)}  {shown}".rstrip())
    return lines
