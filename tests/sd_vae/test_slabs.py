"""Slabs give what layers give, in the memory that vae.md section 13 promises."""

from __future__ import annotations

import pytest
import torch
from live_tensors import LiveBytes
from torch import Tensor, nn

from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.config import SpatialConfig
from sora_plugins.sd_vae.memory import frame_bytes, working_bytes
from sora_plugins.sd_vae.model import FrameAutoencoder, SpatialAutoencoder, at_once
from sora_plugins.sd_vae.modes import MemoryMode

#: Float32, in units of the largest value: two orders of the same sums (measured: 1e-6 to 4e-6).
TOLERANCE = 2e-5
SMALL = SpatialConfig(block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4)


def random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Convolutions that keep the size of what they get, and norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.2
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread + offset
    return network.eval().requires_grad_(False)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.fixture
def small() -> SpatialAutoencoder:
    network = random_weights(SpatialAutoencoder(SMALL))
    assert isinstance(network, SpatialAutoencoder)
    return network


@pytest.fixture(scope="module")
def full() -> SpatialAutoencoder:
    network = random_weights(SpatialAutoencoder())
    assert isinstance(network, SpatialAutoencoder)
    return network


@pytest.mark.parametrize("slab_bytes", [1, 3000, 2**24])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 23, 18), (3, 20, 29), (2, 4, 5)])
def test_slabs_equal_layers(small, monkeypatch, slab_bytes, batch, height, width):
    monkeypatch.setattr(slabs, "SLAB_BYTES", slab_bytes)
    pixels, latents = torch.randn(batch, 3, height, width), torch.randn(batch, 4, height // 4, width // 4)
    with torch.inference_mode():
        plain = small.moments(pixels), small.decode(latents)
        small.set_memory_mode("low")
        low = small.moments(pixels), small.decode(latents)
        small.set_memory_mode("plain")
        assert torch.equal(small.decode(latents), plain[1])
    for one, other in zip(low, plain, strict=True):
        assert_close(one, other)


def test_one_level(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 500)
    network = random_weights(SpatialAutoencoder(SpatialConfig(block_out_channels=(8,), norm_num_groups=4)))
    z = torch.randn(1, 4, 5, 6)
    with torch.inference_mode():
        plain = network.decode(z)
        network.set_memory_mode("low", tile=64, overlap=8)
        assert_close(network.decode(z), plain)


def test_real_widths_and_odd_sides(full, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 50_000)
    monkeypatch.setattr(slabs, "QUERIES_AT_ONCE", 3)
    pixels, latents = torch.rand(2, 3, 27, 44) * 2 - 1, torch.randn(2, 4, 3, 5)
    with torch.inference_mode():
        plain = full.moments(pixels), full.decode(latents)
        full.set_memory_mode("low")
        low = full.moments(pixels), full.decode(latents)
        full.set_memory_mode("plain")
    for one, other in zip(low, plain, strict=True):
        assert_close(one, other)


def test_bfloat16_is_as_far_from_float32_as_it_is_plainly(small, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2000)
    pixels, latents = torch.randn(2, 3, 32, 40), torch.randn(2, 4, 8, 10)
    with torch.inference_mode():
        exact = small.moments(pixels), small.decode(latents)
        small.to(torch.bfloat16)
        given = pixels.bfloat16(), latents.bfloat16()
        plain = small.moments(given[0]), small.decode(given[1])
        small.set_memory_mode("low")
        low = small.moments(given[0]), small.decode(given[1])
    for one, other, wanted in zip(low, plain, exact, strict=True):
        assert one.dtype == torch.bfloat16
        error, usual = ((value.float() - wanted).square().mean().sqrt() for value in (one, other))
        assert error < 1.2 * usual, "rms"


def test_statistics_far_from_zero(monkeypatch):
    """A mean a thousand times the deviation: the sum of squares alone would lose all digits of the variance."""
    norm = nn.GroupNorm(2, 4).requires_grad_(False)
    x = torch.randn(1, 4, 3, 40, 7) + 1000
    expected = nn.functional.group_norm(x.double(), 2)
    for slab_bytes in (1, 2000, 2**24):
        monkeypatch.setattr(slabs, "SLAB_BYTES", slab_bytes)
        affine = slabs.statistics(norm, slabs.Stored(x))
        scale = float(affine.scale[0, 0, 0, 0, 0])
        assert scale == pytest.approx(float(1 / x[:, :2].double().std(correction=0)), rel=1e-4)
        # x * scale + shift rounds at 1000 / deviation in units of the last place of float32.
        torch.testing.assert_close(affine.apply(x).double(), expected, atol=1e-3, rtol=0)


def test_slabs_have_a_stated_size():
    assert list(slabs.slabs(10, slabs.SLAB_BYTES // 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(slabs.slabs(2, 3 * slabs.SLAB_BYTES)) == [(0, 1), (1, 2)], "but at least one row"


@pytest.mark.parametrize("mode", ["low", "tiled"])
def test_gradients_are_plain(small, mode):
    small.requires_grad_(True)
    z = torch.randn(1, 4, 30, 30, requires_grad=True)
    plain = small.decode(z)
    small.set_memory_mode(mode, tile=48, overlap=16)
    y = small.decode(z)
    assert torch.equal(y, plain)
    y.sum().backward()
    assert z.grad is not None
    with torch.no_grad():
        assert not torch.equal(small.decode(z), plain)


def test_modes_that_do_not_exist(small):
    frames = FrameAutoencoder(small, 1.0)
    with pytest.raises(ValueError, match="memory mode 'fast' must be one of plain, low, tiled"):
        frames.set_memory_mode("fast")
    with pytest.raises(ValueError, match="a tile of 32 must be at least three overlaps of 16"):
        frames.set_memory_mode("tiled", tile=32, overlap=16)
    with pytest.raises(ValueError, match="tile 66 and overlap 16 must be multiples of 4 pixels"):
        frames.set_memory_mode("tiled", tile=66, overlap=16)
    assert small.memory == MemoryMode()


def test_no_state(small):
    before = list(small.state_dict())
    small.set_memory_mode("low")
    assert list(small.state_dict()) == before


# -- memory --------------------------------------------------------------------------------------------------------

SIDE = 64
AREA = SIDE * SIDE * 4  # bytes of one channel at full size in float32
SLAB = 2 * 256 * SIDE * 4  # two rows of 256 channels


def channels_at_full_size(network: SpatialAutoencoder, given: Tensor, *, decodes: bool) -> float:
    """The peak of live tensors in channels of the picture's size: 450 MiB at 720p in bf16 are 256."""
    with torch.inference_mode(), LiveBytes(network) as live:
        network.decode(given) if decodes else network.moments(given)
    return live.peak / AREA


@pytest.mark.parametrize(
    ("mode", "decodes", "channels"),
    [("plain", True, 3 * 256), ("plain", False, 5 * 128), ("low", True, 2 * 128), ("low", False, 2 * 128)],
)
def test_the_peak_is_that_of_the_ladder(full, monkeypatch, mode, decodes, channels):
    """vae.md section 13: plain row 3 (1350 MiB = 768 channels at 720p in bf16), low row 6 (450 MiB = 256)."""
    monkeypatch.setattr(slabs, "SLAB_BYTES", SLAB)
    given = torch.randn(1, 4, SIDE // 8, SIDE // 8) if decodes else torch.randn(1, 3, SIDE, SIDE)
    full.set_memory_mode(mode)
    peak = channels_at_full_size(full, given, decodes=decodes)
    full.set_memory_mode("plain")
    assert channels <= peak <= channels + (6 * SLAB / AREA if mode == "low" else 1)


def test_the_peak_of_tiles(full):
    full.set_memory_mode("tiled", tile=24, overlap=8)
    peak = channels_at_full_size(full, torch.randn(1, 4, SIDE // 8, SIDE // 8), decodes=True)
    full.set_memory_mode("plain")
    assert peak < 1.05 * 3 * 256 * (24 / SIDE) ** 2 + 3


def test_estimates():
    assert at_once(720, 1280) == 1, "one frame in flight"
    assert frame_bytes(720, 1280, 2) / 2**20 == 1350
    assert working_bytes(720, 1280, 2) / 2**20 == pytest.approx(2241, abs=1), "unchanged by modes"
    low = working_bytes(720, 1280, 2, memory=MemoryMode("low"))
    assert low / 2**20 == pytest.approx(450 + 1.66 * 96, abs=1)
    tiled = working_bytes(720, 1280, 2, memory=MemoryMode("tiled"))
    assert tiled / 2**20 == pytest.approx(1.66 * 96 + 5.3, abs=1)
