"""Distances of sets: known answers, other ways to compute them, the networks that are looked with and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_tiny import make_tiny_whole_clip

from sora_cli.errors import SoraError
from sora_cli.plugin.manager import get_plugins
from sora_cli.weights.locate import LocatedWeights, locate_weights
from sora_plugins.metrics import distributions, i3d
from sora_plugins.metrics.distributions import Features, Gaussian
from sora_plugins.metrics.i3d import I3D, pad_same, pool_same
from sora_plugins.metrics.inception import Inception, block_35
from sora_plugins.metrics.weights import read_i3d, read_inception

CPU = torch.device("cpu")


def located(path: Path) -> LocatedWeights:
    found = locate_weights(None, what="a measure", override=str(path))
    assert found is not None
    return found


def gaussian(count: int, mean: list[float], deviations: list[float], seed: int) -> torch.Tensor:
    """Features with exactly this mean, these deviations and no correlation."""
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = torch.linalg.qr(noise - noise.mean(dim=0)).Q * (count - 1) ** 0.5
    return plain * torch.tensor(deviations) + torch.tensor(mean)


def filled(made, features: torch.Tensor, piece: int | None = None):
    """A set with these features, given `piece` at a time."""
    for part in features.split(piece or max(1, len(features))):
        made.add(part)
    return made


def frechet_distance(reference: torch.Tensor, videos: torch.Tensor, piece: int | None = None) -> float:
    return distributions.frechet_distance(filled(Gaussian(), reference, piece), filled(Gaussian(), videos, piece))


def cmmd(reference: torch.Tensor, videos: torch.Tensor) -> float:
    return distributions.cmmd(filled(Features(), reference), filled(Features(), videos, 2))


def test_frechet_distance_of_known_gaussians() -> None:
    one, other = gaussian(50, [0, 0, 1], [1, 2, 3], 0), gaussian(80, [3, 4, 1], [2, 2, 1], 1)
    # |(3, 4, 0)|^2 + (1 - 2)^2 + (2 - 2)^2 + (3 - 1)^2
    assert frechet_distance(one, other) == pytest.approx(25 + 1 + 0 + 4, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(12, rel=1e-6)


@pytest.mark.parametrize(("count", "other_count"), [(60, 45), (60, 5), (4, 5)])
def test_frechet_distance_as_by_roots_of_matrices(count: int, other_count: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 8))
    one, other = rng.normal(size=(count, 8)) @ mixing, rng.normal(size=(other_count, 8)) * 2 + 1
    covariances = [np.cov(each, rowvar=False) for each in (one, other)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    # Of singular matrices, which are those of few features, the root has half of the digits.
    tolerance = 1e-9 if min(count, other_count) > 8 else 1e-4
    found = frechet_distance(torch.from_numpy(one).float(), torch.from_numpy(other).float())
    assert found == pytest.approx(expected, rel=max(tolerance, 1e-6))
    assert frechet_distance(torch.from_numpy(other), torch.from_numpy(one)) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("piece", [1, 3, 7, 16])
def test_features_that_come_in_pieces(piece: int) -> None:
    """Far from zero, where sums of squares would lose what is to be measured; 7 of 12 directions have no spread."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(90, 5, generator=generator, dtype=torch.float64) @ torch.randn(
        5, 12, generator=generator, dtype=torch.float64
    )
    one, other = flat + 1e4, torch.randn(70, 12, generator=generator, dtype=torch.float64) * 0.1 + 1e4
    gathered = filled(Gaussian(), one, piece)
    assert (len(gathered), gathered.root().shape[1]) == (90, 12)
    torch.testing.assert_close(gathered.mean(), one.mean(dim=0))
    torch.testing.assert_close(gathered.root().T @ gathered.root(), torch.cov(one.T), rtol=1e-9, atol=1e-9)
    assert frechet_distance(one, other, piece) == pytest.approx(frechet_distance(one, other), rel=1e-9)
    assert frechet_distance(one, one, piece) == pytest.approx(0, abs=1e-9)


def test_a_gaussian_does_not_grow() -> None:
    gathered = Gaussian()
    for seed in range(50):
        gathered.add(torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)))
        held = sum(each.numel() for each in vars(gathered)["_waiting"]) + gathered.root().numel()
        assert held <= (9 + 4) * 4
    assert len(gathered) == 450


def test_sets_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="the videos give 1 features, and a covariance needs two"):
        frechet_distance(torch.rand(5, 3), torch.rand(1, 3))
    with pytest.raises(ValueError, match="a set has no frames"):
        cmmd(torch.rand(5, 3), torch.rand(0, 3))


def test_cmmd_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.eye(4)[:1] * 7, torch.eye(4)[1:2]
    assert cmmd(one, other) == pytest.approx(1000 * (2 - 2 * np.exp(-2 / 200)))
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(count, 6, generator=generator, dtype=torch.float64) + 1 for count in (5, 7))
    unit = [each / each.norm(dim=1, keepdim=True) for each in (one, other)]

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.mean([np.exp(-float((x - y).square().sum()) / 200) for x in a for y in b]))

    expected = 1000 * (kernel(unit[0], unit[0]) + kernel(unit[1], unit[1]) - 2 * kernel(*unit))
    assert cmmd(one, other) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(distributions, "ROWS", 2)
    assert cmmd(one, other) == pytest.approx(expected, rel=1e-9)


