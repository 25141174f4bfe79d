"""Extracted features: latents and captions on disk, so that training needs no autoencoder.

A folder holds `features-N.safetensors` files of whole micro-batches and `index.json`, which says what they were made
with and has the checksum of every file. One caption of each clip is kept as the text encoder gives it, without dropout,
so that training needs no text encoder either; or all captions and scores are kept as text, and every use of a clip
draws and encodes one of them anew. What is dropped is drawn in training in both cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sora_cli.errors import SoraError
from sora_cli.files import claimed
from sora_cli.text.scores import Scores

from .buckets import hashed_uniforms
from .captions import CaptionOptions, draw_caption, with_motion
from .run_folder import describe
from .table import ClipRow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sora_cli.plugin.protocols import TextEncoder

    from .dataset import Failure, KeptWorkers
    from .objective import Encoded

INDEX, SETTINGS = "index.json", "settings.json"
BATCHES = "batches"
#: In the settings of features: "text" where captions are kept as text.
CAPTIONS = "extract_captions"


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

    @property
    def has_texts(self) -> bool:
        """Whether captions are kept as text, which training encodes."""
        return self.settings.get(CAPTIONS) == "text"

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


class StoredBatch(NamedTuple):
    """A micro-batch to store. tensors: latents, sizes and, where captions are encoded, y and mask.

    about: JSON-safe; `texts` or `captions`, beside the size and the rows.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


def encoded_batch(encoded: Encoded, size: tuple[int, int, int], rows: Sequence[int]) -> StoredBatch:
    """With encoded captions. size: (frames, height, width) in pixels."""
    longest = int(encoded.mask.sum(dim=1).max())
    text = {"y": encoded.y[:, :, :longest], "mask": encoded.mask}
    return StoredBatch({"latents": encoded.latents, **text, **encoded.sizes}, _about(size, rows, texts=encoded.texts))


def captioned_batch(
    latents: Tensor,
    sizes: Mapping[str, Tensor],
    size: tuple[int, int, int],
    rows: Sequence[int],
    clips: Sequence[ClipRow],
) -> StoredBatch:
    """With captions and scores as text."""
    captions = [{"texts": list(clip.texts), "scores": clip.scores._asdict()} for clip in clips]
    return StoredBatch({"latents": latents, **sizes}, _about(size, rows, captions=captions))


def _about(size: tuple[int, int, int], rows: Sequence[int], **text: Sequence[Any]) -> dict[str, Any]:
    return {"size": list(size), "count": len(rows), "rows": list(rows), **{name: list(of) for name, of in text.items()}}


def write_bin(path: Path, batches: Sequence[StoredBatch]) -> None:
    """Write micro-batches as one file."""
    from sora_cli.weights.save import save_tensors

    tensors = {
        f"{place}.{name}": value.cpu().contiguous()
        for place, batch in enumerate(batches)
        for name, value in batch.tensors.items()
    }
    temporary = path.with_name(f"{path.name}.tmp")
    with claimed(temporary):
        save_tensors(temporary, tensors, {BATCHES: json.dumps([batch.about for batch in batches])})
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
    """A stored micro-batch; the fields are those of `objective.Encoded` and `dataset.Batch`.

    y, mask: None where `captions` are to be encoded.
    """

    number: int
    latents: Tensor
    y: Tensor | None
    mask: Tensor | None
    sizes: dict[str, Tensor]
    rows: list[int]
    size: tuple[int, int, int]
    bad: list[Any]
    texts: Sequence[str]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class FeatureSource:
    """Batches of extracted features; used like `source.ClipSource`."""

    index: FeatureIndex
    captions: CaptionOptions
    workers: int
    prefetch: int | None
    has_chance = False  # every epoch has all micro-batches

    def plan(self, epoch: int, *, num_ranks: int, start: int = 0) -> FeaturePlan:
        """The micro-batches of an epoch."""
        return FeaturePlan(self.index, seed=self.captions.seed, epoch=epoch)

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
            _Stored(self.index, self.captions),
            [(number, int(plan.order[number]), epoch) for number in numbers],
            num_workers=self.workers if kept is not None else min(self.workers, len(numbers)),
            prefetch=self.prefetch,
            pin_memory=pin_memory,
            kept=kept,
        )


class _Stored:
    """Reads micro-batches, each given as its number in the epoch, its place in the index, and the epoch."""

    def __init__(self, index: FeatureIndex, captions: CaptionOptions) -> None:
        self.index, self.captions = index, captions

    def __getitem__(self, job: tuple[int, int, int]) -> FeatureBatch | Failure:
        from safetensors import SafetensorError, safe_open

        from .dataset import Failure

        number, stored, epoch = job
        about = self.index.batches[stored]
        path, place = self.index.folder / about["file"], about["place"]
        try:
            with safe_open(path, framework="pt") as opened:
                start = f"{place}."
                names = [name for name in opened.keys() if name.startswith(start)]  # noqa: SIM118  # no dict
                parts = {name.removeprefix(start): opened.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            return Failure(f"cannot read the features {path}: {error}", None)
        latents, y, mask = parts.pop("latents"), parts.pop("y", None), parts.pop("mask", None)
        frames, height, width = about["size"]
        texts, captions = about.get("texts", ()), []
        if y is None:
            clips = [ClipRow("", tuple(one["texts"]), Scores(**one["scores"])) for one in about["captions"]]
            rows = zip(about["rows"], clips, strict=True)
            captions = [draw_caption(row, clip, epoch, self.captions) for row, clip in rows]
            texts = [with_motion(*pair) for pair in zip(captions, clips, strict=True)]
        return FeatureBatch(
            number, latents, y, mask, parts, about["rows"], (frames, height, width), [], texts, captions
        )


@dataclass(frozen=True)
class FeatureEncoders:
    """Stands where encoders would be: features only go to the device. text: encodes captions that are kept as text."""

    device: torch.device
    text: TextEncoder | None = None

    def encode(self, batch: FeatureBatch, seed: int, *, update: int = 0) -> Encoded:
        """The batch on the device."""
        from torch.nn import functional as F

        from .objective import Encoded, encode_texts

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        sizes = {name: move(value) for name, value in batch.sizes.items()}
        if batch.y is None or batch.mask is None:
            assert self.text is not None  # loaded for features with captions as text
            y, mask = encode_texts(self.text, batch.captions, self.device)
        else:
            y, mask = move(F.pad(batch.y, (0, 0, 0, batch.mask.shape[1] - batch.y.shape[2]))), move(batch.mask)
        return Encoded(batch.number, move(batch.latents).float(), y, mask, sizes, batch.texts)
