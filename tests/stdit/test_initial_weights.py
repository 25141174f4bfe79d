"""Initial weights of STDiT3 (spec stdit.md 7)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sora_plugins.stdit.stdit3 import STDiT3, build

WIDTH = 96


@pytest.fixture(scope="module")
def fresh() -> STDiT3:
    torch.manual_seed(0)
    return build({"hidden_size": WIDTH, "depth": 2, "num_heads": 4, "caption_channels": 40, "model_max_length": 50})


def test_temporal_blocks_start_as_the_identity(fresh, inputs):
    before, after = [], []
    for spatial, temporal in zip(fresh.spatial_blocks, fresh.temporal_blocks, strict=True):
        spatial.register_forward_hook(lambda _module, _args, out: before.append(out))
        temporal.register_forward_hook(lambda _module, _args, out: after.append(out))
    given = {**inputs(), "y": torch.randn(2, 1, 6, 40, generator=torch.Generator().manual_seed(2))}
    with torch.no_grad():
        out = fresh.eval()(**given)
    assert len(before) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (before[1] - before[0]).abs().max() > 0.01, "spatial blocks do something"
    assert out.std() > 0.1, "the final layer is not zero"


def test_frame_rate_has_no_effect_at_first(fresh):
    assert torch.equal(fresh.fps_embedder(torch.tensor([8.0, 120.0])), torch.zeros(2, WIDTH))


ZERO = {f"temporal_blocks.{i}.{name}" for i in range(2) for name in ("attn.proj", "cross_attn.proj", "mlp.fc2")}
ZERO.add("fps_embedder.mlp.2")


def test_linear_layers(fresh):
    """Xavier uniform with zero bias: within +-sqrt(6 / (in + out)) and of that variance, except those named."""
    for name, module in fresh.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        assert not module.bias.any(), name
        weight = module.weight
        bound = (6 / sum(weight.shape)) ** 0.5
        if name in ZERO:
            assert not weight.any(), name
        elif name == "fps_embedder.mlp.0":
            assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        else:
            assert weight.abs().max() <= bound, name
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name


def test_other_parameters(fresh):
    bound = (4 * 2 * 2) ** -0.5  # framework default of a convolution with 4 channels and 1 x 2 x 2 taps
    assert 0.9 * bound < fresh.x_embedder.proj.weight.abs().max() <= bound
    assert 0 < fresh.x_embedder.proj.bias.abs().max() <= bound
    tables = torch.cat([block.scale_shift_table for block in [*fresh.spatial_blocks, *fresh.temporal_blocks]])
    assert tables.std().item() == pytest.approx(WIDTH**-0.5, rel=0.1)
    assert fresh.final_layer.scale_shift_table.std().item() == pytest.approx(WIDTH**-0.5, rel=0.3)
    assert fresh.y_embedder.y_embedding.std().item() == pytest.approx(40**-0.5, rel=0.1)
    for name, parameter in fresh.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            assert torch.equal(parameter, torch.ones(24)), name


def test_what_never_trains(fresh):
    frozen = [name for name, parameter in fresh.named_parameters() if not parameter.requires_grad]
    assert frozen == ["rope.freqs"]
    assert "y_embedder.y_embedding" in fresh.state_dict()
    assert "y_embedder.y_embedding" not in dict(fresh.named_parameters())
