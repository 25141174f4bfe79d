"""What an autoencoder loses of the last given frame, in the frames that follow it."""

from __future__ import annotations

import numpy as np
import pytest

from sora_cli.video.seams import EASED_FRAMES, FADE, MOST_EASED, Seam, lead_to

HEIGHT, WIDTH = 48, 64


def scene(seed: int = 0) -> np.ndarray:
    """A picture (H, W, 3) of noise around middle grey."""
    return np.random.default_rng(seed).integers(90, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def clip(picture: np.ndarray, frames: int) -> np.ndarray:
    return np.repeat(picture[None], frames, axis=0)


def seam_of(given: np.ndarray, decoded: np.ndarray, new: int) -> Seam:
    seam = Seam(new)
    seam.add_given(given[:2])
    seam.add_given(given[2:])
    seam.add_decoded(decoded)
    return seam


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def test_what_stands_keeps_its_detail_and_loses_it_slowly() -> None:
    picture, decoded = scene(), np.full((HEIGHT, WIDTH, 3), 125, np.uint8)
    found = seam_of(clip(picture, 5), decoded, 24).lead(clip(decoded, 24))
    assert (found[0] == picture).all()
    lost = [distance(frame, picture) for frame in found]
    assert np.diff(lost[: FADE + 1]) == pytest.approx([lost[-1] / FADE] * FADE, abs=0.3)
    assert (found[FADE:] == decoded).all()


def test_a_short_part_ends_as_it_was_decoded() -> None:
    """What follows it, a video that it leads to, is not given another step."""
    decoded = np.full((HEIGHT, WIDTH, 3), 125, np.uint8)
    found = seam_of(clip(scene(), 5), decoded, 4).lead(clip(decoded, 4))
    lost = [distance(frame, decoded) for frame in found]
    assert lost == pytest.approx([lost[0] * share for share in (1, 0.75, 0.5, 0.25)], abs=0.5)


def test_what_moves_has_no_ghost() -> None:
    """Where another thing is, nothing is carried over, also when it is gone again."""
    picture, decoded = scene(), np.full((HEIGHT, WIDTH, 3), 125, np.uint8)
    new = clip(decoded, 3)
    new[1, :, : WIDTH // 2] = 250
    found = seam_of(clip(picture, 5), decoded, 3).lead(new)
    inner = slice(None, WIDTH // 2 - 4)
    assert distance(found[1][:, inner], new[1][:, inner]) < 1
    assert distance(found[2][:, inner], new[2][:, inner]) < 1
    assert distance(found[1][:, WIDTH // 2 + 4 :], new[1][:, WIDTH // 2 + 4 :]) > 5


def test_the_length_of_pieces_changes_nothing() -> None:
    given = np.stack([scene(seed) for seed in range(5)])
    new = np.stack([scene(seed) for seed in range(10, 34)])
    whole = seam_of(given, scene(5), 24).lead(new)
    seam = seam_of(given, scene(5), 24)
    pieces = [seam.lead(new[start : start + 5]) for start in range(0, 24, 5)]
    assert (np.concatenate(pieces) == whole).all()
    assert (new == np.stack([scene(seed) for seed in range(10, 34)])).all(), "what is given stays as it is"


@pytest.mark.parametrize(("step", "eased"), [(8, 0.0), (12, 2.0), (80, MOST_EASED * 80)])
def test_a_step_is_no_larger_than_those_before_unless_it_is_a_cut(step: int, eased: float) -> None:
    given = np.stack([np.full((HEIGHT, WIDTH, 3), 100 + level, np.uint8) for level in (0, 10, 18, 20)])
    new = clip(np.full((HEIGHT, WIDTH, 3), 120 + step, np.uint8), 24)
    found = seam_of(given, given[-1], 24).lead(new)
    taken = [distance(frame, before) for frame, before in zip(found, new, strict=True)]
    assert taken[:EASED_FRAMES] == pytest.approx([eased * (1 - place / EASED_FRAMES) for place in range(4)], abs=0.6)
    assert not any(taken[EASED_FRAMES:])


def test_a_video_is_led_to_as_one_is_left() -> None:
    given = np.stack([scene(seed) for seed in range(5)])
    new = np.stack([scene(seed) for seed in range(10, 26)])
    led = lead_to(new[::-1], scene(5), given[::-1])
    assert (led[::-1] == seam_of(given, scene(5), len(new)).lead(new)).all()
