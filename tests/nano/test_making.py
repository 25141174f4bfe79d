"""Making nano in miniature: clips, autoencoder, latents, training, and a training that was interrupted."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_plugins.nano import autoencoder as network
from sora_plugins.nano.autoencoder import NanoAutoencoder
from sora_plugins.nano.making import autoencoder, clips, latents, train
from sora_plugins.nano.scenes.catalogue import SCENES
from sora_plugins.nano.text import TABLE_FILE, VOCABULARY_FILE, WordTableEncoder

NUM_CLIPS = 5
SMALL_MODEL = {
    **train.MODEL_CONFIG,
    "hidden_size": 32,
    "depth": 1,
    "num_heads": 2,
    "caption_channels": 8,
}


def leading_eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for torch.linalg.eigh where only the largest matter: a full one of this size takes most of a minute."""
    basis = torch.linalg.qr(torch.randn(len(matrix), 48, generator=torch.Generator().manual_seed(1)))[0]
    for _ in range(6):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, small = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values, basis @ small


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for module, values in {
            clips: {"FRAMES": 17, "HEIGHT": 96, "WIDTH": 96},
            autoencoder: {"HELD_OUT": 1},
            latents: {"STILLS": (0, 8)},
            train: {
                "HELD_OUT": 1,
                "MODEL_CONFIG": SMALL_MODEL,
                "KINDS": {
                    "still": train.Kind(1, 2, 0.3),
                    "piece": train.Kind(2, 2, 0.6),
                    "clip": train.Kind(5, 1, 0.9),
                },
            },
        }.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        patch.setattr(torch.linalg, "eigh", _eigh(torch.linalg.eigh))
        yield patch


