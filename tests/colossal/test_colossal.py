"""The ColossalAI engine, where ColossalAI is installed (`make colossal`): DDP for real on CPU, ZeRO by signature.

ZeRO and HybridAdam need CUDA.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opensora_tiny import make_tiny_opensora

pytest.importorskip("colossalai", reason="the extra colossal, in an environment of its own")


def test_the_classes_take_what_the_adapter_gives():
    from colossalai.booster import Booster
    from colossalai.booster.plugin import LowLevelZeroPlugin, TorchDDPPlugin
    from colossalai.nn.optimizer import HybridAdam
    from colossalai.zero.low_level import LowLevelZeroOptimizer

    for function, names in (
        (TorchDDPPlugin.__init__, ("broadcast_buffers", "gradient_as_bucket_view")),
        (
            LowLevelZeroPlugin.__init__,
            ("stage", "precision", "max_norm", "reduce_bucket_size_in_m", "initial_scale", "cast_inputs"),
        ),
        (HybridAdam.__init__, ("lr", "betas", "eps", "weight_decay", "adamw_mode")),
        (Booster.boost, ("model", "optimizer")),
        (Booster.backward, ("loss", "optimizer")),
        (Booster.no_sync, ("model", "optimizer")),
    ):
        assert set(names) <= set(inspect.signature(function).parameters), function
    for name in ("get_working_to_master_map", "get_grad_norm", "step", "zero_grad", "no_sync"):
        assert callable(getattr(LowLevelZeroOptimizer, name))
    assert "_clip_grad_norm" in inspect.getsource(LowLevelZeroOptimizer)


def test_ddp_on_two_processes_equals_one(tmp_path: Path):
    import numpy as np
    import polars as pl
    from PIL import Image

    weights = make_tiny_opensora(tmp_path / "tiny")
    generator = np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(generator.integers(0, 255, (144, 256, 3), np.uint8)).save(tmp_path / f"{index}.png")
    rows = {"path": [f"{index}.png" for index in range(8)], "text": ["a fox"] * 8}
    sizes = {"num_frames": [1] * 8, "height": [144] * 8, "width": [256] * 8}
    pl.DataFrame({**rows, **sizes}).write_csv(tmp_path / "clips.csv")
    common = ["-m", "opensora-v1.2", "--data", "clips.csv", "--device", "cpu", "--workers", "0", "--dtype", "fp32"]
    common += ["--set", "data.bucket_config={144p: {1: [1.0, 1]}}", "--steps", "10", "--log-every", "1", "--lr", "1e-3"]
    found = {}
    for name, more in (
        ("single", ["--accumulate", "2"]),
        ("ddp", ["--gpus", "2", "--parallel", "colossal"]),
        ("shared", ["--gpus", "2", "--parallel", "colossal", "--sequence-parallel", "2", "--accumulate", "2"]),
    ):
        command = [str(Path(sys.executable).with_name("sora")), "train", *common, *weights, *more, "--run", name]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        found[name] = [json.loads(line)["loss"] for line in lines]
        assert len(found[name]) == 10
    assert found["ddp"] == pytest.approx(found["single"], rel=1e-4)
    assert found["shared"] == pytest.approx(found["single"], rel=1e-4)
