"""What the state of training takes, as `sora train --dry-run` says it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sora_cli.plugin.manager import get_plugins
from sora_cli.training.optimizer import matrix_names


@pytest.mark.parametrize("model", ["opensora-v1.0", "opensora-v1.2", "pixart-alpha-256", "dit-text"])
def test_muon_keeps_one_moment_of_matrices(sora: Callable[..., Any], model: str) -> None:
    Path("t.csv").write_text("path,text,num_frames,height,width\na.mp4,x,16,64,64\n")
    frames = "1" if model == "pixart-alpha-256" else "16"
    place = ("-m", model, "--data", "t.csv", "--size", "64x64", "--frames", frames)

    def memory(optimizer: str) -> dict[str, float]:
        settings = ("--batch-size", "1", "--init", "random", "--set", f"optimizer.name={optimizer}")
        done = sora("train", *place, *settings, "--steps", "2", "--dry-run", "--json")
        assert done.code == 0, done.err
        found: dict[str, float] = json.loads(done.out)["memory"]
        return found

    plugins = get_plugins()
    spec: Any = plugins.get("model", model)
    with torch.device("meta"):
        network = plugins.load_target(spec)(next(iter(spec.variants.values())))
    names = matrix_names(network)
    matrices = sum(parameter.numel() for name, parameter in network.named_parameters() if name in names)
    usual, muon = memory("adamw"), memory("muon")
    saved = usual["moments_gib"] - muon["moments_gib"]
    assert saved == pytest.approx(4 * matrices / 2**30, rel=0.005)
    assert usual["all_gib"] - muon["all_gib"] == pytest.approx(saved, abs=1e-3)
    assert usual["weights_gib"] == muon["weights_gib"]
