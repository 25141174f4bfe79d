"""A run that is where it is to end already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sora_cli.tasks import train
from sora_cli.training.checkpoint import Checkpointer


def test_a_finished_run_is_said_and_nothing_is_loaded(
    sora: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.csv").write_text("path,text,num_frames,height,width\na.mp4,x,16,64,64\n")
    shape = ("--size", "64x64", "--frames", "16", "--batch-size", "1", "--device", "cpu")
    calls = []

    def train_ten(plan: Any, kind: str) -> None:
        calls.append(plan.config.run.steps)
        record = {"identity": plan.identity, "config": plan.config.model_dump(mode="json")}
        checkpoints = Checkpointer(plan.folder)
        checkpoints.save(10, {"model": {"weight": torch.zeros(1)}}, record)
        checkpoints.wait()

    def run(steps: int, *more: str) -> Any:
        return sora("train", "-m", "nano", "--data", "t.csv", *shape, "-o", "run", "--steps", str(steps), *more)

    monkeypatch.setattr(train, "_train_here", train_ten)
    first = run(10)
    assert (first.code, first.out) == (0, "run\n"), first.err
    again = run(6, "--lr", "1e-3")
    assert (again.code, again.out) == (0, "run\n"), again.err
    assert "optimizer.learning_rate was 0.0001 and is 0.001 now\n" in again.err
    assert again.err.endswith("already at update 10 of 6, nothing to do\n")
    assert "already at update 10 of 10" in run(10).err
    assert calls == [10]
    assert run(11).code == 0
    assert calls == [10, 11]
    Path("t.csv").write_text("path,text,num_frames,height,width\nb.mp4,x,16,64,64\n")
    other = run(6)
    assert (other.code, "was started with other data" in other.err) == (1, True)


def test_a_quiet_dry_run_prints_paths(sora: Callable[..., Any]) -> None:
    Path("t.csv").write_text("path,text,num_frames,height,width\na.mp4,x,16,64,64\n")
    shape = ("--size", "64x64", "--frames", "16", "--batch-size", "1")
    done = sora("train", "-m", "nano", "--data", "t.csv", *shape, "-o", "run", "--steps", "2", "-n", "-q")
    assert (done.code, done.out) == (0, "run\n"), done.err
    made = sora("generate", "a fox", "a cat", "-m", "nano", "-n", "-q")
    assert (made.code, made.out) == (0, "outputs/a-fox-42.mp4\noutputs/a-cat-42.mp4\n"), made.err
