"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): reading them and merging them into weights.

An adapter adds alpha / rank x B A to the weight of a linear layer. It is read from a training run, from a file that
`sora train export` wrote, or from a folder in the layout of peft.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError, UsageError
from sora_cli.training.run_folder import AVERAGED, LAST, RECORD, newest_checkpoint

from .locate import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Key of the settings in the metadata of a single file.
METADATA = "lora"


@dataclass(frozen=True)
class LocatedLora:
    """An adapter on this machine. scale: strength beside what its alpha says."""

    file: Path
    rank: int
    alpha: float
    scale: float
    fingerprint: str


def locate_lora(text: str, *, raw: bool = False) -> LocatedLora:
    """Find the adapter that `PLACE[:scale]` names. raw: of a run the last weights instead of the average.

    Raises UsageError for a place without an adapter or a scale that is no number.
    """
    place, scale = split_scale(text)
    checkpoint = newest_checkpoint(place)
    if checkpoint is not None:
        settings = json.loads((checkpoint / RECORD).read_text(encoding="utf-8")).get("lora")
        if settings is None:
            raise UsageError(f"the run {place} trained all weights, no adapter", hint=f"use it with --weights {place}")
        file = checkpoint / (LAST if raw else AVERAGED)
    elif (place / ADAPTER).is_file() and (place / ADAPTER_CONFIG).is_file():
        file, config = place / ADAPTER, json.loads((place / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        settings = {"rank": config.get("r"), "alpha": config.get("lora_alpha")}
    elif place.is_file():
        file, settings = place, _metadata(place)
    else:
        raise UsageError(f"no adapter at {place}", hint="give a training run, a .safetensors file or a folder of peft")
    if not isinstance(settings.get("rank"), int) or not isinstance(settings.get("alpha"), int | float):
        raise UsageError(f"{place} does not say the rank and alpha of its adapter")
    return LocatedLora(file, settings["rank"], float(settings["alpha"]), scale, fingerprint([file]))


def merge_loras(tensors: Mapping[str, Tensor], loras: Sequence[LocatedLora]) -> dict[str, Tensor]:
    """The weights of a network with adapters added. Raises SoraError for an adapter of another network."""
    from safetensors.torch import load_file

    merged = dict(tensors)
    for lora in loras:
        pairs = adapter_pairs(load_file(lora.file))
        if not pairs:
            raise SoraError(f"{lora.file} holds no adapter")
        for module, (down, up) in pairs.items():
            name = f"{module}.weight"
            fits = name in merged and merged[name].shape == (up.shape[0], down.shape[1]) and len(down) == up.shape[1]
            if not fits:
                there = f"{tuple(merged[name].shape)}" if name in merged else "not there"
                raise SoraError(
                    f"the adapter {lora.file} is of another network: {name} is {there}",
                    hint=f"it changes a weight of {(up.shape[0], down.shape[1])}",
                )
            change = (up.float() @ down.float()) * (lora.scale * lora.alpha / lora.rank)
            merged[name] = (merged[name].float() + change).to(merged[name].dtype)
    return merged


def adapter_pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (A, B) of the tensors of an adapter, whichever way they are called."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, dot, rest = name.removeprefix(PREFIX).partition(".lora_")
        if dot:
            pairs.setdefault(module, {})[rest[:1]] = tensor
    return {module: (pair["A"], pair["B"]) for module, pair in pairs.items() if pair.keys() == {"A", "B"}}


def peft_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an adapter under the names that peft gives its files."""
    return {
        f"{PREFIX}{module}.lora_{part}.weight": tensor
        for module, pair in adapter_pairs(tensors).items()
        for part, tensor in zip("AB", pair, strict=True)
    }


def peft_config(settings: Mapping[str, Any], modules: Sequence[str]) -> dict[str, Any]:
    """What peft writes beside an adapter."""
    return {
        "peft_type": "LORA",
        "r": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "target_modules": sorted(modules),
        "bias": "none",
        "inference_mode": True,
    }


def split_scale(text: str) -> tuple[Path, float]:
    """The parts of `PLACE[:scale]`. Raises UsageError for a scale that is no number."""
    place, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text).expanduser(), 1.0
    try:
        return Path(place).expanduser(), float(scale)
    except ValueError:
        raise UsageError(
            f"--lora {text!r}: {scale!r} is no scale", hint="example: --lora style.safetensors:0.8"
        ) from None


def _metadata(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"cannot read the adapter {file}: {error}") from error
    settings: dict[str, Any] = json.loads(metadata.get(METADATA, "{}"))
    return settings
