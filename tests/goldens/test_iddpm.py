"""Golden topic `iddpm`: steps, tables, single steps, training losses and sampling of discrete diffusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loader import cases, load_tensors, read
from torch import Tensor
from toys import toy_network

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.iddpm.iddpm import Iddpm
from sora_plugins.iddpm.process import kept_steps, make_tables, paired_steps, speed_tables

TOPIC = "iddpm"
# The reference's keywords that are arguments of `sample` here.
ARGUMENTS = ("num_sampling_steps", "cfg_scale")


def scheduler(case: dict[str, Any], *, spaced: bool = False) -> Iddpm:
    """The scheduler of a case. spaced: with the steps kept that a sampler of so many steps keeps."""
    options = {name: value for name, value in case["config"].items() if name not in ARGUMENTS}
    if spaced and "num_sampling_steps" in case["config"]:
        options["timestep_respacing"] = str(case["config"]["num_sampling_steps"])
    return Iddpm(options)


def tensors_of(file: str, case: dict[str, Any]) -> dict[str, Tensor]:
    prefix = f"{case['name']}/"
    tensors = load_tensors(TOPIC, f"{file}.safetensors")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def close(actual: Tensor, expected: Tensor, tolerance: dict[str, float], what: str = "") -> None:
    torch.testing.assert_close(
        actual.to(expected.dtype),
        expected,
        atol=tolerance["abs"],
        rtol=tolerance["rel"],
        msg=lambda message: f"{what}: {message}",
    )


@pytest.mark.parametrize("case", cases(TOPIC, "respacing"))
def test_kept_steps(case):
    spec = case["spec"] if isinstance(case["spec"], str) else ",".join(map(str, case["spec"] or ()))
    if case.get("error"):
        with pytest.raises(ValueError):
            kept_steps(case["num_timesteps"], spec)
    else:
        assert kept_steps(case["num_timesteps"], spec) == case["timesteps"]


@pytest.mark.parametrize("case", cases(TOPIC, "tables"))
def test_tables(case):
    tolerance, expected = read(TOPIC, "tables")["tolerance"], tensors_of("tables", case)
    tables = scheduler(case, spaced=True).tables()
    assert tables.steps.tolist() == expected.pop("timestep_map").tolist()
    assert len(tables.steps) == case["num_timesteps"]
    assert expected
    for name, tensor in expected.items():
        close(getattr(tables, name), tensor, tolerance, name)


@pytest.mark.parametrize("case", cases(TOPIC, "single_step"))
def test_single_step(case):
    tolerance, given = read(TOPIC, "single_step")["tolerance"], tensors_of("single_step", case)
    diffusion = scheduler(case, spaced=True)
    tables, x, x0, t = diffusion.tables(), given["x"], given["x0"], given["t"]
    output = toy_network(x, tables.steps[t], given["y"])
    found = diffusion.posterior(tables, output, x, t, clip=case["clip_denoised"])
    free = diffusion.posterior(tables, output, x, t)
    exact = diffusion.posterior(tables, torch.cat([x, torch.full_like(x, -1)], dim=1), x, t)
    actual = {
        "mean": found.mean,
        "log_variance": found.log_variance,
        "variance": found.log_variance.exp(),
        "pred_xstart": found.pred_xstart,
        "q_sample_x0": diffusion.add_noise(x0, x, t),
        "posterior_log_variance": exact.log_variance,
        "posterior_mean": Iddpm({**diffusion.options.model_dump(), "predict_xstart": True})
        .posterior(tables, torch.cat([x0, x0], dim=1), x, t)
        .mean,
        "ddim_prev": diffusion.ddim_step(tables, free, x, t, torch.zeros_like(x), 0.0),
    }
    for name, tensor in actual.items():
        close(tensor, given[name], tolerance, name)
    assert given.keys() - actual.keys() == {"x", "x0", "t", "y"}


@pytest.mark.parametrize("case", cases(TOPIC, "training_losses"))
def test_training_losses(case):
    tolerance, given = read(TOPIC, "training_losses")["tolerance"], tensors_of("training_losses", case)
    diffusion = scheduler(case, spaced=True)
    seen = {}

    def network(x: Tensor, t: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        seen.update(x_t=x, t_model=t)
        return toy_network(x, t, y, **conditioning)

    weights = 1 - diffusion.tables("").alphas_cumprod if case["weights"] else None
    found = diffusion.losses(
        network,
        given["x_start"],
        noise=given["noise"],
        t=given["t"],
        frame_mask=given.get("mask"),
        weights=weights,
        y=given["y"],
    )
    assert found.keys() == case["terms"].keys()
    for name, values in case["terms"].items():
        close(found[name], torch.tensor(values), tolerance, name)
    for name, tensor in seen.items():
        close(tensor, given[name], tolerance, name)


def test_speed():
    golden = read(TOPIC, "speed")
    tensors = load_tensors(TOPIC, "speed.safetensors")
    tables = speed_tables(make_tables(1000, "linear", ""))
    assert tables.meaningful == golden["meaningful_steps"]
    close(tables.weights, tensors["weights"], golden["tolerance"], "weights")
    # Beside the step of the tanh a last bit of the tables is magnified a million times.
    step = int((tensors["p"] > tensors["p"].mean()).sum())
    beside = (torch.arange(len(tables.p)) - step).abs() <= 2
    close(tables.p[~beside], tensors["p"][~beside], golden["tolerance"], "p")
    close(tables.p[beside], tensors["p"][beside], {"abs": 0.0, "rel": 0.03}, "p beside the step")
    for t, dual in zip(golden["t"], golden["dual"], strict=True):
        assert paired_steps(torch.tensor([t]), 2, tables.meaningful).tolist() == [t, dual]
    for example in golden["batch_examples"]:
        drawn = torch.tensor(example["drawn"])
        assert paired_steps(drawn, example["n"], tables.meaningful).tolist() == example["t"]


@pytest.mark.parametrize("case", cases(TOPIC, "sampling"))
def test_sampling(case):
    tolerance, given = read(TOPIC, "sampling")["tolerance"], tensors_of("sampling", case)
    diffusion, count = scheduler(case), len(given["noise_step"])
    calls: list[dict[str, Any]] = []

    def network(x: Tensor, t: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        half = len(x) // 2
        x_mask = conditioning.get("x_mask")
        calls.append({"model_in": x[:half], "t_model": t[:half], "x_mask": None if x_mask is None else x_mask[:half]})
        return toy_network(x, t, y, **conditioning)

    def draw_noise(step: int) -> Tensor:
        return given["noise_step"][step] if step >= 0 else given["noise_mask"][-1 - step]

    text = TextEmbedding(given["y_cond"], torch.ones(given["y_cond"].shape[0], given["y_cond"].shape[2]))
    request = SampleRequest(
        given["z0"], text, given["y_null"], 8, 8, 17, 3, 24.0, frame_mask=given.get("mask"), draw_noise=draw_noise
    )
    out = diffusion.sample(network, request, steps=count, guidance=case["config"].get("cfg_scale", 4.0))
    close(out, given["z_final"], tolerance, "z_final")
    has_part = "mask" in given and bool((given["mask"] != 1).any())
    for name in ("model_in", "t_model", *(("x_mask",) if has_part else ())):
        if name in given:
            close(torch.stack([call[name] for call in calls]), given[name], tolerance, name)
    times = diffusion.schedule(count, height=8, width=8, num_frames=17)
    assert times.tolist() == given["t_model"][:, 0].tolist()
