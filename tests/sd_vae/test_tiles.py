"""Tiles cover every size and fade into each other without seams."""

from __future__ import annotations

import itertools

import pytest
import torch

from sora_plugins.sd_vae import tiles
from sora_plugins.sd_vae.config import SpatialConfig
from sora_plugins.sd_vae.model import SpatialAutoencoder

SIZES = [1, 5, 11, 12, 13, 20, 21, 22, 23, 29, 37, 64, 100]


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("overlap", [0, 1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_weights_sum_to_one(size, overlap, scale):
    tile = 12
    spans = tiles.spans(size, tile, overlap, scale)
    total = torch.zeros(size * scale)
    for span in spans:
        assert span.stop - span.start == min(tile, size)
        assert span.first >= scale * span.start
        assert span.first + len(span.weights) <= scale * span.stop
        assert float(span.weights.min()) > 0
        total[span.first : span.first + len(span.weights)] += span.weights
    torch.testing.assert_close(total, torch.ones_like(total))
    assert len(spans) == max(1, -(-(size - overlap) // (tile - overlap)))
    for one, other in itertools.pairwise(spans):
        assert one.stop - other.start >= overlap


@pytest.mark.parametrize(("height", "width"), [(5, 40), (23, 17), (31, 31)])
def test_what_does_not_depend_on_tiles_stays(height, width):
    z = torch.randn(2, 3, height, width)

    def doubled(part):
        return part.repeat_interleave(2, 2).repeat_interleave(2, 3)

    decoded = tiles.decode(doubled, z, tile=12, overlap=4, stride=2)
    torch.testing.assert_close(decoded, doubled(z))

    def halved(part):
        return torch.nn.functional.avg_pool2d(part, 2)

    x = torch.randn(2, 3, 2 * height + 1, 2 * width + 1)
    torch.testing.assert_close(tiles.encode(halved, x, tile=12, overlap=4, stride=2), halved(x))


def test_differences_of_tiles_fade():
    """Each tile is another constant; neighbouring positions may differ by one step of the ramp only."""
    values = iter(range(100))

    def run(part):
        return torch.full_like(part, float(next(values)))

    out = tiles.decode(run, torch.zeros(1, 1, 8, 30), tile=12, overlap=4, stride=1)[0, 0]
    steps = out.diff(dim=1)
    assert float(steps.max()) == pytest.approx(1 / 4)
    assert float(steps.min()) >= 0
    assert float(out[:, 0].max()) == 0
    assert float(out[:, -1].min()) == 3


@pytest.fixture
def small() -> SpatialAutoencoder:
    torch.manual_seed(0)
    config = SpatialConfig(block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4)
    return SpatialAutoencoder(config).eval()


def test_one_tile_is_plain(small):
    pixels, latents = torch.randn(2, 3, 43, 30), torch.randn(2, 4, 11, 7)
    with torch.inference_mode():
        plain = small.moments(pixels), small.decode(latents)
        small.set_memory_mode("tiled", tile=48, overlap=16)
        assert torch.equal(small.moments(pixels), plain[0])
        assert torch.equal(small.decode(latents), plain[1])


def test_several_tiles_are_not(small):
    pixels, latents = torch.randn(1, 3, 90, 75), torch.randn(1, 4, 22, 18)
    with torch.inference_mode():
        plain = small.moments(pixels), small.decode(latents)
        small.set_memory_mode("tiled", tile=48, overlap=16)
        tiled = small.moments(pixels), small.decode(latents)
    for one, other in zip(tiled, plain, strict=True):
        assert one.shape == other.shape
        assert not torch.allclose(one, other, atol=1e-3)


def test_a_smooth_picture_stays_smooth():
    """An even slope whose tiles each lose their mean, as norms do: hard borders step, blended ones do not."""
    slope = torch.arange(60.0).expand(1, 1, 9, 60)

    def largest_step(overlap: int) -> float:
        out = tiles.decode(lambda part: part - part.mean(), slope, tile=20, overlap=overlap, stride=1)
        return float(out.diff(dim=3).abs().max())

    assert largest_step(0) == pytest.approx(19), "20 less for each tile, and the slope"
    assert largest_step(5) < 2 * 20 / 5, "that much spread over five positions, and the slope"
