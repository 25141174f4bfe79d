"""Golden topic `eval_loss`: the validation loss at each time, its mean, and the table of the reference's logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loader import cases, load_tensors, read

from sora_cli.evaluation.loss import convert_logs
from sora_cli.evaluation.loss_buckets import bucket_config, loss_buckets
from sora_cli.evaluation.loss_measure import LossSums, loss_times
from sora_cli.training.objective import Encoded, Objective
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

TOPIC = "eval_loss"
ALL = cases(TOPIC, "cases")
LOSSES = [each for each in ALL if "logs" not in each.values[0]]
LOGS = [each for each in ALL if "logs" in each.values[0]]


def toy(weights: torch.Tensor) -> Any:
    """v = w0 x_t + w1 t / 1000 + w2 by channel, and as many channels that do not count."""

    def network(x: torch.Tensor, t: torch.Tensor, **conditioning: Any) -> torch.Tensor:
        first, second, third = weights[:, None, :, None, None, None]
        velocity = first * x + second * t.view(-1, 1, 1, 1, 1) / 1000 + third
        return torch.cat([velocity, torch.full_like(velocity, 1e6)], dim=1)

    return network


@pytest.mark.parametrize("case", LOSSES)
def test_losses(case):
    tensors = load_tensors(TOPIC, read(TOPIC, "cases")["tensors"])
    objective, names = Objective(RectifiedFlow(), 0), case["inputs"]
    network = toy(tensors[names["weights"]])
    count, rounds = case["num_eval_timesteps"], case["timestep_dtype"] == "bfloat16"
    times = loss_times(objective.scheduler.last_time, count, reference=rounds)
    assert times == case["timesteps_used"]
    assert loss_times(objective.scheduler.last_time, count) == case["grid_float32"]
    sums = LossSums(count)
    for index, size in enumerate(case["batch_sizes"]):
        x, noise = tensors[names["x"][index]], tensors[names["noise"][index]]
        mask = None if names["mask"] is None else tensors[names["mask"][index]].bool()
        batch = Encoded(index, x, torch.zeros(size, 1, 1, 1), torch.ones(size, 1), {}, [""] * size)
        for place, t in enumerate(times):
            sums.add(place, objective.losses_at(network, batch, t, noise=noise[place], frame_mask=mask))
    means = sums.means()
    assert means == pytest.approx(case["expected_per_timestep"], abs=case["tol"])
    assert sum(means) / count == pytest.approx(case["expected_mean"], abs=case["tol"])


@pytest.mark.parametrize("case", LOGS)
def test_logs(case, tmp_path: Path):
    for name, lines in case["logs"].items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    convert_logs(tmp_path)
    text = (tmp_path / "loss.json").read_text()
    assert text == case["expected_text"]
    assert json.loads(text) == case["expected"]


def test_buckets_and_their_division():
    plan = read("eval_plan", "plan")["loss"]
    plain = {
        name: {str(frames): batch for frames, (_, batch) in lengths.items()}
        for name, lengths in bucket_config(loss_buckets()).items()
    }
    assert plain == plan["buckets"]
    assert list(plain) == list(plan["buckets"])
    parts = [list(bucket_config(loss_buckets(start=start, end=end))) for start, end in ((0, 5), (5, 6), (6, 99))]
    assert parts == plan["image_jobs"]
    assert [list(bucket_config(loss_buckets(rows=job))) for job in plan["video_jobs"]] == plan["video_jobs"]
