"""What the machine has."""

from __future__ import annotations

import subprocess

import pytest

from sora_cli.launch import machine
from sora_cli.launch.machine import Gpu, visible_gpus

LISTING = """0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559, 81081
1, GPU-bbbb-2, NVIDIA H100 80GB HBM3, 81559, 81081
2, GPU-cccc-3, NVIDIA A10, 23028, 10240
a line that is no GPU
"""
H100, A10 = Gpu("NVIDIA H100 80GB HBM3", 79.6, 79.2), Gpu("NVIDIA A10", 22.5, 10.0)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, (H100, H100, A10)),
        ("", ()),
        ("2", (A10,)),
        ("2,0", (A10, H100)),
        ("GPU-cccc-3", (A10,)),
        ("GPU-bb", (H100,)),
        ("0,-1,1", (H100,)),  # CUDA stops at the first entry that names nothing
        ("7", ()),
    ],
)
def test_visible_gpus(visible, found):
    assert visible_gpus(LISTING, visible) == found


def test_no_driver(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    machine.gpus.cache_clear()
    try:
        assert machine.gpus() == ()
        assert machine.gpu_memory_gib() == 0.0
    finally:
        machine.gpus.cache_clear()


def test_the_smallest_gpu_counts(monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: (H100, A10))
    assert machine.gpu_memory_gib() == 22.5
    assert machine.gpu_free_gib() == 10.0


def test_main_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    assert machine.main_memory_gib(meminfo) is None
    meminfo.write_text("MemTotal:       25165824 kB\nMemAvailable:   12582912 kB\n")
    assert machine.main_memory_gib(meminfo) == 12.0
