"""`sora scenes`: a list, and clips with a training table that are the same every time."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sora_cli.video.settings import find_settings
from sora_plugins.nano.scenes import renderer
from sora_plugins.nano.scenes.captions import motion_score
from sora_plugins.nano.scenes.catalogue import SCENES, clip_params

# 5 frames of 32 x 48: a clip takes some milliseconds.
SMALL = ("--frames", "5", "--size", "32x48")


def table(folder: str = "clips") -> list[dict[str, str]]:
    with open(Path(folder) / "clips.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def snapshot(folder: str = "clips") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_list_shows_scenes_times_and_attributes(sora: Callable[..., Any]) -> None:
    shown = sora("scenes", "list")
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 1 + len(SCENES)
    assert "rock: grey|mossy|red" in shown.out
    rows = json.loads(sora("scenes", "list", "--json").out)
    assert {row["name"]: row["attributes"] for row in rows}["fire"] == {
        "colour": ["orange", "blue", "green"],
        "setting": ["campfire", "fireplace"],
    }
    assert rows[0]["times"] == ["day", "sunset", "dawn", "overcast", "night"]
    assert sora("scenes", "list", "--quiet").out.split() == list(SCENES)


def test_render_writes_clips_and_a_training_table(sora: Callable[..., Any]) -> None:
    finished = sora("scenes", "render", "-o", "clips", "--count", "3", *SMALL)
    assert finished.code == 0, finished.err
    assert finished.out == "clips/clips.csv\n"
    rows = table()
    assert list(rows[0]) == [
        *("path", "text", "num_frames", "height", "width", "aspect_ratio", "fps", "resolution"),
        *("aes", "flow", "cmotion"),
    ]
    for index, row in enumerate(rows):
        params = clip_params(1, index)
        assert row["path"] == f"clip_{index:05d}.mp4"
        assert (row["num_frames"], row["height"], row["width"]) == ("5", "32", "48")
        assert (row["aspect_ratio"], row["resolution"], row["fps"]) == ("0.6667", "1536", "24.0")
        assert float(row["flow"]) == pytest.approx(motion_score(params), abs=0.01)
        assert row["cmotion"] == params.camera.replace(" ", "_")
        assert row["text"]
        assert "score:" not in row["text"]
        clip = decoded(Path("clips", row["path"]))
        assert clip.shape == (5, 32, 48, 3)
        wanted = renderer.render(params, 5, 32, 48).numpy()
        assert np.abs(clip.astype(int) - wanted).mean() < 8  # half-resolution colour at this small size


def test_the_same_command_gives_the_same_bytes_and_a_larger_count_adds(sora: Callable[..., Any]) -> None:
    assert sora("scenes", "render", "-o", "a", "--count", "2", *SMALL).code == 0
    assert sora("scenes", "render", "-o", "b", "--count", "3", *SMALL).code == 0
    two, three = snapshot("a"), snapshot("b")
    assert all(three[name] == content for name, content in two.items() if name != "clips.csv")
    before = {path: path.stat().st_mtime_ns for path in Path("a").glob("*.mp4")}
    more = sora("scenes", "render", "-o", "a", "--count", "3", *SMALL)
    assert more.code == 0
    assert "2 of 3 clips are there already" in more.err
    assert snapshot("a") == three
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    # Nothing left to do: the table's path is printed all the same.
    assert sora("scenes", "render", "-o", "a", "--count", "3", *SMALL).out == "a/clips.csv\n"


def test_several_captions_for_each_clip(sora: Callable[..., Any]) -> None:
    for folder, count in (("one", "1"), ("three", "3")):
        assert sora("scenes", "render", "-o", folder, "--count", "4", "--captions", count, *SMALL).code == 0
    one, three = table("one"), table("three")
    assert list(three[0])[:5] == ["path", "text", "text_2", "text_3", "num_frames"]
    assert [{key: row[key] for key in one[0]} for row in three] == one
    assert all(row[name] and "score:" not in row[name] for row in three for name in ("text_2", "text_3"))
    assert sum(len({row["text"], row["text_2"], row["text_3"]}) == 3 for row in three) >= 2
    clips = [
        {name: content for name, content in snapshot(folder).items() if "clip_" in name} for folder in ("one", "three")
    ]
    assert clips[0] == clips[1]
    again = ("scenes", "render", "-o", "one", "--count", "4", "--captions", "3", *SMALL)
    assert "lines that this run would not write" in sora(*again).err
    assert "4 of 4 clips are there already" in sora(*again, "--overwrite").err
    assert table("one") == three


def test_another_seed_gives_other_clips(sora: Callable[..., Any]) -> None:
    for seed in ("1", "2"):
        assert sora("scenes", "render", "-o", seed, "--count", "1", "--seed", seed, *SMALL).code == 0
    assert snapshot("1") != snapshot("2")


@pytest.mark.parametrize("changed", [("--seed", "2"), ("--fps", "12"), ("--size", "48x32"), ("--scene", "rain")])
def test_a_folder_made_otherwise_is_refused(sora: Callable[..., Any], changed: tuple[str, str]) -> None:
    made = ("scenes", "render", "-o", "clips", "--count", "2", *SMALL)
    assert sora(*made).code == 0
    before = snapshot()
    refused = sora(*made, *changed)
    assert refused.code == 2
    assert "made with other settings" in refused.err
    assert "--overwrite" in refused.err
    assert snapshot() == before
    assert sora(*made, *changed, "--overwrite").code == 0
    assert snapshot() != before


def test_a_table_with_more_lines_is_not_replaced(sora: Callable[..., Any]) -> None:
    assert sora("scenes", "render", "-o", "clips", "--count", "2", *SMALL).code == 0
    before = snapshot()
    refused = sora("scenes", "render", "-o", "clips", "--count", "1", *SMALL)
    assert refused.code == 2
    assert "lines that this run would not write" in refused.err
    assert snapshot() == before
    assert sora("scenes", "render", "-o", "clips", "--count", "1", *SMALL, "--overwrite").code == 0
    assert len(table()) == 1


def test_one_frame_makes_images(sora: Callable[..., Any]) -> None:
    from PIL import Image

    finished = sora("scenes", "render", "-o", "clips", "--count", "2", "--frames", "1", "--size", "32x48", "--json")
    (document,) = json.loads(finished.out)
    assert (document["path"], document["rendered"], document["kept"]) == ("clips/clips.csv", 2, 0)
    assert [row["path"] for row in document["clips"]] == ["clip_00000.png", "clip_00001.png"]
    assert [row["fps"] for row in table()] == ["", ""]
    shown = np.asarray(Image.open("clips/clip_00001.png"))
    assert np.array_equal(shown, renderer.render(clip_params(1, 1), 1, 32, 48)[0].numpy())


def test_settings_are_in_the_file(sora: Callable[..., Any]) -> None:
    sora("scenes", "render", "-o", "clips", "--count", "1", "--scene", "city", *SMALL)
    settings = find_settings(Path("clips/clip_00000.mp4"))
    assert settings is not None
    assert settings["scene"]["scene"] == "city"
    assert settings["text"] == table()[0]["text"]
    assert "city" in sora("show", "clips/clip_00000.mp4").out


def test_ctrl_c_keeps_finished_clips_and_goes_on(sora: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = ("scenes", "render", "-o", "clips", "--count", "3", *SMALL)
    real, calls = renderer.frames, 0

    def stopped(*arguments: Any, **options: Any) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        for index, frame in enumerate(real(*arguments, **options)):
            if calls == 2 and index == 2:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(renderer, "frames", stopped)
    interrupted = sora(*made)
    assert interrupted.code == 130
    assert interrupted.out == ""
    assert "1 of 3 clips done" in interrupted.err
    assert sorted(snapshot()) == ["clip_00000.mp4", "clip_00000.mp4.json"]
    monkeypatch.setattr(renderer, "frames", real)
    assert sora(*made).code == 0
    resumed = snapshot()
    assert sora("scenes", "render", "-o", "again", "--count", "3", *SMALL).code == 0
    assert resumed == snapshot("again")


def test_dry_run_writes_nothing_and_says_what_would_happen(sora: Callable[..., Any]) -> None:
    assert sora("scenes", "render", "-o", "clips", "--count", "1", *SMALL).code == 0
    before = snapshot()
    rows = json.loads(sora("scenes", "render", "-o", "clips", "--count", "2", *SMALL, "-n", "--json").out)
    assert [(row["path"], row["action"]) for row in rows] == [
        ("clips/clip_00000.mp4", "keep"),
        ("clips/clip_00001.mp4", "render"),
    ]
    assert rows[1]["scene"] == "ocean"
    other = json.loads(
        sora("scenes", "render", "-o", "clips", "--seed", "2", "--count", "1", *SMALL, "-n", "--json").out
    )
    assert other[0]["action"].startswith("refuse")
    assert snapshot() == before


@pytest.mark.parametrize("arguments", [("list",), ("render", "-o", "clips", "--res", "240p", "--dry-run")])
def test_planning_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from sora_cli.__main__ import main; code = main(sys.argv[1:]);"
        "print({'torch', 'numpy', 'av', 'transformers'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, "scenes", *arguments], capture_output=True, text=True, env=os.environ
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scene", "watrfall"), "did you mean 'waterfall'?"),
        (("--size", "33x48"), "height 33: use 32 or 40"),
        (("--size", "8x48"), "too small"),
        (("--res", "144"), "did you mean '144p'?"),
        (("--count", "0"), "--count"),
        (("--frames", "0"), "--frames"),
        (("--fps", "0"), "--fps"),
    ],
)
def test_bad_input(sora: Callable[..., Any], arguments: tuple[str, str], message: str) -> None:
    finished = sora("scenes", "render", "-o", "clips", *arguments)
    assert finished.code == 2
    assert message in finished.err
    assert not Path("clips").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(sora: Callable[..., Any]) -> None:
    Path("clips").write_text("mine")
    finished = sora("scenes", "render", "-o", "clips", *SMALL)
    assert finished.code == 2
    assert "clips is not a folder" in finished.err
    assert Path("clips").read_text() == "mine"
