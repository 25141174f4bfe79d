"""Making nano's autoencoder in miniature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nano_miniature import call, quick_eigh
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_cli.training.table import ClipTable
from sora_plugins.nano import autoencoder as network
from sora_plugins.nano.autoencoder import NanoAutoencoder
from sora_plugins.nano.making import autoencoder
from sora_plugins.nano.scene_clips import TABLE, RenderJob, run
from sora_plugins.nano.scenes.catalogue import SCENES


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips/ and autoencoder.safetensors."""
    root = tmp_path_factory.mktemp("making")
    run(RenderJob(root / "clips", 4, 4, tuple(SCENES), 17, 96, 96, 24.0, captions=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "eigh", quick_eigh(torch.linalg.eigh))
        model = autoencoder.fit(autoencoder.open_clips(root / "clips" / TABLE), 1)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, root / "autoencoder.safetensors")
    return root


@pytest.fixture
def table(made: Path) -> ClipTable:
    return autoencoder.open_clips(made / "clips" / TABLE)


@pytest.fixture
def model(made: Path) -> NanoAutoencoder:
    model = NanoAutoencoder()
    model.load_state_dict(load_file(made / "autoencoder.safetensors"))
    return model


def test_frames_of_a_clip(table: ClipTable) -> None:
    pixels = autoencoder.read_pixels(table, 1, [0, 3, 4])
    assert pixels.shape == (1, 3, 3, 96, 96)
    assert -1 <= float(pixels.min()) < float(pixels.max()) <= 1
    assert torch.equal(pixels[:, :, 1:], autoencoder.read_pixels(table, 1, range(3, 5)))


def test_the_fitted_basis_codes_blocks_better_than_any_other_seen(table: ClipTable, model: NanoAutoencoder) -> None:
    torch.testing.assert_close(model.basis @ model.basis.T, torch.eye(32), rtol=0, atol=1e-4)
    assert (model.scale[:-1] >= model.scale[1:] * 0.999).all(), "channels go from coarse to fine"
    largest = model.basis.gather(1, model.basis.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    pixels = autoencoder.read_pixels(table, 0, range(17))

    def error() -> float:
        decoded = model.linear_decode(model.encode(pixels).transpose(1, 2))[:, 3:].transpose(1, 2)
        return float((decoded - pixels).square().mean())

    fitted = error()
    model.basis.copy_(torch.linalg.qr(torch.randn(3072, 32, generator=torch.Generator().manual_seed(2)))[0].T)
    assert fitted < 0.2 * error()


def test_fit_solves_the_eigenproblem(monkeypatch: pytest.MonkeyPatch, table: ClipTable) -> None:
    """With the real solver, on 4 x 4 x 4 blocks: the explained variance is the sum of the largest eigenvalues."""
    for module in (network, autoencoder):
        monkeypatch.setattr(module, "BLOCK", 4)
    model = autoencoder.fit(table, seed=1)
    blocks = autoencoder.sample_blocks(table, torch.Generator().manual_seed(1))
    assert len(blocks) == 4 * 120
    centred = blocks - blocks.mean(dim=0)
    explained = (centred @ model.basis.T).square().sum()
    singular = torch.linalg.svdvals(centred)
    assert explained == pytest.approx(float(singular[:32].square().sum()), rel=1e-4)


def test_the_decoder_learns(
    made: Path, table: ClipTable, model: NanoAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "CROP", 32)
    monkeypatch.setattr(autoencoder, "FRAMES", 5)
    basis = model.basis.clone()
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(9)
    pixels, rows = autoencoder.pieces(table, generator, 1)
    assert len(rows) == 1
    pixels, z = autoencoder.crop(pixels, model.encode(pixels), generator)
    z = z.transpose(1, 2)

    def loss() -> float:
        with torch.no_grad():
            return float(autoencoder.decoder_loss(model.decode_piece(z, {})[:, 3:].transpose(1, 2), pixels))

    before = loss()
    autoencoder.train(model, table, made / "trained.safetensors", steps=8, seed=1, rate=1e-3)
    assert torch.equal(model.basis, basis), "the encoder stays as it was fitted"
    assert loss() < before


def test_errors_of_the_diffusion_model_follow_the_camera_of_the_table(
    table: ClipTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is that of the clip's camera, whether the caption names it or not."""
    errors = autoencoder.DiffusionErrors.__new__(autoencoder.DiffusionErrors)
    read: list[str] = []
    told: list[str] = []

    class Encoder:
        def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
            read.extend(texts)
            return torch.zeros(len(texts), 1, 4, 8), torch.ones(len(texts), 4)

    def noise_for(noise: Tensor, text: str, *, fps: float, seed: int) -> Tensor:
        told.append(text)
        return noise

    monkeypatch.setattr(autoencoder, "noise_for", noise_for)
    errors.encoder = Encoder()  # type: ignore[assignment]
    errors.network = lambda x, *inputs, **conditioning: torch.zeros_like(x)  # type: ignore[assignment]
    z = torch.zeros(2, 32, 5, 4, 4)
    clips = table.rows(np.array([0, 3]))
    noisy = errors(z, clips, torch.Generator().manual_seed(1))
    assert noisy.shape == z.shape
    assert not torch.equal(noisy[0], noisy[1])
    for text, caption, clip in zip(told, read, clips, strict=True):
        assert caption in clip.texts
        camera = str(clip.scores.camera).replace("_", " ")
        assert text == f"measured motion score: {clip.scores.motion:.2f}. camera motion: {camera}. {caption}"


def test_the_commands(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, weights = made / "clips" / TABLE, made / "autoencoder.safetensors"
    call(autoencoder.main, "eval", clips, weights)
    assert "decoder: PSNR mean" in capsys.readouterr().out
    call(autoencoder.main, "export", weights, "-o", made / "shipped.safetensors")
    dtypes = {name: tensor.dtype for name, tensor in load_file(made / "shipped.safetensors").items()}
    assert dtypes["decoder.output.weight"] == torch.bfloat16
    assert dtypes["basis"] == torch.float32
