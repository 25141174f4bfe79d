"""Golden topic `dpms`: times and sampling of DPM-Solver++."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loader import cases, load_tensors, read
from torch import Tensor
from toys import toy_network

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.dpm_solver.dpm_solver import DPMSolver, make_points

TOPIC = "dpms"
DEFAULT_GUIDANCE = 4.0  # of the reference


def close(actual: Tensor, expected: Any, tolerance: dict[str, float], what: str) -> None:
    torch.testing.assert_close(
        actual,
        torch.as_tensor(expected),
        atol=tolerance["abs"],
        rtol=tolerance["rel"],
        msg=lambda message: f"{what}: {message}",
    )


@pytest.mark.parametrize("case", cases(TOPIC, "schedule"))
def test_schedule(case):
    points = make_points(case["steps"])
    actual = {
        "t": points.times,
        "model_t": points.model_times,
        "log_alpha": points.log_alphas,
        "sigma": points.sigmas,
        "lambda": points.lambdas,
    }
    assert case.keys() == {"steps", *actual}
    for name, tensor in actual.items():
        close(tensor, case[name], read(TOPIC, "schedule")["tolerance"], name)


@pytest.mark.parametrize("case", cases(TOPIC, "sampling"))
def test_sampling(case):
    described, config = read(TOPIC, "sampling"), case["config"]
    tensors = load_tensors(TOPIC, described["file"])
    given = {key.split("/")[1]: tensor for key, tensor in tensors.items() if key.startswith(f"{case['name']}/")}
    count, steps = len(given["z0"]), config["num_sampling_steps"]
    seen: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        assert len(x) == case["model_batch"]
        seen.append((x[:count], t[:count]))
        return toy_network(x, t, y, **conditioning)

    text = TextEmbedding(given["y_cond"], torch.ones(given["y_cond"].shape[0], given["y_cond"].shape[2]))
    request = SampleRequest(given["z0"], text, given["y_null"], 8, 8, 17, given["z0"].shape[2], 24.0)
    solver = DPMSolver()
    out = solver.sample(network, request, steps=steps, guidance=config.get("cfg_scale", DEFAULT_GUIDANCE))
    close(out, given["z_final"], described["tolerance"], "z_final")
    for name, values in zip(("model_in", "model_t"), zip(*seen, strict=True), strict=True):
        close(torch.stack(values), given[name], described["tolerance"], name)
    times = solver.schedule(steps, height=8, width=8, num_frames=17)
    close(times, given["model_t"][:, 0], described["tolerance"], "schedule")
