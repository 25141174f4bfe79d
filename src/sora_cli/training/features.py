"""Extracted features: latents and encoded captions on disk, so that training needs no encoders.

A folder holds `features-N.safetensors` files of whole micro-batches and `index.json`, which says what they were made
with and has the checksum of every file. Captions are kept as the text encoder gives them, without dropout; what is
dropped is drawn anew in training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sora_cli.errors import SoraError

from .buckets import hashed_uniforms
from .run_folder import describe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .dataset import Failure, KeptWorkers
    from .objective import Encoded

INDEX, SETTINGS = "index.json", "settings.json"
BATCHES = "batches"


def features_path(folder: Path, number: int) -> Path:
    """The file of one bin."""
    return folder / f"features-{number:06}.safetensors"


@dataclass(frozen=True)
class FeatureIndex:
    """What a folder of features holds. batches: of each micro-batch its file, place in it, size and number of clips."""

    folder: Path
    settings: Mapping[str, Any]
    batches: Sequence[Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]]

    def __len__(self) -> int:
        """Clips."""
        return sum(batch["count"] for batch in self.batches)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of all of it."""
        content = json.dumps([self.settings, self.files], sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def is_features(place: str) -> bool:
    """Whether this is a folder of features."""
    return (Path(place).expanduser() / INDEX).is_file()


def read_index(folder: Path) -> FeatureIndex:
    """The index of a folder. Raises SoraError when it is damaged, or files are missing or cut off."""
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        index = FeatureIndex(folder, content["settings"], content["batches"], content["files"])
    except (OSError, ValueError, KeyError) as error:
        raise SoraError(f"cannot read {folder / INDEX}: {error}", hint="extract the features again") from error
    for name, about in index.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != about["bytes"]:
            raise SoraError(f"{path} is missing or cut off", hint="`sora train extract` makes what is missing again")
    return index


def write_bin(path: Path, batches: Iterable[tuple[Encoded, tuple[int, int, int], list[int]]]) -> None:
    """Write micro-batches, each with its size (frames, height, width) in pixels and its rows, as one file."""
    from sora_cli.weights.save import save_tensors

    tensors: dict[str, Tensor] = {}
    about = []
    for place, (encoded, size, rows) in enumerate(batches):
        longest = int(encoded.mask.sum(dim=1).max())
        parts = {
            "latents": encoded.latents,
            "y": encoded.y[:, :, :longest],
            "mask": encoded.mask,
            **encoded.sizes,
        }
        tensors.update({f"{place}.{name}": value.cpu().contiguous() for name, value in parts.items()})
        about.append({"size": list(size), "count": len(rows), "rows": rows, "texts": list(encoded.texts)})
    temporary = path.with_name(f"{path.name}.tmp")
    save_tensors(temporary, tensors, {BATCHES: json.dumps(about)})
    temporary.replace(path)


def write_index(folder: Path, settings: Mapping[str, Any], num_bins: int) -> None:
    """Write the index of a folder whose bins are complete."""
    from safetensors import safe_open

    batches: list[dict[str, Any]] = []
    files = {}
    for number in range(num_bins):
        path = features_path(folder, number)
        files[path.name] = describe(path)
        with safe_open(path, framework="pt") as opened:
            about = json.loads(opened.metadata()[BATCHES])
        batches += [{"file": path.name, "place": place, **batch} for place, batch in enumerate(about)]
    content = {"settings": dict(settings), "files": files, "batches": batches}
    temporary = folder / f"{INDEX}.tmp"
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(folder / INDEX)


# -- training --------------------------------------------------------------------------------------------------------


class FeaturePlan:
    """The stored micro-batches in the order of an epoch, numbered over all ranks."""

    def __init__(self, index: FeatureIndex, *, seed: int, epoch: int) -> None:
        numbers = np.arange(len(index.batches))
        self.order = numbers[hashed_uniforms(numbers, (seed, epoch, "order", "features")).argsort(kind="stable")]

    def __len__(self) -> int:
        """Micro-batches."""
        return len(self.order)

    def num_steps(self, num_ranks: int, start: int = 0) -> int:
        """Iterations from micro-batch `start` on."""
        return max(len(self.order) - start, 0) // num_ranks


class FeatureBatch(NamedTuple):
    """A stored micro-batch; the fields are those of `objective.Encoded` and `dataset.Batch`."""

    number: int
    latents: Tensor
    y: Tensor
    mask: Tensor
    sizes: dict[str, Tensor]
    rows: list[int]
    size: tuple[int, int, int]
    bad: list[Any]
    texts: Sequence[str]


@dataclass(frozen=True)
class FeatureSource:
    """Batches of extracted features; used like `source.ClipSource`."""

    index: FeatureIndex
    seed: int
    workers: int
    prefetch: int | None

    def plan(self, epoch: int, *, num_ranks: int, start: int = 0) -> FeaturePlan:
        """The micro-batches of an epoch."""
        return FeaturePlan(self.index, seed=self.seed, epoch=epoch)

    def load(
        self,
        plan: Any,
        numbers: Sequence[int],
        epoch: int,
        *,
        dtype: torch.dtype,
        pin_memory: bool,
        kept: KeptWorkers | None = None,
    ) -> Generator[Any, None, None]:
        """The batches of these micro-batches, in order. kept: see `dataset.load_batches`."""
        from .dataset import load_items

        return load_items(
            _Stored(self.index),
            [(number, int(plan.order[number])) for number in numbers],
            num_workers=self.workers if kept is not None else min(self.workers, len(numbers)),
            prefetch=self.prefetch,
            pin_memory=pin_memory,
            kept=kept,
        )


class _Stored:
    """Reads micro-batches, each given as its number in the epoch and its place in the index."""

    def __init__(self, index: FeatureIndex) -> None:
        self.index = index

    def __getitem__(self, job: tuple[int, int]) -> FeatureBatch | Failure:
        from safetensors import SafetensorError, safe_open
        from torch.nn import functional as F

        from .dataset import Failure

        number, stored = job
        about = self.index.batches[stored]
        path, place = self.index.folder / about["file"], about["place"]
        try:
            with safe_open(path, framework="pt") as opened:
                start = f"{place}."
                names = [name for name in opened.keys() if name.startswith(start)]  # noqa: SIM118  # no dict
                parts = {name.removeprefix(start): opened.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            return Failure(f"cannot read the features {path}: {error}", None)
        latents, y, mask = (parts.pop(name) for name in ("latents", "y", "mask"))
        y = F.pad(y, (0, 0, 0, mask.shape[1] - y.shape[2]))
        frames, height, width = about["size"]
        return FeatureBatch(
            number, latents, y, mask, parts, about["rows"], (frames, height, width), [], about.get("texts", ())
        )


@dataclass(frozen=True)
class NoEncoders:
    """Stands where encoders would be: features only go to the device."""

    device: torch.device

    def encode(self, batch: FeatureBatch, seed: int, *, update: int = 0) -> Encoded:
        """The batch on the device."""
        from .objective import Encoded

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        sizes = {name: move(value) for name, value in batch.sizes.items()}
        return Encoded(batch.number, move(batch.latents).float(), move(batch.y), move(batch.mask), sizes, batch.texts)
