"""`sora data interpolate`: more frames of the same video, at the rate that keeps its speed."""

from __future__ import annotations

import json

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")
pytest.importorskip("cv2", reason="needs the extra data")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.video.io import write_video  # noqa: E402


def test_a_table_of_smoother_videos(tmp_path, capsys):
    random = np.random.default_rng(0)
    base = random.integers(0, 255, (12, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(tmp_path / "a.mp4", iter([np.stack([np.roll(base, 2 * step, 1) for step in range(6)])]), 10.0)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "t.csv").write_text("path,text,num_frames,fps\na.mp4,blocks,6,10\nempty.mp4,,0,\n")
    arguments = [
        "data",
        "interpolate",
        str(tmp_path / "t.csv"),
        "--clips",
        str(tmp_path / "s"),
        "-o",
        str(tmp_path / "s.csv"),
    ]
    code = main([*arguments, "--doublings", "2", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert json.loads(captured.out)[0]["bad"] == 1
    (row,) = pl.read_csv(tmp_path / "s.csv").to_dicts()
    assert (row["num_frames"], row["fps"], row["text"]) == (21, pytest.approx(40), "blocks")
    assert (row["height"], row["width"], row["resolution"]) == (96, 160, 96 * 160)
    assert row["interpolated_from"] == str(tmp_path / "a.mp4")
    assert (tmp_path / "s/a.mp4").is_file()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a.mp4"]


def test_a_video_is_not_overwritten_by_its_own(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", iter([np.zeros((3, 48, 64, 3), np.uint8)]), 10.0)
    before = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "t.csv").write_text("path\na.mp4\n")
    arguments = [
        "data",
        "interpolate",
        str(tmp_path / "t.csv"),
        "--clips",
        str(tmp_path),
        "-o",
        str(tmp_path / "o.csv"),
    ]
    for more in ([], ["--overwrite"]):
        code = main([*arguments, *more])
        assert (code, "is in the table" in capsys.readouterr().err) == (2, True)
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_an_unknown_method(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("path\na.mp4\n")
    code = main(["data", "interpolate", str(tmp_path / "t.csv"), "--clips", "s", "-o", "s.csv", "--method", "flwo"])
    assert (code, "did you mean 'flow'?" in capsys.readouterr().err) == (2, True)
