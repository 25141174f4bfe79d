"""The measures of benchmarks/nano_quality on pictures whose answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sora_plugins.nano.scenes.catalogue import SCENES, SceneParams
from sora_plugins.nano.scenes.renderer import render

FOLDER = Path(__file__).parents[2] / "benchmarks" / "nano_quality"


def module(name: str):
    """A module of the benchmark, which is not a package that is installed."""
    path = FOLDER / f"{name}.py"
    if not path.is_file():
        pytest.skip("benchmarks/ is not part of an unpacked source distribution")
    spec = importlib.util.spec_from_file_location(f"nano_quality_{name}", path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def measures():
    return module("measures")


def texture(height=240, width=360):
    """A smooth random picture, larger than what the camera sees."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 255).numpy()


def seen(offset_y, offset_x, scale=1.0):
    """What a camera at this place sees, (96, 160, 3)."""
    picture = torch.from_numpy(texture())[None]
    y, x = torch.meshgrid(torch.linspace(-48, 48, 96), torch.linspace(-80, 80, 160), indexing="ij")
    grid = torch.stack([(x * scale + offset_x) / 180, (y * scale + offset_y) / 120], dim=-1)[None].float()
    found = torch.nn.functional.grid_sample(picture.float(), grid, align_corners=False)[0]
    return found.permute(1, 2, 0).clamp(0, 255).byte().numpy()


CAMERAS = {
    "pan left": lambda t: seen(0, -t),
    "pan right": lambda t: seen(0, t),
    "tilt up": lambda t: seen(-t, 0),
    "tilt down": lambda t: seen(t, 0),
    "zoom in": lambda t: seen(0, 0, 1 - 0.012 * t),
    "zoom out": lambda t: seen(0, 0, 0.7 + 0.012 * t),
}


OPPOSITES = dict(zip(CAMERAS, ("pan right", "pan left", "tilt down", "tilt up", "zoom out", "zoom in"), strict=True))


@pytest.mark.parametrize("camera", CAMERAS)
def test_camera(measures, camera):
    clip = np.stack([CAMERAS[camera](t) for t in range(21)])
    found = [other for other in CAMERAS if measures.follows_camera(clip, other)]
    assert camera in found
    assert OPPOSITES[camera] not in found
    still = np.stack([CAMERAS[camera](5)] * 21)
    assert not measures.follows_camera(still, camera)


@pytest.mark.parametrize(("scene", "sign"), [("snow", 1), ("waterfall", 1), ("fire", -1)])
def test_what_falls_and_rises(measures, scene, sign):
    attributes = {name: values[0] for name, values in SCENES[scene].attributes.items()}
    params = SceneParams(scene, 7, next(iter(SCENES[scene].times)), attributes)
    assert measures.vertical_motion(render(params, 25, 144, 256).numpy()) * sign > 0.02


def test_steps_in_space_and_time(measures):
    smooth = np.stack([seen(0, t) for t in range(21)])
    assert measures.edge_ratio(smooth) == pytest.approx(1.0, abs=0.3)
    assert measures.seam_ratio(smooth) == pytest.approx(1.0, abs=0.1)
    blocks = smooth.astype(int)
    blocks[:, :, 32:64] += 40
    assert measures.edge_ratio(blocks.clip(0, 255).astype(np.uint8)) > 1.6
    jolts = smooth.astype(int) + (np.arange(21) // 4 % 2 * 20)[:, None, None, None]
    # Frames 1 to 4 are of one latent: a jolt after frame 0, 4, 8 and so on is at a border.
    shifted = np.concatenate([jolts[3:], jolts[:3]]).clip(0, 255).astype(np.uint8)
    assert measures.seam_ratio(shifted) > 2
    assert measures.flicker(shifted) > 1.5 * measures.flicker(smooth)


def test_a_block_grid_that_stands_still_does_not_hide_the_camera(measures):
    clip = np.stack([seen(0, t) for t in range(21)]).astype(int)
    clip[:, :, ::16] += 12
    clip[:, ::16] += 12
    assert measures.follows_camera(clip.clip(0, 255).astype(np.uint8), "pan right")


def test_a_network_that_was_shown_colours_names_them_among_those_asked_for():
    classifier = module("classifier")

    def flat(colour, place):
        clip = np.full((6, 72, 128, 3), 60, np.uint8)
        clip[:, 8 + place : 40 + place, 20 + 2 * place : 60 + 2 * place] = colour
        return clip

    red, blue = (220, 30, 30), (30, 40, 220)
    clips = [flat(colour, place) for place in range(0, 24, 4) for colour in (red, blue)]
    network = classifier.train(clips, [0, 1] * 6, steps=40)
    asked = [flat((190, 50, 40), 13), flat((60, 60, 230), 6)]
    assert classifier.judge(network, asked)[0] == [0, 1]
    assert classifier.judge(network, asked, among=[1])[0] == [1, 1]


def test_distances_of_sets(measures):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
    near, far = measures.frechet_distance(first, second), measures.frechet_distance(first + 1, second)
    assert 0 <= near < 1
    assert far == pytest.approx(near + 16, rel=0.3), "one in each of 16 dimensions"
    assert measures.nearest(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [9.0, 9.0]])).tolist() == [
        1.0,
        pytest.approx(np.hypot(3, 3)),
    ]


def test_prompts_use_words_that_were_not_trained(measures):
    prompts = module("prompts")
    words = {"a", "the", "in", "on", "of", "at", "with", "and", "it", "is", "by", "into"}
    from importlib.resources import files

    from sora_plugins.nano.scenes.captions import WORD_FILES

    for name in WORD_FILES:
        text = (files("sora_plugins.nano.scenes") / name).read_text().lower()
        words |= set("".join(letter if letter.isalpha() else " " for letter in text).split())
    for scene, held_out in prompts.HELD_OUT.items():
        unseen = [prompt for prompt in held_out if prompts.unseen_words(prompt, words)]
        assert len(unseen) >= 4, (scene, unseen)
