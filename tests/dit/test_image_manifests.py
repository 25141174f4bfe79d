"""The networks take the released files: every tensor by name and shape, nothing missing and nothing left over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from sora_cli.errors import SoraError
from sora_cli.weights.load import check_tensors
from sora_plugins.dit import dit, latte, pixart
from sora_plugins.dit.weights import map_tensors

# Made absolute here: tests run in a folder of their own.
FOLDER = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"
BUILD = {
    "DiT-XL/2": dit.build,
    "Latte-XL/2": latte.build,
    "PixArt-XL/2": pixart.build,
    "PixArtMS-XL/2": lambda config: pixart.build({**config, "has_size_conditions": True}),
}
FILES = [
    "DiT-XL-2-256x256.pt",
    "DiT-XL-2-512x512.pt",
    "Latte-XL-2-256x256-ucf101.pt",
    "PixArt-XL-2-256x256.pth",
    "PixArt-XL-2-SAM-256x256.pth",
    "PixArt-XL-2-512x512.pth",
    "PixArt-XL-2-1024-MS.pth",
    "PixArt-Sigma-XL-2-256x256.pth",
    "PixArt-Sigma-XL-2-512-MS.pth",
    "PixArt-Sigma-XL-2-1024-MS.pth",
    "PixArt-Sigma-XL-2-2K-MS.pth",
]


@pytest.fixture(params=FILES)
def manifest(request) -> dict:
    path = FOLDER / f"{request.param}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {FOLDER}")
    return json.loads(path.read_text())


def network_of(manifest: dict) -> torch.nn.Module:
    with torch.device("meta"):
        return BUILD[manifest["model"]["registry"]](manifest["model"])


def file_of(manifest: dict) -> dict[str, torch.Tensor]:
    """The tensors of the file, without their values."""
    return {name: torch.empty(shape, device="meta") for name, shape in manifest["keys"].items()}


def test_released_files_fit(manifest):
    tensors = file_of(manifest)
    assert len(tensors) == manifest["tensors"]
    assert sum(tensor.numel() for tensor in tensors.values()) == manifest["elements"]
    check_tensors(network_of(manifest), map_tensors(tensors), what="the network", source=Path("released"))


def test_incomplete_files_are_refused(manifest):
    tensors = file_of(manifest)
    del tensors["blocks.3.attn.qkv.weight"]
    with pytest.raises(SoraError) as caught:
        check_tensors(network_of(manifest), map_tensors(tensors), what="the network", source=Path("released"))
    assert "1 missing: blocks.3.attn.qkv.weight" in caught.value.hint
