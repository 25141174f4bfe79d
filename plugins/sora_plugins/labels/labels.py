"""Prompts that name a class to class numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sora_cli.errors import UsageError, did_you_mean
from sora_cli.plugin.protocols import TextEmbedding

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

FOLDER = Path(__file__).parent
MOST_DIGITS = 19  # of an int64


class ClassLabels:
    """The classes of a data set. Prompts are not cleaned: a number is a class, any other text is looked up.

    "No class", which guidance steers away from, is the model's (`null_text`); the empty prompt means it too where the
    classes are known: it is the number after the last.
    """

    def __init__(self, kind: str, names: Sequence[str] | None, device: torch.device) -> None:
        """kind: what the classes are of, for messages. names: for each class its names, the first being the main one,
        with a comma and a space between; None when only numbers are known."""
        self.kind, self.names, self.device = kind, names, device

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Class numbers (n, 1, 1, 1) int64, which no number format rounds, and a mask (n, 1) of ones.

        Raises UsageError for what is no class, or the name of several.
        """
        ids = torch.tensor([self.class_of(prompt) for prompt in prompts], dtype=torch.int64, device=self.device)
        return TextEmbedding(ids.view(-1, 1, 1, 1), torch.ones_like(ids)[:, None])

    def class_of(self, prompt: str) -> int:
        """The number of the class that a prompt gives by number or name; letter case and spaces do not matter."""
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
            close = did_you_mean(text.lower(), self._shown)
            hint = f"give a name, or a number from 0 to {self._last}"
            raise UsageError(f"there is no {self._class} {text!r}", hint=f"{close}\n{hint}" if close else hint)
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
        return torch.iinfo(torch.int64).max if self.names is None else len(self.names) - 1

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

    @cached_property
    def _shown(self) -> list[str]:
        """All names as people would type them."""
        names = (name for line in self.names or () for name in line.split(", "))
        return [re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in names]


def _plain(name: str) -> str:
    """A name without what people write in different ways."""
    return "".join(character for character in name.casefold() if character.isalnum())


def read_names(file: str) -> list[str]:
    """The names of the classes of a file of this package, in the order of their numbers."""
    return (FOLDER / file).read_text(encoding="utf-8").splitlines()


def load_imagenet(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """The classes of ImageNet. dtype: has no meaning here. Raises UsageError for weights."""
    return _load("ImageNet", read_names("imagenet.txt"), weights, device)


def load_ucf101(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """The classes of UCF101; as `load_imagenet`."""
    return _load("UCF101", read_names("ucf101.txt"), weights, device)


def load_ids(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """Numbers of classes, which the model checks; as `load_imagenet`."""
    return _load("this model", None, weights, device)


def _load(kind: str, names: Sequence[str] | None, weights: LocatedWeights | None, device: torch.device) -> ClassLabels:
    if weights is not None:
        raise UsageError("class labels have no weights", hint="leave out --text-weights")
    return ClassLabels(kind, names, device)
