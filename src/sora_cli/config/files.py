"""YAML as this project reads it, and the configuration files that are looked for.

YAML 1.1 turns `16:9` into 969 and `no` into false, which nobody writing an aspect ratio or a camera motion wants.
So plain scalars follow the YAML 1.2 core schema here, and a key given twice is an error instead of a quiet choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError

PROJECT_FILE = "sora.yaml"

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
# What the parser gives plain scalars by the 1.1 rules; we read such scalars again by our own.
_IMPLICIT_TAGS = _PLAIN_TAGS | {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "merge", "value")}


@dataclass(frozen=True)
class Document:
    """A YAML file. lines: dotted path of each key -> line number, counted from 1."""

    path: Path
    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)

    def where(self, dotted: str = "") -> str:
        """The place of a key as file:line, or of the closest parent that has a line."""
        while dotted and dotted not in self.lines:
            dotted = dotted.rpartition(".")[0]
        return f"{self.path}:{self.lines[dotted]}" if dotted else str(self.path)


def read_yaml(path: Path) -> Document:
    """Read one YAML file; UsageError with file and line when it cannot be read or is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    lines: dict[str, int] = {}
    return Document(path, _parse(text, source=str(path), lines=lines), lines)


def parse_value(text: str, *, source: str) -> Any:
    """The value of one YAML text, e.g. "3", "true", "[1, 2]". source: where it came from, for the message."""
    return _parse(text, source=source, lines=None)


def project_file(folder: Path) -> Path | None:
    """The nearest `sora.yaml` in this folder or its parents."""
    for candidate in (folder, *folder.parents):
        path = candidate / PROJECT_FILE
        if path.is_file():
            return path
    return None


def user_file(environ: Mapping[str, str]) -> Path | None:
    """The user's own settings, `~/.config/sora/config.yaml` or under XDG_CONFIG_HOME; None when there are none."""
    base = environ.get("XDG_CONFIG_HOME")
    if base:
        folder = Path(base)
    else:
        folder = Path(environ.get("HOME") or Path.home()) / ".config"
    path = folder / "sora" / "config.yaml"
    return path if path.is_file() else None


def _parse(text: str, *, source: str, lines: dict[str, int] | None) -> Any:
    """lines: filled with the line of every key; None for a value, whose errors then name no line."""
    import yaml

    try:
        # The C parser reads the size tables about ten times faster; it is missing in some builds of PyYAML.
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark and lines is not None else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(
            f"{where}: not valid YAML: {problem}", hint=_yaml_hint(problem, _character(text, mark))
        ) from None
    return None if node is None else _Reader(source, lines).read(node, "", ())


def _character(text: str, mark: Any) -> str:
    """The character that the parser stumbled over; empty at the end of a line."""
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return line[mark.column] if mark and mark.column < len(line) else ""


def _yaml_hint(problem: str, character: str) -> str | None:
    if character == "\t":
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return 'put quotes around a value that contains ": "'
    return None


class _Reader:
    """Turns parsed nodes into Python values; remembers the line of every key."""

    def __init__(self, source: str, lines: dict[str, int] | None) -> None:
        self.source = source
        self.lines = lines

    def read(self, node: Any, path: str, parents: tuple[int, ...]) -> Any:
        """The value of a node. path: its dotted key; parents: ids of the nodes around it."""
        if id(node) in parents:
            raise self.error(node, "a value that contains itself")
        parents = (*parents, id(node))
        if node.id == "scalar":
            return self.scalar(node)
        if node.tag not in _PLAIN_TAGS:
            raise self.error(node, f"tag {node.tag!r} is not allowed")
        if node.id == "sequence":
            return [self.read(item, f"{path}.{index}".lstrip("."), parents) for index, item in enumerate(node.value)]
        return self.mapping(node, path, parents)

    def mapping(self, node: Any, path: str, parents: tuple[int, ...]) -> dict[str, Any]:
        """A mapping with text keys, each at most once."""
        result: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.id != "scalar":
                raise self.error(key_node, "a key must be plain text")
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in result:
                raise self.error(key_node, f"the key {key!r} was given before, in line {first_line[key]}")
            first_line[key] = line
            dotted = f"{path}.{key}".lstrip(".")
            if self.lines is not None:
                self.lines[dotted] = line
            result[key] = self.read(value_node, dotted, parents)
        return result

    def scalar(self, node: Any) -> Any:
        """A scalar by the YAML 1.2 core schema; quoted text stays text."""
        if node.tag not in _IMPLICIT_TAGS:
            raise self.error(node, f"tag {node.tag!r} is not allowed")
        text = node.value
        if node.style:  # plain text has none (None or "", depending on the parser)
            return text
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def error(self, node: Any, problem: str) -> UsageError:
        """An error with file and line, for a value just its source."""
        where = self.source if self.lines is None else f"{self.source}:{node.start_mark.line + 1}"
        return UsageError(f"{where}: {problem}")