def _eigh(full: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda matrix: leading_eigenvectors(matrix) if len(matrix) > 1000 else full(matrix)


def run(patch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: str | Path) -> None:
    patch.setattr(sys, "argv", ["making", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Path:
    """A folder with clips/, autoencoder.safetensors, latents/ and text/, made by the commands of the README."""
    root = tmp_path_factory.mktemp("making")
    run(patched, clips.main, "-o", root / "clips", "--count", str(NUM_CLIPS), "--seed", "4")
    run(patched, autoencoder.main, "fit", root / "clips", "-o", root / "autoencoder.safetensors")
    run(patched, latents.main, root / "clips", root / "autoencoder.safetensors", "-o", root / "latents")
    folder = root / "text"
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "waterfall", "water", "the", "in", "score", "##s"]
    (folder / VOCABULARY_FILE).write_text("\n".join(pieces) + "\n")
    rows = torch.randint(-127, 128, (len(pieces), 8), dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    save_file({"rows": rows, "scales": torch.full((len(pieces),), 0.01)}, folder / TABLE_FILE)
    return root


def test_clips_and_their_parameters(made: Path) -> None:
    files = sorted((made / "clips").glob("clip_*.npy"))
    assert len(files) == NUM_CLIPS
    for path, scene in zip(files, SCENES, strict=False):
        clip = np.load(path)
        assert clip.shape == (17, 96, 96, 3)
        assert clip.dtype == np.uint8
        params = clips.read_params(path.with_suffix(".json"))
        assert params == clips.clip_params(4, files.index(path))
        assert params.scene == scene


def test_finished_clips_are_not_made_again(made: Path, patched: pytest.MonkeyPatch) -> None:
    first = made / "clips" / "clip_00000.npy"
    time = first.stat().st_mtime_ns
    run(patched, clips.main, "-o", made / "clips", "--count", str(NUM_CLIPS), "--seed", "4")
    assert first.stat().st_mtime_ns == time


def test_the_fitted_basis_codes_blocks_better_than_any_other_seen(made: Path) -> None:
    model = NanoAutoencoder()
    model.load_state_dict(load_file(made / "autoencoder.safetensors"))
    torch.testing.assert_close(model.basis @ model.basis.T, torch.eye(32), rtol=0, atol=1e-4)
    assert (model.scale[:-1] >= model.scale[1:] * 0.999).all(), "channels go from coarse to fine"
    largest = model.basis.gather(1, model.basis.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    pixels = autoencoder.to_pixels(np.load(made / "clips" / "clip_00000.npy"))

    def error() -> float:
        decoded = model.linear_decode(model.encode(pixels).transpose(1, 2))[:, 3:].transpose(1, 2)
        return float((decoded - pixels).square().mean())

    fitted = error()
    model.basis.copy_(torch.linalg.qr(torch.randn(3072, 32, generator=torch.Generator().manual_seed(2)))[0].T)
    assert fitted < 0.2 * error()


def test_fit_solves_the_eigenproblem(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    """With the real solver, on 4 x 4 x 4 blocks: the explained variance is the sum of the largest eigenvalues."""
    for module in (network, autoencoder):
        monkeypatch.setattr(module, "BLOCK", 4)
    files, _ = autoencoder.clip_files(made / "clips")
    model = autoencoder.fit(files, seed=1)
    blocks = autoencoder.sample_blocks(files, torch.Generator().manual_seed(1))
    centred = blocks - blocks.mean(dim=0)
    explained = (centred @ model.basis.T).square().sum()
    singular = torch.linalg.svdvals(centred)
    assert explained == pytest.approx(float(singular[:32].square().sum()), rel=1e-4)


def test_the_decoder_learns(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "CROP", 32)
    monkeypatch.setattr(autoencoder, "FRAMES", 5)
    model = NanoAutoencoder()
    model.load_state_dict(load_file(made / "autoencoder.safetensors"))
    files, _ = autoencoder.clip_files(made / "clips")
    basis = model.basis.clone()
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(9)
    pixels, _ = autoencoder.pieces(files, generator, 1)
    pixels, z = autoencoder.crop(pixels, model.encode(pixels), generator)
    z = z.transpose(1, 2)

    def loss() -> float:
        with torch.no_grad():
            return float(autoencoder.decoder_loss(model.decode_piece(z, {})[:, 3:].transpose(1, 2), pixels))

    before = loss()
    autoencoder.train(model, files, made / "trained.safetensors", steps=8, seed=1, rate=1e-3)
    assert torch.equal(model.basis, basis), "the encoder stays as it was fitted"
    assert loss() < before


def test_latents_hold_the_clip_and_its_mirror_image(made: Path) -> None:
    files = sorted((made / "latents").glob("*.safetensors"))
    assert len(files) == NUM_CLIPS
    model = NanoAutoencoder()
    model.load_state_dict(load_file(made / "autoencoder.safetensors"))
    tensors = load_file(files[1])
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        "clip": ((2, 5, 32, 6, 6), torch.float16),
        "stills": ((2, 2, 32, 6, 6), torch.float16),
    }
    clip = np.load(made / "clips" / "clip_00001.npy")
    for side, pictures in enumerate((clip, clip[:, :, ::-1].copy())):
        pixels = autoencoder.to_pixels(pictures)
        wanted = model.encode(pixels).transpose(1, 2)[0]
        torch.testing.assert_close(tensors["clip"][side].float(), wanted, rtol=2e-3, atol=2e-3)  # float16
        still = model.encode(pixels[:, :, 8:9]).transpose(1, 2)[0, 0]
        torch.testing.assert_close(tensors["stills"][side, 1].float(), still, rtol=2e-3, atol=2e-3)


# -- training ------------------------------------------------------------------------------------------------------

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon (torch 2.9)")


def _latent_set(made: Path) -> train.LatentSet:
    return train.LatentSet(sorted((made / "latents").glob("*.safetensors")))


def test_batches_depend_on_the_generator_only(made: Path) -> None:
    data = _latent_set(made)
    kind = train.KINDS["piece"]
    (first, captions, shown), (again, same, _) = (data.draw(kind, random.Random(3)) for _ in range(2))
    assert first.shape == (2, 32, 2, 6, 6)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert captions == same
    assert len(shown) == 2


@needs_muon
def test_a_resumed_training_equals_one_that_was_not_interrupted(made: Path, tmp_path: Path) -> None:
    data, encoder = _latent_set(made), WordTableEncoder.load(made / "text")
    runs = {name: tmp_path / name for name in ("whole", "resumed")}
    for folder in runs.values():
        folder.mkdir()
    whole = train.Trainer(runs["whole"], steps=4, seed=7)
    start = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    losses = [whole.update(data, encoder) for _ in range(4)]

    first = train.Trainer(runs["resumed"], steps=4, seed=7)
    resumed_losses = [first.update(data, encoder) for _ in range(2)]
    first.save()
    torch.manual_seed(99)  # whatever the process did in between
    second = train.Trainer(runs["resumed"], steps=4, seed=7)
    assert second.step == 2
    resumed_losses += [second.update(data, encoder) for _ in range(2)]

    assert resumed_losses == losses
    for ours, theirs in ((second.model, whole.model), (second.average, whole.average)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    changed = [name for name, tensor in whole.model.state_dict().items() if not torch.equal(tensor, start[name])]
    assert len(changed) > len(start) / 2


@needs_muon
def test_the_training_command_writes_weights_that_load(
    made: Path, patched: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(patched, train.main, made / "latents", made / "text", "-o", tmp_path / "run", "--steps", "2", "--seed", "7")
    assert "held out" in capsys.readouterr().out
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    train.build(SMALL_MODEL).load_state_dict(weights)
    assert train.Trainer(tmp_path / "run", steps=2, seed=7).step == 2
    more = ("--start", tmp_path / "run" / "model.safetensors", "--rate", "0.6")
    run(patched, train.main, made / "latents", made / "text", "-o", tmp_path / "more", "--steps", "1", *more)
    later = load_file(tmp_path / "more" / "model.safetensors")
    changes = [float((later[name].float() - weights[name].float()).abs().max()) for name in weights]
    assert 0 < max(changes) < 0.1, "it goes on from there"
    assert not list((tmp_path / "run").glob("*.part"))


@needs_muon
def test_two_processes_make_the_gradients_of_one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The halves of a batch that two processes take have the whole batch's gradient as their mean."""
    data, encoder = _latent_set(made), WordTableEncoder.load(made / "text")
    seen: list[Tensor] = []

    def record(model: torch.nn.Module, loss: Tensor) -> float:
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        seen.append(torch.cat([loss.detach().view(1), *gradients]))
        return float(loss.detach())

    monkeypatch.setattr(train, "average_over_processes", record)
    monkeypatch.setattr(train, "kind_weights", lambda progress: {"piece": 1.0})
    for rank, count in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(train, "processes", lambda rank=rank, count=count: (rank, count))
        train.Trainer(tmp_path, steps=4, seed=7).update(data, encoder)
    whole, *halves = seen
    mean = sum(halves) / 2
    # bfloat16 products of other shapes round differently
    assert float((mean - whole).norm() / whole.norm()) < 0.02
    assert float((halves[0] - whole).norm() / whole.norm()) > 0.1


def test_processes_share_the_mean_gradient_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    other = torch.tensor([5.0, 3.0, 2.0, 1.0])  # the other process's loss, weight and bias gradients
    monkeypatch.setattr(train, "processes", lambda: (0, 2))
    monkeypatch.setattr(train.dist, "all_reduce", lambda flat: flat.add_(other))
    assert train.average_over_processes(model, torch.tensor(1.0)) == 3.0
    assert model.weight.grad.tolist() == [[2.0, 2.0]]
    assert model.bias.grad.tolist() == [2.0]
