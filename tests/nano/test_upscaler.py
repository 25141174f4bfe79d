"""The network that enlarges nano's clips, and the choice of what enlarges them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sora_cli.config.resolve import resolve_generate
from sora_cli.plugin.manager import get_plugins
from sora_cli.tasks import plan
from sora_cli.tasks.records import picture_record
from sora_cli.video.shapes import Size
from sora_cli.weights.locate import LocatedWeights, locate_weights
from sora_plugins.nano import sora_upscalers
from sora_plugins.nano.making.upscaler import psnr, sharpness
from sora_plugins.nano.scenes.catalogue import clip_params
from sora_plugins.nano.scenes.renderer import render
from sora_plugins.nano.upscaler import FACTOR, NanoUpscaler, UpscalerNetwork, load, load_bicubic

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def network() -> UpscalerNetwork:
    """Weights that make all layers matter."""
    torch.manual_seed(0)
    made = UpscalerNetwork()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


def frames(height: int, width: int, count: int = 2) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), np.uint8)


def located() -> LocatedWeights:
    [weights] = [spec.weights for spec in sora_upscalers() if spec.name == "nano"]
    found = locate_weights(weights, what="nano")
    assert found is not None
    return found


@torch.no_grad()
def test_a_part_is_enlarged_as_in_the_whole(network: UpscalerNetwork) -> None:
    whole = pictures(64, 96)
    # 9 convolutions at half the size and 3 at the whole, and the bicubic window, see no further than 24 pixels.
    margin, top, left = 24, 0, 32
    part = network(whole[..., top:48, left:])
    wanted = network(whole)[..., FACTOR * top : FACTOR * 48, FACTOR * left :]
    inner = (..., slice(0, FACTOR * (48 - margin)), slice(FACTOR * margin, None))
    torch.testing.assert_close(part[inner], wanted[inner], atol=1e-5, rtol=0)
    assert not torch.allclose(part, wanted, atol=1e-3), "the border of a part is seen"


@torch.no_grad()
def test_sides_may_be_odd_and_the_output_is_four_times_as_large(network: UpscalerNetwork) -> None:
    made = network(pictures(33, 47, 2))
    assert made.shape == (2, 3, 132, 188)
    assert made.dtype == torch.float32


@torch.no_grad()
def test_it_starts_as_bicubic_enlargement() -> None:
    given = pictures(24, 32)
    wanted = torch.nn.functional.interpolate(given, scale_factor=FACTOR, mode="bicubic")
    assert torch.equal(UpscalerNetwork()(given), wanted)


@pytest.mark.parametrize("size", [(240, 426), (720, 1280), (97, 101)])
def test_frames_get_the_size_that_is_asked_for(size: tuple[int, int], network: UpscalerNetwork) -> None:
    upscaler = NanoUpscaler(network)
    given = frames(36, 64)
    made = upscaler(given, Size(*size))
    assert (made.shape, made.dtype) == ((2, *size, 3), np.uint8)
    assert np.array_equal(made, upscaler(given, Size(*size))), "the same again"
    assert np.array_equal(made[1:], upscaler(given[1:], Size(*size))), "each frame by itself"


def test_bicubic_is_what_pillow_makes() -> None:
    given = frames(18, 32)
    made = load_bicubic(None, CPU, torch.float32)(given, Size(40, 80))
    wanted = [np.asarray(Image.fromarray(one).resize((80, 40), Image.Resampling.BICUBIC)) for one in given]
    assert np.array_equal(made, np.stack(wanted))


def test_number_formats_agree_to_rounding() -> None:
    given = render(clip_params(202, 3), 1, 72, 128, first=8).numpy()
    exact, rounded = (load(located(), CPU, dtype)(given, Size(288, 512)) for dtype in (torch.float32, torch.bfloat16))
    assert np.abs(exact.astype(int) - rounded).mean() < 1


@pytest.mark.parametrize("index", [0, 6, 10, 11], ids=["waterfall", "aurora", "city", "flowers"])
def test_the_shipped_weights_sharpen_what_the_autoencoder_smears(index: int) -> None:
    from sora_plugins.nano.autoencoder import NanoAutoencoder
    from sora_plugins.nano.autoencoder import load as load_autoencoder

    params = clip_params(202, index)
    small = render(params, 5, 144, 256, first=20).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    wanted = render(params, 1, 576, 1024, first=23)[0].permute(2, 0, 1)[None].float() / 127.5 - 1
    spec = get_plugins().get("vae", "nano")
    autoencoder = load_autoencoder(locate_weights(spec.weights, what="nano"), CPU, torch.float32)  # type: ignore
    assert isinstance(autoencoder, NanoAutoencoder)
    decoded = torch.cat(list(autoencoder.decode(autoencoder.encode(small), 5)), dim=2)[0, :, 3]
    given = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)[None].numpy()
    results = {}
    for name, upscaler in (
        ("bicubic", load_bicubic(None, CPU, torch.float32)),
        ("nano", load(located(), CPU, torch.float32)),
    ):
        made = torch.from_numpy(upscaler(given, Size(576, 1024))[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
        results[name] = (psnr(made, wanted), sharpness(made, wanted))
    assert results["nano"][0] > results["bicubic"][0] + 0.3
    assert 1.15 * results["bicubic"][1] < results["nano"][1] < 1


# -- the choice --------------------------------------------------------------------------------------------------


def planned(size: str = "288x512", **output: str) -> plan.GeneratePlan:
    flags = {
        "prompt": {"prompts": ("a waterfall",)},
        "model": {"name": "nano"},
        "shape": {"size": size, "frames": 5},
        "output": output,
    }
    return plan.plan_generate(resolve_generate(flags, plugins=get_plugins()), get_plugins())


def test_a_clip_that_is_enlarged_says_by_what() -> None:
    made = planned()
    [clip] = made.clips
    assert made.weights.upscaler is not None
    assert clip.settings["upscaler"] == {"name": "nano", "weights": made.weights.upscaler.fingerprint}
    [named] = planned(upscaler="nano").clips
    assert named.settings_hash == clip.settings_hash
    assert named.settings["config"]["output"]["upscaler"] == "nano"


def test_bicubic_clips_are_recognised_as_from_before_there_was_a_choice() -> None:
    made = planned(upscaler="bicubic")
    assert "upscaler" not in made.clips[0].settings
    assert made.weights.upscaler is None
    assert made.clips[0].settings_hash != planned().clips[0].settings_hash


def test_a_clip_that_is_not_enlarged_has_no_word_of_it() -> None:
    small, other = planned("144x256"), planned("144x256", upscaler="bicubic")
    assert "upscaler" not in small.clips[0].settings
    assert "upscaler" not in small.clips[0].settings["config"]["output"]
    assert small.weights.upscaler is None
    assert small.clips[0].settings_hash == other.clips[0].settings_hash
    told = "--upscaler has no effect: the clip is no larger than what the model makes"
    assert told in other.notes
    assert told not in small.notes
    without = dataclasses.replace(small, components=dataclasses.replace(small.components, upscaler=None))
    assert picture_record(small) == picture_record(without)


def test_other_weights_are_another_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned()
    (tmp_path / "upscaler.safetensors").write_bytes(b"others")

    def elsewhere(*_: object, **__: object) -> LocatedWeights:
        return LocatedWeights(tmp_path, (tmp_path / "upscaler.safetensors",), "0123456789abcdef")

    monkeypatch.setattr(plan, "locate_weights", elsewhere)
    assert planned().clips[0].settings_hash != before.clips[0].settings_hash


@pytest.mark.parametrize("command", ["generate", "i2v", "extend"])
def test_unknown_names_are_refused_with_the_nearest(sora, command: str) -> None:
    Image.new("RGB", (64, 36)).save("one.png")
    given = {"generate": ("clouds",), "i2v": ("one.png", "clouds"), "extend": ("one.png", "clouds", "--size", "96x168")}
    done = sora(command, *given[command], "-m", "nano", "--upscaler", "bicubc", "--dry-run")
    assert done.code == 2
    assert "unknown upscaler 'bicubc'" in done.err
    assert "did you mean 'bicubic'?" in done.err
    assert "sora plugins list --kind upscaler" in done.err
