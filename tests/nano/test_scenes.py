"""The painters: every scene, time of day and attribute gives a picture that moves, anywhere the camera may look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sora_plugins.nano.scenes.canvas import camera_view
from sora_plugins.nano.scenes.catalogue import CAMERAS, SCENES, SceneParams, clip_params
from sora_plugins.nano.scenes.renderer import frames, make_painter, render

HEIGHT, WIDTH = 36, 64


def variants(scene: str) -> Iterator[SceneParams]:
    """Every time of day with every combination of attributes."""
    kind = SCENES[scene]
    for time in kind.times:
        for values in itertools.product(*kind.attributes.values()):
            yield SceneParams(scene, 11, time, dict(zip(kind.attributes, values, strict=True)))


def plain(scene: str, camera: str = "static", amplitude: float = 0.0, speed: float = 1.0) -> SceneParams:
    kind = SCENES[scene]
    attributes = {name: values[0] for name, values in kind.attributes.items()}
    return SceneParams(scene, 5, next(iter(kind.times)), attributes, speed, camera, amplitude)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("scene", SCENES)
def test_every_variant_gives_pictures_that_move(scene: str) -> None:
    for params in variants(scene):
        paint = make_painter(params)
        x, y = camera_view(params, 0.0, HEIGHT, WIDTH)
        first, later = paint(x, y, 0.0), paint(x, y, 0.5)
        for picture in (first, later):
            assert picture.shape == (3, HEIGHT, WIDTH)
            assert picture.dtype == torch.float32
            assert picture.isfinite().all(), params
        shown = first.clamp(0, 1)
        assert shown.std() > 0.05, f"an empty picture: {params}"
        # Measured: the stillest scene, mountains at dawn, changes by 0.013. A sky of stars alone changes less.
        threshold = 0.002 if params.attributes.get("colour") == "none" else 0.01
        assert (shown - later.clamp(0, 1)).abs().mean() > threshold, f"stands still: {params}"


@pytest.mark.parametrize("scene", SCENES)
def test_pictures_are_defined_wherever_the_camera_looks(scene: str) -> None:
    x, y = camera_view(plain(scene), 0.0, HEIGHT, WIDTH)
    for params in itertools.islice(variants(scene), 0, None, 3):
        paint = make_painter(params)
        for zoom, right, down in ((1, 4, 0), (1, -4, 0), (1, 0, 3), (1, 0, -3), (8, 0, 0), (0.1, 0, 0)):
            picture = paint(x * zoom + right, (y - 0.5) * zoom + 0.5 + down, 0.3)
            assert picture.isfinite().all(), (params, zoom, right, down)
            assert picture.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("scene", SCENES)
def test_same_parameters_same_pixels(scene: str) -> None:
    params = clip_params(3, list(SCENES).index(scene))
    clip = render(params, 2, HEIGHT, WIDTH, fps=2)
    assert clip.shape == (2, HEIGHT, WIDTH, 3)
    assert clip.dtype == torch.uint8
    assert torch.equal(clip, render(params, 2, HEIGHT, WIDTH, fps=2))
    other_seed = SceneParams(scene, params.seed + 1, params.time_of_day, params.attributes)
    assert not torch.equal(clip, render(other_seed, 2, HEIGHT, WIDTH, fps=2))


def test_frames_do_not_depend_on_the_length_of_the_clip() -> None:
    params = plain("waterfall")
    short, long = (list(frames(params, count, HEIGHT, WIDTH)) for count in (2, 3))
    assert all(torch.equal(a, b) for a, b in zip(short, long[:2], strict=True))


def test_unknown_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scene 'volcano'"):
        make_painter(SceneParams("volcano", 1, "day", {}))


# -- the camera ----------------------------------------------------------------------------------------------------

STEP = 0.25  # seconds between the two pictures; with amplitude 0.8 a pan is 0.1 heights


def standing_pair(scene: str, camera: str) -> tuple[Tensor, Tensor]:
    """Two grey pictures (96, 160) of a scene in which time stands still, so that only the camera moves."""
    first, second = render(plain(scene, camera, 0.8, speed=0.0), 2, 96, 160, fps=1 / STEP).float().mean(-1)
    return first, second


def content_motion(first: Tensor, second: Tensor) -> tuple[int, int]:
    """How many pixels (right, down) the content moved: the shift with the least mean squared difference."""
    best = {}
    for right, down in itertools.product(range(-14, 15), repeat=2):
        if abs(right) and abs(down):
            continue  # the cameras move along one axis
        ours = second[max(0, down) : 96 + min(0, down), max(0, right) : 160 + min(0, right)]
        theirs = first[max(0, -down) : 96 + min(0, -down), max(0, -right) : 160 + min(0, -right)]
        best[right, down] = float((ours - theirs).square().mean())
    return min(best, key=best.__getitem__)


@pytest.mark.parametrize("scene", ["city", "waterfall", "flowers"])
@pytest.mark.parametrize(
    ("camera", "motion"),
    [
        ("static", (0, 0)),
        ("pan right", (-10, 0)),  # 0.1 heights of 96 lines is 9.6
        ("pan left", (10, 0)),
        ("tilt down", (0, -6)),  # tilts are 0.6 as fast
        ("tilt up", (0, 6)),
    ],
)
def test_content_moves_against_the_camera(scene: str, camera: str, motion: tuple[int, int]) -> None:
    measured = content_motion(*standing_pair(scene, camera))
    assert measured == pytest.approx(motion, abs=1)


@pytest.mark.parametrize("scene", ["city", "waterfall", "flowers"])
@pytest.mark.parametrize(("camera", "enlarges"), [("zoom in", True), ("zoom out", False)])
def test_zoom_changes_the_size_of_things(scene: str, camera: str, enlarges: bool) -> None:
    first, second = standing_pair(scene, camera)

    def difference(scale: float) -> float:
        """Mean squared difference of the second picture and the first one enlarged by `scale`, in the middle."""
        grid = F.affine_grid(torch.tensor([[[1 / scale, 0, 0], [0, 1 / scale, 0]]]), [1, 1, 96, 160], False)
        scaled = F.grid_sample(first[None, None], grid, align_corners=False)[0, 0]
        return float((scaled - second)[16:-16, 24:-24].square().mean())

    # 0.8 x 0.25 s / 2 s x 0.9 on the log scale
    factor = 2.718281828**0.09
    assert difference(factor if enlarges else 1 / factor) < 0.5 * min(
        difference(1.0), difference(1 / factor if enlarges else factor)
    )


def test_the_camera_words_are_those_of_the_command_line() -> None:
    from sora_cli.complete import CAMERA_MOTIONS

    assert set(CAMERAS) == set(CAMERA_MOTIONS)


# -- drawing parameters --------------------------------------------------------------------------------------------


def test_a_clip_depends_on_seed_and_index_only() -> None:
    assert clip_params(1, 5) == clip_params(1, 5)
    assert len({clip_params(seed, 5).seed for seed in range(20)}) == 20
    assert len({clip_params(1, index).seed for index in range(20)}) == 20
    assert [clip_params(1, index).scene for index in range(12)] == list(SCENES)
    assert [clip_params(1, index, ("fire", "rain")).scene for index in range(3)] == ["fire", "rain", "fire"]


def test_drawn_parameters_are_within_the_catalogue() -> None:
    drawn = [clip_params(2, index) for index in range(600)]
    for params in drawn:
        kind = SCENES[params.scene]
        assert params.time_of_day in kind.times
        assert params.attributes.keys() == kind.attributes.keys()
        assert all(value in kind.attributes[name] for name, value in params.attributes.items())
        assert 0.5 < params.speed < 1.9
        assert (params.camera_amplitude == 0) == (params.camera == "static")
    assert {params.camera for params in drawn} == set(CAMERAS)
    seen = {(p.scene, name, value) for p in drawn for name, value in p.attributes.items()}
    assert seen == {(s, n, v) for s, kind in SCENES.items() for n, values in kind.attributes.items() for v in values}
    assert 0.1 < sum(params.is_photogenic for params in drawn) / len(drawn) < 0.25
