"""The noise that moves with the camera, the words that name a motion, and the grid that moves."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from sora_plugins.nano.config import MODEL_CONFIG
from sora_plugins.nano.model import OFFSETS, NanoModel, build
from sora_plugins.nano.noise import (
    EMPHASIS,
    FAST,
    SHARED,
    SLOW,
    SPEED_LIMITS,
    camera_of,
    moving_noise,
    noise_for,
    speed_of,
)
from sora_plugins.nano.scenes.captions import motion_score, write_caption
from sora_plugins.nano.scenes.catalogue import CAMERAS, clip_params

SHAPE = (32, 14, 9, 16)


def noise(camera: str, *, count: int = 12, amplitude: float = 0.65, speed: float = 1.0) -> Tensor:
    """(count * C, T, h, w)"""
    generator = torch.Generator().manual_seed(3)
    rows = [
        moving_noise(
            torch.randn(SHAPE, generator=generator), camera, amplitude, speed=speed, fps=24.0, generator=generator
        )
        for _ in range(count)
    ]
    return torch.cat(rows)


def alike(first: Tensor, second: Tensor) -> float:
    """Correlation of noise of variance 1."""
    return float((first * second).mean())


@pytest.mark.parametrize("camera", CAMERAS)
def test_noise_keeps_variance_one_and_neighbours_apart(camera: str) -> None:
    drawn = noise(camera)
    assert abs(float(drawn.mean())) < 0.02
    assert float(drawn.var()) == pytest.approx(1.0, abs=0.02)
    for axis in (2, 3):
        size = drawn.shape[axis] - 1
        assert abs(alike(drawn.narrow(axis, 0, size), drawn.narrow(axis, 1, size))) < 0.02


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_a_still_camera_sees_one_world_and_the_less_of_it_the_faster_things_are(speed: float) -> None:
    drawn = noise("static", speed=speed)
    for frame in (1, 7, 13):
        assert alike(drawn[:, 0], drawn[:, frame]) == pytest.approx(SHARED**speed, abs=0.02)


@pytest.mark.parametrize(
    ("camera", "axis", "step"), [("pan left", 2, 1), ("pan right", 2, -1), ("tilt up", 1, 1), ("tilt down", 1, -1)]
)
def test_the_shared_part_moves_against_the_camera(camera: str, axis: int, step: int) -> None:
    # Six latent frames are one second: half of the amplitude, 2.9 positions for a pan and 1.8 for a tilt.
    drawn = noise(camera, speed=0.5)
    travel = 3 if axis == 2 else 2
    size = drawn.shape[axis + 1] - travel
    early, late = drawn[:, 3], drawn[:, 9]
    moved = alike(early.narrow(axis, 0, size), late.narrow(axis, travel, size))
    against = alike(early.narrow(axis, travel, size), late.narrow(axis, 0, size))
    (wanted, other) = (moved, against) if step > 0 else (against, moved)
    assert wanted > 0.3
    assert abs(other) < 0.05


@pytest.mark.parametrize(("camera", "early_is_near"), [("zoom in", False), ("zoom out", True)])
def test_a_zoom_shows_less_of_the_world_or_more(camera: str, early_is_near: bool) -> None:
    drawn = noise(camera, amplitude=0.9, speed=0.5)
    first, last = drawn[:, 0], drawn[:, -1]
    near, far = (first, last) if early_is_near else (last, first)
    # The middle of the far picture is spread over more positions of the near one.
    middle_of_far, near_sum = far[:, 3:6, 6:10].sum((1, 2)), near[:, 1:8, 3:13].sum((1, 2))
    correlation = float(torch.corrcoef(torch.stack([middle_of_far, near_sum]))[0, 1])
    assert correlation > 0.25


def test_a_picture_is_left_as_it_is() -> None:
    single = torch.randn((32, 1, 9, 16), generator=torch.Generator().manual_seed(1))
    assert torch.equal(noise_for(single, "a waterfall", fps=24.0, seed=5), single)


def test_noise_depends_on_prompt_and_seed_only() -> None:
    drawn = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    prompt = "clouds. camera motion: pan left."
    one, same = (noise_for(drawn, prompt, fps=24.0, seed=5) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, noise_for(drawn, prompt, fps=24.0, seed=6))
    for other in ("clouds", f"{prompt} motion score: 8.0."):
        assert not torch.equal(one, noise_for(drawn, other, fps=24.0, seed=5))


def test_a_prompt_is_told_with_emphasis_what_is_trained_on_is_not() -> None:
    drawn = torch.randn((32 * 12, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))
    for text, speed in (
        ("clouds", EMPHASIS),
        ("clouds. motion score: 9.0.", 2 * EMPHASIS),
        ("measured motion score: 9.00. camera motion: static. clouds", 2),
    ):
        found = noise_for(drawn, text, fps=24.0, seed=5)
        assert alike(found[:, 0], found[:, 9]) == pytest.approx(SHARED**speed, abs=0.02)


def test_the_camera_of_every_training_caption_that_names_one_is_found() -> None:
    named = 0
    for index in range(3000):
        params = clip_params(9, index)
        caption = write_caption(params, random.Random(index))
        found = camera_of(caption)
        assert found in (params.camera, "static"), caption
        named += found != "static"
    # Three of four moving clips say how the camera moves, and six of ten clips that are not for bare prompts move.
    assert named > 3000 * 0.6 * 0.85 * 0.75 * 0.9


@pytest.mark.parametrize(
    ("prompt", "camera"),
    [
        ("A waterfall, slow PAN to the left", "pan left"),
        ("the camera slowly pans towards the right over a city", "pan right"),
        ("the camera drifts left across a meadow", "pan left"),
        ("upward tilt over snowy pines", "tilt up"),
        ("clouds, looking up at the sky", "static"),
        ("a ball on the left rolls to the right", "static"),
        ("fireworks. The camera zooms slowly out.", "zoom out"),
        ("a slow zoom-in on a campfire", "zoom in"),
        ("dolly out from the waterfall", "zoom out"),
        ("static shot of the sea. camera motion: tilt down.", "tilt down"),
    ],
)
def test_words_for_the_camera(prompt: str, camera: str) -> None:
    assert camera_of(prompt) == camera


def test_the_speed_is_that_of_the_motion_score_of_training_clips() -> None:
    for index in range(300):
        params = clip_params(9, index)
        found = speed_of(f"motion score: {motion_score(params):.2f}. camera motion: {params.camera}. in slow motion")
        # A moving camera is taken to travel the usual way.
        assert found == pytest.approx(params.speed, abs=0.01 if params.camera == "static" else 0.12)


def test_the_speed_that_training_captions_name_is_found() -> None:
    named = 0
    for index in range(3000):
        params = clip_params(9, index)
        caption = write_caption(params, random.Random(index)).split(" motion score")[0]
        found = speed_of(caption)
        assert found in (SLOW, 1.0, FAST)
        assert found == 1.0 or (found < 1) == (params.speed < 0.8), caption
        named += found != 1.0
    assert named > 500


@pytest.mark.parametrize(
    ("prompt", "speed"),
    [
        ("a waterfall", 1.0),
        ("a waterfall in SLOW motion", SLOW),
        ("clouds, time-lapse", FAST),
        ("a fast river", FAST),
        ("the camera slowly pans left over a city", 1.0),
        ("a quick zoom in on a fire", 1.0),
        ("a fire, moving slowly. The camera quickly pans left", SLOW),
        ("a waterfall, in slow motion. motion score: 4.5.", 1.0),
        ("a waterfall. motion score: 0.0.", SPEED_LIMITS[0]),
        ("a waterfall. motion score: 100.0.", SPEED_LIMITS[1]),
    ],
)
def test_words_for_the_speed(prompt: str, speed: float) -> None:
    assert speed_of(prompt) == speed


def small() -> NanoModel:
    torch.manual_seed(0)
    model = build({**MODEL_CONFIG, "hidden_size": 32, "depth": 1, "num_heads": 2})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def call(model: NanoModel, x: Tensor, time: float) -> Tensor:
    count = len(x)
    sizes = {name: torch.full((count,), value) for name, value in {"height": 80.0, "width": 96.0, "fps": 24.0}.items()}
    y = torch.randn((count, 1, 6, 128), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(x, torch.full((count,), time), y, mask=torch.ones(count, 6, dtype=torch.long), **sizes)


def test_the_grid_moves_with_the_time_and_the_result_keeps_its_place() -> None:
    model = small()
    x = torch.randn((1, 32, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    times = [1000.0 * step / 40 for step in range(1, 41)]
    assert {model._offset(torch.tensor([time])) for time in times} == set(OFFSETS)
    for time in times[:8]:
        assert call(model, x, time).shape == x.shape
        assert torch.equal(call(model, x, time), call(model, x, time))
    # One position is changed: the output changes around it, most in the token that holds it.
    for time in times[:8]:
        changed = x.clone()
        changed[:, :, :, 2, 3] += 5.0
        difference = (call(model, changed, time) - call(model, x, time)).abs().sum((0, 1, 2))
        row, column = divmod(int(difference.argmax()), x.shape[-1])
        down, right = model._offset(torch.tensor([time]))
        assert ((row + down) // 2, (column + right) // 2) == ((2 + down) // 2, (3 + right) // 2)


def test_in_training_the_offset_is_drawn() -> None:
    model = small().train()
    torch.manual_seed(4)
    drawn = {model._offset(torch.tensor([500.0])) for _ in range(40)}
    assert drawn == set(OFFSETS)
