"""Which video belongs to which original, and what of them is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from known_clips import lossless, noise

from sora_cli.errors import SoraError, UsageError
from sora_cli.evaluation.pairs import Look, Pair, find_videos, open_together, pair_up


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_videos_of_folders_are_sorted_and_others_left_aside(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mkv", "a.mkv.json", ".hidden.mp4", "notes.txt", "c.png"):
        (tmp_path / name).touch()
    (tmp_path / "inside").mkdir()
    assert [path.name for path in find_videos([tmp_path])] == ["a.mkv", "b.mp4", "c.png"]
    assert find_videos([tmp_path / "b.mp4", tmp_path, tmp_path / "b.mp4"])[0].name == "b.mp4"
    with pytest.raises(UsageError, match="has no videos and no pictures"):
        find_videos([tmp_path / "inside"])
    with pytest.raises(UsageError, match="there is no file or folder"):
        find_videos([tmp_path / "absent"])


def test_pairs() -> None:
    videos, originals = paths("x/a.mp4", "x/b.mp4", "x/c.mp4"), paths("y/b.mkv", "y/a.mp4", "y/a.mkv")
    by_name = pair_up(videos, originals, by_position=False)
    assert by_name[:2] == [Pair(Path("x/a.mp4"), Path("y/a.mp4")), Pair(Path("x/b.mp4"), Path("y/b.mkv"))]
    assert by_name[2].reason == "no original has its name"
    [twice] = pair_up(paths("x/a.avi"), originals, by_position=False)
    assert twice.reason == "several originals have its name: y/a.mp4, y/a.mkv"
    assert pair_up(videos, originals, by_position=True)[2] == Pair(Path("x/c.mp4"), Path("y/a.mkv"))
    with pytest.raises(UsageError, match="there are 2 videos and 3 originals"):
        pair_up(videos[:2], originals, by_position=True)


def test_frames_come_as_they_are(tmp_path: Path) -> None:
    frames = noise(5)
    path = lossless(tmp_path / "a.mkv", frames)
    with Look().open(path) as clip:
        pieces = list(Look().pieces(clip, 2))
    assert [piece.shape[2] for piece in pieces] == [2, 2, 1]
    found = torch.cat(pieces, dim=2)[0].permute(1, 2, 3, 0) * 255
    torch.testing.assert_close(found, torch.from_numpy(frames).float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("look", "numbers"),
    [
        (Look(sample_rate=3), [0, 3, 6]),
        (Look(frames=3), [0, 1, 2]),
        (Look(frames=3, sample_rate=2), [0, 2, 5]),  # the last of the stretch is among them
    ],
)
def test_which_frames(tmp_path: Path, look: Look, numbers: list[int]) -> None:
    path = lossless(tmp_path / "a.mkv", np.repeat(np.arange(8, dtype=np.uint8), 32 * 32 * 3).reshape(8, 32, 32, 3))
    with look.open(path) as clip:
        assert [round(float(piece.mean() * 255)) for piece in look.pieces(clip, 1)] == numbers
    with (
        pytest.raises(SoraError, match="has 8 frames, fewer than --sample-rate 9"),
        Look(frames=1, sample_rate=9).open(path),
    ):
        pass


def test_sizes(tmp_path: Path) -> None:
    path = lossless(tmp_path / "a.mkv", noise(2, (40, 60)))
    for look, size in (
        (Look(), (40, 60)),
        (Look(resolution=20), (20, 30)),
        (Look(resolution=20, crop=16), (16, 16)),
    ):
        with look.open(path) as clip:
            [piece] = look.pieces(clip, 2)
            assert tuple(piece.shape) == (1, 3, 2, *size)
            assert look.size(clip) == size
    with pytest.raises(UsageError, match="--crop cuts"):
        Look(crop=16)
    with pytest.raises(UsageError, match="--crop 21 is more than --resolution 20"):
        Look(resolution=20, crop=21)


def test_other_sizes_and_lengths(tmp_path: Path) -> None:
    original = lossless(tmp_path / "a.mkv", noise(6))
    shorter, larger = lossless(tmp_path / "b.mkv", noise(4)), lossless(tmp_path / "c.mkv", noise(6, (64, 96)))
    for other, message in (
        (shorter, "b.mkv has 4 frames, and .*a.mkv 6"),
        (larger, "c.mkv is 64x96, and .*a.mkv 32x48"),
    ):
        with pytest.raises(SoraError, match=message), open_together([original, other], Look(), fitted=False):
            pass
    with open_together([original, shorter, larger], Look(), fitted=True) as clips:
        assert {(clip.num_frames, clip.height, clip.width) for clip in clips} == {(4, 32, 48)}
    with open_together([original, larger], Look(resolution=16, crop=16), fitted=False) as clips:
        assert len(list(Look(resolution=16, crop=16).together(clips))) == 1


def test_other_rates_are_compared_by_time(tmp_path: Path) -> None:
    frames = noise(6)
    original = lossless(tmp_path / "a.mkv", frames, fps=6)
    twice = lossless(tmp_path / "b.mkv", np.repeat(frames, 2, axis=0), fps=12)
    with open_together([original, twice], Look(), fitted=True) as clips:
        for first, second in Look().together(clips):
            torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
        assert [clip.num_frames for clip in clips] == [6, 6]
