"""Golden topic `train_step`: loss, clipping, AdamW, warm-up and EMA together, on a toy network."""

from __future__ import annotations

import pytest
import torch
from loader import goldens_dir, load_tensors, read
from torch import Tensor, nn

from sora_cli.training.ema import Ema
from sora_cli.training.learning_rate import learning_rate
from sora_cli.training.optimizer import MasterOptimizer
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

NAMES = sorted(path.stem for path in (goldens_dir() / "train_step").glob("*.json")) or ["absent"]


class Toy(nn.Module):
    """The network of the golden (training.md section 11.7)."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_parameter(name, nn.Parameter(tensor.clone()))

    def forward(self, x: Tensor, t: Tensor, x_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones(x.shape[0], x.shape[2]) if x_mask is None else x_mask.float()
        mixed = torch.einsum("oc,bcfhw->bofhw", self.mix, x) + torch.einsum("oc,bcfhw->bofhw", self.nl, x.tanh())
        time = (t[:, None] * mask / 1000)[:, None, :, None, None]
        return mixed + self.bias.view(-1, 1, 1, 1) + self.tvec.view(-1, 1, 1, 1) * time


@pytest.mark.parametrize("name", NAMES)
def test_updates(name):
    content = read("train_step", name)
    tensors, settings = load_tensors("train_step", f"{name}.safetensors"), content["optimizer"]
    near = {"rtol": content["tolerance"]["param_rtol"], "atol": content["tolerance"]["param_atol"]}
    network = Toy({key.removeprefix("init."): tensor for key, tensor in tensors.items() if key.startswith("init.")})
    parameters = dict(network.named_parameters())
    optimizer = MasterOptimizer(
        parameters, betas=tuple(settings["betas"]), eps=settings["eps"], weight_decay=settings["weight_decay"]
    )
    ema = Ema(network.state_dict(), parameters, decay=content["ema_decay"])
    flow = RectifiedFlow({"use_timestep_transform": False})
    for update in content["updates"]:
        step, ranks = update["step"], content["ranks"]
        for rank in range(ranks):
            own = {key: tensors.get(f"step{step}.rank{rank}.{key}") for key in ("x", "noise", "t", "mask")}
            losses = flow.loss(network, own["x"], noise=own["noise"], t=own["t"], frame_mask=own["mask"])
            torch.testing.assert_close(
                losses.detach(), tensors[f"step{step}.rank{rank}.loss_per_sample"], rtol=1e-5, atol=1e-6
            )
            assert losses.mean().item() == pytest.approx(update["loss_of_rank"][rank], rel=1e-5)
            (losses.mean() / ranks).backward()
        rate = learning_rate(settings["lr"], step, content["warmup_steps"])
        assert rate == pytest.approx(update["lr"])
        norm = optimizer.step(rate, content["max_grad_norm"])
        assert norm == pytest.approx(update["grad_norm_before_clip"], rel=content["tolerance"]["grad_norm_rtol"])
        ema.update(optimizer.masters)
        for key, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), tensors[f"step{step}.after.{key}"], **near)
            torch.testing.assert_close(ema.average[key], tensors[f"step{step}.ema.{key}"], **near)
