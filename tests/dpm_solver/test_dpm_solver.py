"""DPM-Solver++ beyond the goldens: what it solves, going on from a step, mistakes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sora_cli.errors import UsageError
from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.dpm_solver import sora_schedulers
from sora_plugins.dpm_solver.dpm_solver import DPMSolver, make_points
from sora_plugins.iddpm.process import make_tables

SHAPE = (2, 4, 3, 4, 4)


def request(**changes: Any) -> SampleRequest:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    text = TextEmbedding(torch.ones(2, 1, 3, 8), torch.ones(2, 3))
    return SampleRequest(noise, text, torch.zeros(2, 1, 3, 8), 32, 32, 9, 3, 24.0)._replace(**changes)


def gaussian(x: Tensor, t: Tensor, y: Tensor, **_: Any) -> Tensor:
    """The noise that is expected in x when the data is Gaussian with deviation 0.5 and mean 1 with text, else 0."""
    left = make_tables(1000, "linear", "").alphas_cumprod.double()
    low = t.long().clamp(max=998)
    share = (t.double() - low).clamp(0, 1)
    alpha = ((1 - share) * left[low].log() + share * left[low + 1].log()).exp().sqrt().view(-1, 1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    mean = y.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1, 1)
    noise = sigma * (x - alpha * mean) / (alpha**2 * 0.25 + sigma**2)
    return torch.cat([noise, torch.full_like(noise, 7.0)], dim=1).float()


def solve(steps: int, **changes: Any) -> Tensor:
    return DPMSolver().sample(gaussian, request(**changes), steps=steps, guidance=1.0)


def test_the_solution_is_reached_and_more_steps_come_closer():
    # The exact flow maps a Gaussian to a Gaussian: each number keeps its deviations from the mean.
    points = make_points(20)
    alpha, sigma = points.log_alphas.exp(), points.sigmas
    start, end = (alpha[[0, -1]] ** 2 * 0.25 + sigma[[0, -1]] ** 2).sqrt()
    exact = alpha[-1] + end / start * (request().noise - alpha[0])
    errors = [float((solve(steps) - exact).abs().max()) for steps in (20, 80, 320)]
    assert errors[0] < 0.1
    # An order of 2: four times the steps, a sixteenth of the error in the limit.
    assert all(later < earlier / 6 for earlier, later in itertools.pairwise(errors)), errors


@pytest.mark.parametrize("stop", range(1, 6))
def test_going_on_from_a_step_is_exact(stop):
    kept: dict[int, Tensor] = {}
    solver = DPMSolver()
    whole = solver.sample(gaussian, request(), steps=6, guidance=3.0, on_step=kept.__setitem__)
    assert [kept[step].shape[1] for step in range(1, 7)] == [8] * 5 + [4]
    assert torch.equal(kept[6], whole)
    again = solver.sample(gaussian, request(noise=kept[stop]), steps=6, guidance=3.0, start_step=stop)
    assert torch.equal(again, whole)


def test_guidance_leads_beyond_the_text():
    plain, guided = (DPMSolver().sample(gaussian, request(), steps=10, guidance=value) for value in (1.0, 2.0))
    assert guided.mean() - plain.mean() > 0.5


def test_masks_of_given_frames_are_refused():
    all_new = torch.ones(2, 3)
    assert torch.equal(solve(4, frame_mask=all_new), solve(4))
    kept = all_new.clone()
    kept[1, 0] = 0.5
    with pytest.raises(UsageError, match="can neither keep nor edit given frames"):
        solve(4, frame_mask=kept)


def test_a_single_step_is_refused():
    with pytest.raises(UsageError, match="at least 2 steps"):
        solve(1)


def test_times_fall_and_the_spec_names_the_class():
    [spec] = sora_schedulers()
    assert spec.target == f"{DPMSolver.__module__}:{DPMSolver.__qualname__}"
    times = DPMSolver().schedule(spec.default_steps, height=8, width=8, num_frames=1)
    assert times.shape == (20,)
    assert times[0] == 999
    assert (times.diff() < 0).all()