def test_clip_as_what_is_looked_with(tmp_path: Path) -> None:
    make_tiny_whole_clip(tmp_path)
    for name, part in (("clip-fd", "clip"), ("cmmd", "clip336")):
        spec = get_plugins().get("metric", name)
        metric = get_plugins().load_target(spec)({part: located(tmp_path)}, CPU)
        video = torch.rand(1, 3, 5, 40, 64, generator=torch.Generator().manual_seed(0))
        features = metric.features(video)
        assert features.shape == (5, 768)
        torch.testing.assert_close(torch.cat([metric.features(video[:, :, i : i + 1]) for i in range(5)]), features)
        same, other = filled(metric.new_set(), features), filled(metric.new_set(), metric.features(1 - video))
        assert metric.distance(same, same) == pytest.approx(0, abs=1e-6)
        assert metric.distance(same, other) > 0


# -- Inception and I3D -------------------------------------------------------------------------------------------------


def random_state(build: Callable[[], torch.nn.Module]) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        network = build()
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(tensor.shape, generator=generator) * 0.1
        if "running_var" not in name
        else torch.ones(tensor.shape)
        for name, tensor in network.state_dict().items()
    }


def test_the_sizes_of_the_published_networks() -> None:
    with torch.device("meta"):
        inception, video = Inception(), I3D()
    # torchvision's has 27161264 with two classifiers of 1000 classes, which have 2049000 and 3326696.
    assert sum(each.numel() for each in inception.parameters()) == 27161264 - 2049000 - 3326696
    assert sum(each.numel() for each in video.parameters()) == 12697264
    shapes = {
        name: tuple(tensor.shape) for name, tensor in [*inception.state_dict().items(), *video.state_dict().items()]
    }
    assert shapes["Mixed_6b.branch7x7dbl_5.conv.weight"] == (192, 128, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["Mixed_5c.b2b.conv3d.weight"] == (128, 48, 3, 3, 3)
    assert shapes["logits.conv3d.bias"] == (400,)


def test_inception_in_its_file(tmp_path: Path) -> None:
    tensors = random_state(Inception)
    published = {**tensors, "fc.weight": torch.rand(1008, 4), "fc.bias": torch.rand(1008)}
    published["Conv2d_1a_3x3.bn.num_batches_tracked"] = torch.tensor(0)
    torch.save(published, tmp_path / "inception.pth")
    network = read_inception(located(tmp_path / "inception.pth"), CPU)
    frames = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = network(frames)
        assert features.shape == (2, 2048)
        torch.testing.assert_close(network(frames[1:]), features[1:])
    torch.save({**published, "fc.weight": torch.rand(1000, 4)}, tmp_path / "torchvision.pth")
    with pytest.raises(SoraError, match="another Inception"):
        read_inception(located(tmp_path / "torchvision.pth"), CPU)
    with pytest.raises(SoraError, match="not those of I3D"):
        read_i3d(located(tmp_path / "inception.pth"), CPU)


def test_means_leave_out_the_padding() -> None:
    """A frame of one value stays one of one value, to its edges."""
    block = block_35(192, 32)
    with torch.inference_mode():
        block.branch_pool.conv.weight.fill_(0.01)
        pooled = block(torch.ones(1, 192, 5, 5))[:, -32:]
    torch.testing.assert_close(pooled, pooled[:, :, 2:3, 2:3].expand_as(pooled))


def test_i3d_in_its_file(tmp_path: Path) -> None:
    torch.save(random_state(I3D), tmp_path / "i3d.pt")
    spec = get_plugins().get("metric", "fvd")
    metric = get_plugins().load_target(spec)({"i3d": located(tmp_path / "i3d.pt")}, CPU)
    video = torch.rand(1, 3, 32, 24, 40, generator=torch.Generator().manual_seed(0))
    features = metric.features(video)
    assert (features.shape, metric.piece_frames, metric.wanted) == ((2, 400), 16, 401)
    torch.testing.assert_close(metric.features(video[:, :, 16:]), features[1:])


def test_programs_are_no_weights(tmp_path: Path) -> None:
    """What is published as TorchScript holds code, which is not run."""
    with pytest.warns(DeprecationWarning, match="script"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "i3d_torchscript.pt"))
    with pytest.raises(SoraError, match=r"i3d_torchscript\.pt is a program"):
        read_i3d(located(tmp_path / "i3d_torchscript.pt"), CPU)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 7, 2), (16, 7, 2), (7, 3, 1), (113, 3, 2), (9, 2, 2)])
def test_windows_are_placed_as_in_tensorflow(size: int, kernel: int, stride: int) -> None:
    x = torch.arange(size, dtype=torch.float32)[None, None, :, None, None]
    padded = pad_same(x, (kernel, 1, 1), (stride, 1, 1))
    places = -(-size // stride)
    total = max((places - 1) * stride + kernel - size, 0)
    assert padded.shape[2] == size + total
    assert padded[0, 0, total // 2, 0, 0] == 0
    torch.testing.assert_close(padded[0, 0, total // 2 : total // 2 + size], x[0, 0])
    assert pool_same(x, (kernel, 1, 1), (stride, 1, 1)).shape[2] == places


def test_names_of_blocks_are_in_order() -> None:
    assert list(i3d.POOLS) == [name for name in i3d.BLOCKS if name.endswith("b") and name != "Mixed_3b"]
