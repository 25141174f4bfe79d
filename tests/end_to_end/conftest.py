"""The real executable with a tiny model that is installed beside it, as any plugin would be."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executable import Executable


@pytest.fixture(scope="session")
def tiny_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path: the tiny plugin with weights and with the metadata an installer would write."""
    import torch
    from safetensors.torch import save_file

    site = tmp_path_factory.mktemp("site")
    package = site / "sora_tiny"
    shutil.copytree(Path(__file__).parent / "tiny" / "sora_tiny", package, ignore=shutil.ignore_patterns("__pycache__"))
    metadata = site / "sora_tiny-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sora-tiny\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sora]\ntiny = sora_tiny\n")
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "mix.weight": (4, 4, 3, 3, 3),
        "mix.bias": (4,),
        "text.weight": (4, 8),
        "text.bias": (4,),
        "null": (32, 8),
    }
    tensors = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    save_file(tensors, package / "model.safetensors")
    return site


@pytest.fixture
def started(tiny_site: Path, add_site: Callable[[Path], None]) -> Executable:
    """The executable, in the empty working folder and home that every test has."""
    add_site(tiny_site)
    return Executable(Path.cwd(), {**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture
def here(started: Executable, sora: Callable[..., Any]) -> Iterator[Executable]:
    """The same in the process of the tests, for what needs no process of its own; as many threads as the executable."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield dataclasses.replace(started, here=sora)
    torch.set_num_threads(threads)


@pytest.fixture
def executable(started: Executable) -> Executable:
    """What the tests of a file run; files whose tests need no processes of their own put `here` in its place."""
    return started
