"""`sora data dedup`: one of each group of videos that show the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.data.dedup import near_duplicates  # noqa: E402
from sora_cli.video.io import write_image, write_video  # noqa: E402


def moving(seed, height, width, frames=30):
    """Soft blobs that wander; the same at any size."""
    random = np.random.default_rng(seed)
    places = random.uniform(0.2, 0.8, (6, 2))
    speeds = random.uniform(-0.01, 0.01, (6, 2))
    colours = random.uniform(60, 255, (6, 3))
    y, x = np.mgrid[0:height, 0:width]
    for frame in range(frames):
        picture = np.zeros((height, width, 3))
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            top, left = place + speed * frame
            picture += np.exp(-((y / height - top) ** 2 + (x / width - left) ** 2) / 0.02)[..., None] * colour
        yield np.clip(picture, 0, 255).astype(np.uint8)[None]


def dedup(capsys, *arguments):
    code = main(["data", "dedup", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)[0]


def test_the_largest_of_each_group_is_kept(tmp_path, capsys):
    pytest.importorskip("imagehash", reason="needs the extra data")
    sizes = {
        "a_small": (1, 72, 128),
        "b": (2, 96, 160),
        "a_large": (1, 144, 256),
        "c": (3, 96, 160),
        "a_again": (1, 72, 128),
    }
    for name, (seed, height, width) in sizes.items():
        write_video(tmp_path / f"{name}.mp4", moving(seed, height, width), 24.0)
    write_image(tmp_path / "p.png", next(moving(4, 90, 120))[0])
    write_image(tmp_path / "q.png", next(moving(4, 60, 80))[0])
    names = [*(f"{name}.mp4" for name in sizes), "p.png", "q.png", "empty.mp4"]
    (tmp_path / "empty.mp4").touch()
    areas = [*(height * width for _, height, width in sizes.values()), 10800, 4800, 0]
    pl.DataFrame({"path": names, "id": names, "resolution": areas}).write_csv(tmp_path / "t.csv")
    record = dedup(capsys, tmp_path / "t.csv", "-o", tmp_path / "u.csv")
    assert record["bad"] == 1
    unique = pl.read_csv(tmp_path / "u.csv")
    assert unique["id"].to_list() == ["b.mp4", "a_large.mp4", "c.mp4", "p.png"]
    assert unique.columns == ["path", "id", "resolution"]

    dedup(capsys, tmp_path / "t.csv", "-o", tmp_path / "m.csv", "--mark")
    marked = pl.read_csv(tmp_path / "m.csv")
    assert dict(marked.select("id", "duplicate_of").rows()) == {
        "a_small.mp4": "a_large.mp4",
        "b.mp4": None,
        "a_large.mp4": None,
        "c.mp4": None,
        "a_again.mp4": "a_large.mp4",
        "p.png": None,
        "q.png": "p.png",
    }


def test_groups_of_hashes():
    random = np.random.default_rng(0)
    base = random.integers(0, 2**63, (50, 5), dtype=np.uint64)

    def text(row, flips=0):
        return " ".join(f"{int(value) ^ ((1 << flips) - 1):016x}" for value in row)

    hashes = [
        *(text(row) for row in base),
        *(text(row, 5) for row in base[:10]),
        *(text(row, 9) for row in base[10:20]),
    ]
    best = near_duplicates(hashes, [()] * len(hashes), 6)
    assert best[:50] == list(range(50))
    assert best[50:60] == list(range(10))
    assert best[60:] == list(range(60, 70))


def test_blank_videos_are_no_duplicates_of_others():
    blank, half = "- - - - -", "- - - - 00ff00ff00ff00ff"
    best = near_duplicates([blank, half, blank, None, None], [()] * 5, 6)
    assert best == [0, 1, 0, 3, 4]
