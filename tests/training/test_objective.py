"""What is drawn for a batch: the same for its number, whoever trains it; captions dropped as often as asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from opensora_tiny import NETWORK

from sora_cli.conditioning.frame_masks import MaskRatios
from sora_cli.errors import SoraError
from sora_cli.training.objective import Encoded, Objective
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow
from sora_plugins.stdit.stdit3 import build


def encoded(number: int = 0, count: int = 4) -> Encoded:
    generator = torch.Generator().manual_seed(1)
    sizes = {"height": 64.0, "width": 64.0, "num_frames": 17.0, "ar": 1.0, "fps": 24.0}
    return Encoded(
        number,
        torch.randn(count, 4, 5, 4, 4, generator=generator),
        torch.randn(count, 1, 300, 32, generator=generator),
        torch.ones(count, 300),
        {name: torch.full((count,), value) for name, value in sizes.items()},
        [f"caption {index}" for index in range(count)],
    )


class Recording:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **conditioning: Any) -> torch.Tensor:
        self.given = {"x": x, "t": t, **conditioning}
        return torch.zeros_like(x)


def draws(objective: Objective, number: int = 0, epoch: int = 0) -> dict[str, Any]:
    model = Recording()
    objective.losses(model, encoded(number, 64), epoch)
    return model.given


def test_draws_depend_on_the_micro_batch_and_the_epoch():
    objective = Objective(RectifiedFlow(), 3, MaskRatios({"image_head": 0.5}), 0.3)
    first = draws(objective)
    torch.manual_seed(99)
    again = draws(objective)
    for name in ("x", "t", "drop_ids", "x_mask"):
        assert torch.equal(first[name], again[name])
        for other in (draws(objective, number=1), draws(objective, epoch=1)):
            assert not torch.equal(first[name], other[name])
    assert 0 < int(first["drop_ids"].sum()) < 64
    assert not first["x_mask"][:, 0].all()
    assert first["x_mask"][:, 1:].all()


@pytest.mark.parametrize(("drop", "expected"), [(0.0, 0), (1.0, 64)])
def test_captions_are_dropped_as_often_as_asked_for(drop: float, expected: int):
    assert int(draws(Objective(RectifiedFlow(), 3, None, drop))["drop_ids"].sum()) == expected


def test_tokens_are_left_out_but_never_all():
    objective = Objective(RectifiedFlow(), 3, token_drop=0.3)
    mask = draws(objective)["mask"]
    assert mask.shape == (64, 300)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(mask, draws(objective)["mask"])
    assert not torch.equal(mask, draws(objective, epoch=1)["mask"])
    assert draws(Objective(RectifiedFlow(), 3, token_drop=1.0))["mask"].all()
    assert draws(Objective(RectifiedFlow(), 3))["mask"].all()
    # What is not a token stays none.
    padded = torch.cat([torch.ones(8, 2), torch.zeros(8, 6)], dim=1).long()
    kept = objective._kept_tokens(padded, (0, 0))
    assert kept.dtype == padded.dtype
    assert not kept[:, 2:].any()
    assert kept.any(dim=1).all()


def test_a_network_that_would_drop_captions_by_itself_is_told_not_to():
    torch.manual_seed(0)
    network = build({**NETWORK, "class_dropout_prob": 1.0}).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = encoded()
    other = batch._replace(y=batch.y + 1)
    plain = Objective(RectifiedFlow(), 3)
    dropped = Objective(RectifiedFlow(), 3, None, 1.0)
    with torch.no_grad():
        assert not torch.allclose(plain.losses(network, batch, 0), plain.losses(network, other, 0))
        torch.testing.assert_close(dropped.losses(network, batch, 0), dropped.losses(network, other, 0))


def test_noise_that_depends_on_the_text_is_that_of_each_row() -> None:
    seen: list[tuple[str, float, int]] = []

    def shaper(noise: torch.Tensor, text: str, *, fps: float, seed: int) -> torch.Tensor:
        seen.append((text, fps, seed))
        return noise * 0 + len(seen)

    objective = Objective(RectifiedFlow(), 3, shaper=shaper)
    network = Recording()
    objective.losses(network, encoded(), 0)
    assert [text for text, _, _ in seen] == [f"caption {index}" for index in range(4)]
    assert {fps for _, fps, _ in seen} == {24.0}
    assert len({seed for _, _, seed in seen}) == 4, "rows share nothing"
    first = list(seen)
    seen.clear()
    objective.losses(network, encoded(), 0)
    assert seen == first, "the same in every run"
    with pytest.raises(SoraError, match="without their captions"):
        objective.losses(network, encoded()._replace(texts=()), 0)
