"""Discrete diffusion beyond the goldens: other schedules and variances, resuming, mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sora_cli.errors import UsageError
from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.iddpm.iddpm import Iddpm, discretized_log_likelihood
from sora_plugins.iddpm.process import make_tables


def perfect(x0: Tensor, steps: Tensor, *, sigma: bool = True) -> Any:
    """A network that knows the data: it predicts exactly the noise that is in x."""

    def call(x: Tensor, t: Tensor, y: Tensor, **_: Any) -> Tensor:
        tables = make_tables(1000, "linear", "")
        copies = len(x) // len(x0)
        left = tables.alphas_cumprod[t.long()].view(-1, 1, 1, 1, 1)
        noise = (x - left.sqrt() * x0.repeat(copies, 1, 1, 1, 1)) / (1 - left).sqrt()
        return torch.cat([noise, torch.zeros_like(noise)], dim=1) if sigma else noise

    return call


def request(seed: int = 0, **changes: Any) -> SampleRequest:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 4, 3, 4, 4, generator=generator)

    def draw_noise(step: int) -> Tensor:
        return torch.randn(noise.shape, generator=torch.Generator().manual_seed(1000 + step))

    text = TextEmbedding(torch.zeros(2, 1, 3, 8), torch.ones(2, 3))
    made = SampleRequest(noise, text, torch.zeros(2, 1, 3, 8), 32, 32, 9, 3, 24.0, draw_noise=draw_noise)
    return made._replace(**changes)


X0 = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    "options",
    [{}, {"ddim_eta": 0.0}, {"ddim_eta": 1.0}, {"learn_sigma": False}, {"learn_sigma": False, "sigma_small": True}],
)
def test_a_network_that_knows_the_data_gives_it(options):
    flow = Iddpm(options)
    out = flow.sample(
        perfect(X0, flow.tables().steps, sigma=options.get("learn_sigma", True)), request(), steps=20, guidance=1.0
    )
    torch.testing.assert_close(out, X0, atol=2e-3, rtol=0)


def test_going_on_from_a_step_is_exact():
    flow, kept = Iddpm(), {}
    network = perfect(X0, flow.tables().steps)
    whole = flow.sample(
        network, request(), steps=10, guidance=3.0, on_step=lambda step, x: kept.update({step: x.clone()})
    )
    again = flow.sample(network, request(noise=kept[6]), steps=10, guidance=3.0, start_step=6)
    assert torch.equal(whole, again)


def test_cosine_schedule():
    tables = make_tables(1000, "squaredcos_cap_v2", "")
    assert (tables.alphas_cumprod.diff() < 0).all()
    assert tables.betas.max() <= 0.999
    assert tables.alphas_cumprod[499].item() == pytest.approx(0.4938, abs=1e-4)


def test_training_steps_are_uniform_or_as_speed_draws_them():
    generator = torch.Generator().manual_seed(0)
    plain = Iddpm().draw_times(20000, generator=generator, height=None)
    assert plain.dtype == torch.int64
    assert (int(plain.min()), int(plain.max())) == (0, 999)
    # standard deviation of the share: sqrt(0.7 * 0.3 / 20000) = 0.0032
    assert abs((plain < 700).float().mean() - 0.7) < 0.015
    speed = Iddpm({"speed": True}).draw_times(20000, generator=generator)
    assert (speed < 700).float().mean() > 0.85
    assert speed.min() >= 0


def test_a_fixed_variance_has_no_bound_in_its_loss():
    flow = Iddpm({"learn_sigma": False})
    found = flow.losses(
        perfect(X0, flow.tables().steps, sigma=False), X0, noise=torch.randn_like(X0), t=torch.tensor([10, 900]), y=X0
    )
    assert found.keys() == {"mse", "loss"}
    assert float(found["loss"].max()) < 1e-6


def test_a_network_without_variance_is_said():
    network = perfect(X0, Iddpm().tables().steps, sigma=False)
    with pytest.raises(UsageError, match="predicts no variance"):
        Iddpm().sample(network, request(), steps=4, guidance=1.0)
    with pytest.raises(UsageError, match="predicts no variance"):
        Iddpm().losses(network, X0, noise=torch.randn_like(X0), t=torch.tensor([10, 900]), y=X0)


def test_likelihood_of_all_levels_is_one():
    levels = torch.linspace(-1, 1, 256)
    log = discretized_log_likelihood(levels, torch.tensor(0.1), torch.tensor(-2.0))
    assert float(log.exp().sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "steps", "message"),
    [
        ({"timestep_respacing": "ddim50"}, 30, "keeps 50 steps, not 30"),
        ({}, 2000, "2000 steps of a process of 1000"),
        ({}, 1, "no variance to learn"),
    ],
)
def test_steps_that_are_not_to_be_had(options, steps, message):
    with pytest.raises(UsageError, match=message):
        Iddpm(options).sample(perfect(X0, torch.zeros(1)), request(), steps=steps, guidance=1.0)
