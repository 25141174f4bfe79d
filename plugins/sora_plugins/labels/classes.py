"""Prompts that name a class to class numbers. Pure Python, so that they are checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from sora_cli.errors import UsageError, did_you_mean

FOLDER = Path(__file__).parent
#: The largest number of an int64, which is what a model is given.
MOST = 2**63 - 1
MOST_DIGITS = len(str(MOST))
#: So many classes are suggested for an unknown name.
SUGGESTED = 6


class Classes:
    """The classes of a data set. Prompts are not cleaned: a number is a class, any other text is looked up.

    "No class", which guidance steers away from, is the model's (`null_text`); the empty prompt means it too where the
    classes are known: it is the number after the last.
    """

    def __init__(self, kind: str, names: Sequence[str] | None) -> None:
        """kind: what the classes are of, for messages. names: for each class its names, the first being the main one,
        with a comma and a space between; None when only numbers are known."""
        self.kind, self.names = kind, names

    def class_of(self, prompt: str) -> int:
        """The number of the class that a prompt gives by number or name; letter case and spaces do not matter.

        Raises UsageError for what is no class, or the name of several.
        """
        text = prompt.strip()
        if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
            number = int(text)
            if number > self._last:
                raise UsageError(f"there is no {self._class} {text}", hint=f"classes are numbered 0 to {self._last}")
            return number
        if self.names is None:
            raise UsageError(f"{text!r} is no number of a class", hint="say which class, for example: 7")
        if not text:
            return len(self.names)
        for numbers_of in self._tables:
            if found := numbers_of.get(_plain(text)):
                break
        else:
            lines = [line for line in (self._near(text),) if line]
            lines.append(f"give a name, or a number from 0 to {self._last}")
            raise UsageError(f"there is no {self._class} {text!r}", hint="\n".join(lines))
        if len(found) > 1:
            several = " and ".join(f"{number} ({self.names[number]})" for number in found)
            raise UsageError(f"{text!r} names more than one {self._class}: {several}", hint="give the number")
        return found[0]

    @property
    def _class(self) -> str:
        return f"class of {self.kind}"

    @property
    def _last(self) -> int:
        """The largest number; without names what an int64 holds, and the model checks."""
        return MOST if self.names is None else len(self.names) - 1

    @cached_property
    def _tables(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Name -> classes: main names and whole lines first, since some are a further name of another class."""
        main: dict[str, list[int]] = {}
        further: dict[str, list[int]] = {}
        for number, line in enumerate(self.names or ()):
            first, *others = line.split(", ")
            for table, names in ((main, {_plain(first), _plain(line)}), (further, {_plain(name) for name in others})):
                for name in names:
                    table.setdefault(name, []).append(number)
        return main, further

    def _near(self, text: str) -> str | None:
        """The classes whose names have all words of the text, else the name or word spelt most alike."""
        words = set(text.lower().split())
        having: dict[int, str] = {}
        for number, name in self._shown():
            if words <= set(name.split()):
                having.setdefault(number, name)
        if not having:
            names = {name for _, name in self._shown()}
            return did_you_mean(text.lower(), names | {word for name in names for word in name.split()})
        shown = [f"{name} ({number})" for number, name in having.items()]
        more = f" and {len(shown) - SUGGESTED} more" if len(shown) > SUGGESTED else ""
        return f"there are {', '.join(shown[:SUGGESTED])}{more}"

    def _shown(self) -> Iterator[tuple[int, str]]:
        """All names as people would type them, with their numbers."""
        for number, line in enumerate(self.names or ()):
            for name in line.split(", "):
                yield number, re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _plain(name: str) -> str:
    """A name without what people write in different ways."""
    return "".join(character for character in name.casefold() if character.isalnum())


def read_names(file: str) -> list[str]:
    """The names of the classes of a file of this package, in the order of their numbers."""
    return (FOLDER / file).read_text(encoding="utf-8").splitlines()


def imagenet() -> Classes:
    """The 1000 classes of ImageNet."""
    return Classes("ImageNet", read_names("imagenet.txt"))


def ucf101() -> Classes:
    """The 101 actions of UCF101, in the order in which Python sorts the names of its folders, as Latte was trained."""
    return Classes("UCF101", read_names("ucf101.txt"))


def numbers() -> Classes:
    """Classes without names, of which the model knows how many there are."""
    return Classes("this model", None)
