"""The training objective of rectified flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

FLOW = RectifiedFlow()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(3, 4, 5, 2, 2, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    return {"x0": x0, "noise": noise, "t": torch.tensor([0.0, 300.0, 1000.0])}


def test_noising_goes_straight_from_data_to_noise(batch):
    x_t = FLOW.add_noise(**batch)
    assert torch.equal(x_t[0], batch["x0"][0])
    torch.testing.assert_close(x_t[1], 0.7 * batch["x0"][1] + 0.3 * batch["noise"][1])
    assert torch.equal(x_t[2], batch["noise"][2])


def test_true_velocity_has_no_loss(batch):
    velocity = batch["x0"] - batch["noise"]
    loss = FLOW.loss(lambda *_, **__: velocity, **batch)
    assert loss.tolist() == [0, 0, 0]
    off = FLOW.loss(lambda *_, **__: velocity + 0.5, **batch)
    assert off.tolist() == pytest.approx([0.25] * 3)


def test_second_half_of_the_channels_is_not_trained(batch):
    velocity = batch["x0"] - batch["noise"]
    loss = FLOW.loss(lambda *_, **__: torch.cat([velocity, velocity + 100], dim=1), **batch)
    assert loss.tolist() == [0, 0, 0]


def test_frames_outside_the_mask_are_shown_clean_and_not_counted(batch):
    learn = torch.tensor([[True, True, False, False, False], [False, True, True, True, True], [True] * 5])
    seen = {}

    words = torch.ones(3, 6)

    def model(x_t: Tensor, t: Tensor, *, x_mask: Tensor, mask: Tensor) -> Tensor:
        seen.update(x_t=x_t, t=t, x_mask=x_mask, words=mask)
        right = batch["x0"] - batch["noise"]
        return torch.where(learn[:, None, :, None, None], right + 2, right + 1000)

    loss = FLOW.loss(model, **batch, frame_mask=learn, mask=words)
    assert loss.tolist() == pytest.approx([4.0] * 3)
    assert torch.equal(seen["x_mask"], learn)
    assert torch.equal(seen["t"], batch["t"]), "the time is passed as it is, not divided by 1000"
    assert torch.equal(seen["words"], words), "the mask of the text goes to the network as it is"
    rows = seen["x_t"].movedim(1, 2)
    assert torch.equal(rows[~learn], batch["x0"].movedim(1, 2)[~learn])
    assert torch.equal(rows[learn], FLOW.add_noise(**batch).movedim(1, 2)[learn])


def test_mask_without_a_frame_to_learn_is_refused(batch):
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(ValueError, match="without any frame"):
        FLOW.loss(lambda x, *_, **__: x, **batch, frame_mask=mask)


def test_weights_are_looked_up_at_the_time(batch):
    weights = torch.arange(1000.0)
    velocity = batch["x0"] - batch["noise"]
    times = torch.tensor([0, 300, 999])
    loss = FLOW.loss(lambda *_, **__: velocity + 1, **{**batch, "t": times}, weights=weights)
    assert loss.tolist() == pytest.approx([0, 300, 999])


def test_gradient_reaches_the_prediction(batch):
    scale = torch.tensor(0.0, requires_grad=True)
    velocity = batch["x0"] - batch["noise"]
    FLOW.loss(lambda *_, **__: scale * velocity, **batch).sum().backward()
    # d/ds mean((s v - v)^2) at s = 0 is -2 mean(v^2)
    expected = -2 * velocity.square().flatten(1).mean(dim=1).sum()
    torch.testing.assert_close(scale.grad, expected)
