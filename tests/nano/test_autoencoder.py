"""The autoencoder: bookkeeping of frames, pieces against the whole, padding, the linear inverse, and its quality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sora_cli.weights.locate import locate_weights
from sora_plugins.nano import autoencoder
from sora_plugins.nano.autoencoder import BLOCK, STRIDE, NanoAutoencoder, latent_frames, load
from sora_plugins.nano.scenes.catalogue import SCENES, clip_params
from sora_plugins.nano.scenes.renderer import render

WEIGHTS = Path(autoencoder.__file__).parent / "weights"
#: PSNR in dB of nine frames of 96 x 160; measured 25.3 on average and 19.0 for the worst kind of scene.
MEAN_FLOOR, WORST_FLOOR = 24.0, 18.0


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> NanoAutoencoder:
    """An orthonormal basis and a decoder whose every part does something (they start at zero)."""
    torch.manual_seed(3)
    made = NanoAutoencoder()
    made.basis.copy_(torch.linalg.qr(torch.randn(made.basis.shape[1], made.basis.shape[0]))[0].T)
    made.mean.uniform_(-0.2, 0.2)
    made.scale.uniform_(0.5, 2.0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def pixels(frames: int, height: int, width: int, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("frames", range(1, 13))
def test_one_latent_for_the_first_frame_then_one_for_every_four(model: NanoAutoencoder, frames: int) -> None:
    wanted = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 3, 7: 3, 8: 3, 9: 3, 10: 4, 11: 4, 12: 4}[frames]
    assert latent_frames(frames) == wanted
    z = model.encode(pixels(frames, 32, 48))
    assert z.shape == (1, 32, wanted, 2, 3)
    assert z.dtype == torch.float32
    decoded = torch.cat(list(model.decode(z, frames)), dim=2)
    assert decoded.shape == (1, 3, frames, 32, 48)


def test_the_plugin_counts_latent_frames_the_same() -> None:
    from sora_plugins.nano import sora_vaes

    (spec,) = sora_vaes()
    assert [spec.latent_frames(count) for count in range(1, 60)] == [latent_frames(count) for count in range(1, 60)]
    assert (spec.spatial_stride, spec.temporal_stride, spec.latent_channels) == (BLOCK, STRIDE, autoencoder.CHANNELS)
    assert (spec.latent_side(144), spec.latent_side(145)) == (9, 10)


def test_more_frames_than_the_latents_hold_are_refused(model: NanoAutoencoder) -> None:
    with pytest.raises(ValueError, match="2 latent frames hold 5 frames, not 6"):
        next(model.decode(torch.zeros(1, 32, 2, 1, 1), 6))


@pytest.mark.parametrize("latents_per_piece", [1, 2, 3, 4])
@pytest.mark.parametrize("frames", [1, 2, 14, 17])
def test_pieces_equal_the_whole(
    model: NanoAutoencoder, monkeypatch: pytest.MonkeyPatch, latents_per_piece: int, frames: int
) -> None:
    z = torch.randn(2, 32, latent_frames(frames), 2, 3, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(autoencoder, "PIXELS_PER_PIECE", 10**9)
    (whole,) = model.decode(z, frames)
    monkeypatch.setattr(autoencoder, "PIXELS_PER_PIECE", latents_per_piece * 2 * STRIDE * 2 * 3 * BLOCK * BLOCK)
    pieces = list(model.decode(z, frames))
    assert len(pieces) == -(-z.shape[2] // latents_per_piece)
    # Not bit for bit: convolutions of another batch size may add in another order. 1e-5 is a 800th of one grey level.
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole, rtol=0, atol=1e-5)


def test_time_is_causal_and_history_matters(model: NanoAutoencoder) -> None:
    z = torch.randn(1, 32, 4, 2, 2, generator=torch.Generator().manual_seed(5))
    changed = z.clone()
    changed[:, :, 2] += 1
    before, after = (next(model.decode(latents, 13)) for latents in (z, changed))
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    # The last latent is the same, but its pictures show what came before.
    assert (before[:, :, 9:] - after[:, :, 9:]).abs().max() > 1e-3


def test_edges_are_repeated_to_whole_blocks(model: NanoAutoencoder) -> None:
    clip = pixels(4, 33, 50)
    z = model.encode(clip)
    assert z.shape == (1, 32, 2, 3, 4)
    padded = torch.cat([clip, clip[..., -1:, :].expand(-1, -1, -1, 15, -1)], dim=3)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, -1, 14)], dim=4)
    padded = torch.cat([padded, padded[:, :, -1:]], dim=2)
    assert torch.equal(z, model.encode(padded))


def test_a_still_is_a_block_of_four_equal_frames(model: NanoAutoencoder) -> None:
    clip = pixels(5, 32, 32)
    assert torch.equal(model.encode(clip)[:, :, :1], model.encode(clip[:, :, :1]))


def test_linear_decode_undoes_encode_on_what_the_latents_can_say(model: NanoAutoencoder) -> None:
    z = torch.randn(1, 32, 3, 2, 2, generator=torch.Generator().manual_seed(6))
    shown = model.linear_decode(z.transpose(1, 2)).transpose(1, 2)  # (1, 3, 12, 32, 32)
    # The encoder puts the first frame in front three times; whole groups follow.
    again = model.encode(torch.cat([shown[:, :, :1], shown], dim=2))[:, :, 1:]
    torch.testing.assert_close(again, z, rtol=0, atol=2e-5)  # float32 sums of 3072 products
    # And what is lost of other pictures is orthogonal to the basis.
    clip = pixels(9, 32, 32)
    lost = clip[:, :, 1:] - model.linear_decode(model.encode(clip).transpose(1, 2)).transpose(1, 2)[:, :, STRIDE:]
    assert lost.abs().mean() > 0.1
    assert (model.to_blocks(lost) @ model.basis.T).abs().max() < 2e-4


def test_decode_is_the_linear_inverse_plus_the_correction(model: NanoAutoencoder) -> None:
    z = torch.randn(1, 2, 32, 2, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        correction = model.decode_piece(z, {}) - model.linear_decode(z)
    assert correction.abs().mean() > 1e-3
    untrained = NanoAutoencoder()
    with torch.no_grad():
        assert not untrained.decoder(z, {}).any(), "training starts from the linear inverse"


@pytest.mark.skipif(
    not (WEIGHTS / "autoencoder.safetensors").is_file(), reason="weights/autoencoder.safetensors is not there"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quality_of_the_shipped_weights(dtype: torch.dtype) -> None:
    trained = load(locate_weights(None, what="nano", override=str(WEIGHTS)), torch.device("cpu"), dtype)
    assert trained.basis.dtype == torch.float32
    assert trained.decoder.input.weight.dtype == dtype
    values = {}
    for index, scene in enumerate(SCENES):
        clip = render(clip_params(99, index), 9, 96, 160).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        decoded = torch.cat(list(trained.decode(trained.encode(clip), 9)), dim=2)
        assert decoded.dtype == torch.float32
        values[scene] = float(10 * torch.log10(4 / (decoded.clamp(-1, 1) - clip).square().mean()))
    assert sum(values.values()) / len(values) > MEAN_FLOOR, values
    assert min(values.values()) > WORST_FLOOR, values
