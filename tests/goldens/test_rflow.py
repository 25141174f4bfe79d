"""Golden topic `rflow`: times, training objective and sampling of rectified flow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loader import cases, load_tensors, read
from torch import Tensor
from toys import toy_network

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow, transform_timesteps

TOPIC = "rflow"
# The reference's keywords that are arguments of `sample` here.
ARGUMENTS = ("num_sampling_steps", "cfg_scale")


def scheduler(case: dict[str, Any]) -> RectifiedFlow:
    """The scheduler of a case. float16 sizes are widened to float32 by the reference, so they are float32 here."""
    options = {name: value for name, value in case["config"].items() if name not in ARGUMENTS}
    if (case.get("info") or {}).get("dtype") == "bfloat16":
        options["info_dtype"] = "bfloat16"
    return RectifiedFlow(options)


def sizes(case: dict[str, Any]) -> dict[str, int]:
    info = case["info"] or {"height": 512, "width": 512, "num_frames": 1}
    return {name: info[name] for name in ("height", "width", "num_frames")}


def close(actual: Tensor, expected: Tensor, tolerance: dict[str, float], what: str = "") -> None:
    torch.testing.assert_close(
        actual,
        expected,
        atol=tolerance["abs"],
        rtol=tolerance.get("rel", 0),
        msg=lambda message: f"{what}: {message}",
    )


@pytest.mark.parametrize("case", cases(TOPIC, "timestep_transform"))
def test_timestep_transform(case):
    golden = read(TOPIC, "timestep_transform")
    dtype = getattr(torch, case["info_dtype"])
    info = [torch.tensor([case[name]], dtype=dtype) for name in ("height", "width", "num_frames")]
    out = transform_timesteps(torch.tensor(golden["t"]), *info, scale=case["scale"])
    # The clamp to pure noise is ours (contract: a time above it would freeze the first masked step).
    expected = torch.tensor(case["out"]).clamp(max=1000)
    close(out, expected, golden["tolerance"])


@pytest.mark.parametrize("case", cases(TOPIC, "schedules"))
def test_schedule(case):
    steps = case["config"].get("num_sampling_steps", 10)
    times = scheduler(case).schedule(steps, **sizes(case))
    close(times, torch.tensor(case["timesteps"]).float(), read(TOPIC, "schedules")["tolerance"])


@pytest.mark.parametrize("case", cases(TOPIC, "timestep_sampling"))
def test_timestep_sampling(case, monkeypatch):
    """The training times that come from the stored base draws, before and after the shift."""
    tolerance, flow = read(TOPIC, "timestep_sampling")["tolerance"], scheduler(case)
    if "raw_integers" in case:
        draws = (torch.tensor(case["raw_integers"]) + 0.5) / flow.options.num_timesteps
    else:
        draws = torch.tensor(case["normal"] if "normal" in case else case["uniform"])
    close(flow.times_from_draws(draws), torch.tensor(case["t_raw"]), tolerance, "t_raw")

    monkeypatch.setattr(torch, "randn" if "normal" in case else "rand", lambda *_shape, **_options: draws)
    info = case["info"] or {}
    dtype = getattr(torch, info.get("dtype", "float32"))
    given = {name: torch.tensor([float(info[name])], dtype=dtype) for name in info if name != "dtype"}
    close(flow.draw_times(len(draws), **given), torch.tensor(case["t"]), tolerance, "t")


def tensors_of(file: str, case: dict[str, Any]) -> dict[str, Tensor]:
    prefix = f"{case['name']}/"
    tensors = load_tensors(TOPIC, file)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize("case", cases(TOPIC, "training_losses"))
def test_training_loss(case):
    golden = read(TOPIC, "training_losses")
    tensors = tensors_of(golden["file"], case)
    calls: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor, **conditioning: Any) -> Tensor:
        calls.append((x, toy_network(x, t, **conditioning)))
        return calls[-1][1]

    loss = scheduler(case).loss(
        network,
        tensors["x_start"],
        noise=tensors["noise"],
        t=tensors["t"],
        frame_mask=tensors.get("mask"),
        weights=torch.linspace(0.5, 2.0, 1000) ** 2 if case["weights"] else None,
        y=tensors["y"],
    )
    close(loss, tensors["loss"], golden["tolerance"], "loss")
    close(loss, torch.tensor(case["loss"]), golden["tolerance"], "loss in the JSON")
    [(x_t, out)] = calls
    close(x_t, tensors["x_t"], golden["tolerance"], "x_t")
    close(out, tensors["model_out"], golden["tolerance"], "model_out")


@pytest.mark.parametrize("case", cases(TOPIC, "sampling"))
def test_sampling(case):
    golden = read(TOPIC, "sampling")
    tensors, tolerance = tensors_of(golden["file"], case), golden["tolerance"]
    steps, count = case["config"].get("num_sampling_steps", 10), case["shape"][0]
    calls: list[dict[str, Tensor | None]] = []

    def network(x: Tensor, t: Tensor, y: Tensor, *, x_mask: Tensor | None, **conditioning: Any) -> Tensor:
        calls.append({"x": x, "t": t, "x_mask": x_mask})
        return toy_network(x, t, y, x_mask, **conditioning)

    request = SampleRequest(
        noise=tensors["z0"],
        text=TextEmbedding(tensors["y_cond"], torch.ones(tensors["y_cond"].shape[0::2], dtype=torch.long)),
        null_embeddings=tensors["y_null"],
        **sizes(case),
        latent_frames=case["shape"][2],
        fps=24.0,
        frame_mask=tensors.get("mask"),
        draw_noise=(lambda step: tensors["noise"][step]) if "noise" in tensors else None,
    )
    guidance = case["guidance_scale"] or case["config"].get("cfg_scale", 4.0)
    out = scheduler(case).sample(network, request, steps=steps, guidance=guidance)
    close(out, tensors[case.get("wanted", "z_final")], tolerance, "result")

    # A corrected case has other times, and no stored inputs and masks to compare with.
    corrected = "wanted" in case
    times = tensors["timesteps_fixed" if corrected else "timesteps"]
    assert len(calls) == steps
    for step, call in enumerate(calls):
        close(call["t"][:count], times[step].float(), tolerance["timesteps"], f"time {step}")
        if corrected:
            continue
        close(call["x"][:count], tensors["model_in"][step], tolerance["model_in"], f"input {step}")
        # No mask is passed where every frame is generated.
        everything = torch.ones(2 * count, case["shape"][2], dtype=torch.bool)
        expected = tensors["x_mask"][step].repeat(2, 1) if "x_mask" in tensors else everything
        mask = everything if call["x_mask"] is None else call["x_mask"]
        assert torch.equal(mask, expected), f"frame mask {step}"
