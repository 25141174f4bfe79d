"""`sora data index`: every file once, who it is, what it is like, and which are broken."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.data.index import find_files, unique_names  # noqa: E402
from sora_cli.errors import UsageError  # noqa: E402
from sora_cli.video.io import write_image, write_video  # noqa: E402


@pytest.fixture
def media(tmp_path):
    """Two videos of one name in different folders, a picture, and files that are not what they seem."""
    folder = tmp_path / "media"
    for place, count in (("a/clip.mp4", 9), ("b/Clip.mp4", 5)):
        path = folder / place
        path.parent.mkdir(parents=True)
        write_video(path, iter([np.full((count, 32, 48, 3), 90, np.uint8)]), 12.0)
    write_image(folder / "still.png", np.zeros((20, 30, 3), np.uint8))
    whole = (folder / "a/clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "words.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not media")
    (folder / "loop").symlink_to(folder)
    return folder


def index(capsys, *arguments):
    code = main(["data", "index", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out.strip() else None, captured.err


def test_files_are_found_once_and_broken_ones_are_listed(media, tmp_path, capsys):
    output = tmp_path / "table.csv"
    code, made, errors = index(capsys, media, "-o", output)
    assert code == 0
    assert made == [
        {"path": str(output), "rows": 3, "from_rows": 6, "bad": 3, "bad_rows": str(tmp_path / "table.bad.csv")}
    ]
    table = pl.read_csv(output)
    assert [os.path.relpath(path, media) for path in table["path"]] == ["a/clip.mp4", "b/Clip.mp4", "still.png"]
    assert table["relpath"].to_list() == ["a/clip.mp4", "b/Clip.mp4", "still.png"]
    assert table["num_frames"].to_list() == [9, 5, 1]
    assert table["height"].to_list() == [32, 32, 20]
    assert table["width"].to_list() == [48, 48, 30]
    assert table["fps"].to_list() == [12.0, 12.0, None]
    ids = table["id"].to_list()
    assert len(set(ids)) == 3
    assert ids[2] == "still"
    bad = pl.read_csv(tmp_path / "table.bad.csv")
    assert [os.path.basename(path) for path in bad["path"]] == ["cut.mp4", "empty.mp4", "words.jpg"]
    assert bad["error"].null_count() == 0
    assert "3 of 6 rows failed, listed in" in errors
    # With --overwrite, only those that failed are looked into again.
    assert (tmp_path / "table.csv.work/results.jsonl").read_text().count("\n") == 3


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have no such names")
def test_names_that_no_table_holds_are_left_out(media, tmp_path, capsys):
    (media / "still.png").rename(os.fsdecode(os.fsencode(media) + b"/\xff.png"))
    code, made, errors = index(capsys, media, "-o", tmp_path / "table.csv", "--no-probe")
    assert (code, made[0]["rows"]) == (0, 5), errors
    assert r"\xff.png" in errors


def test_rows_of_a_table_keep_their_columns(media, tmp_path, capsys):
    table = tmp_path / "mine.csv"
    rows = [f"{media}/a/clip.mp4,seven,9.5", f"{media}/still.png,,", f"{media}/b/Clip.mp4,x,", "gone.mp4,y,1"]
    table.write_text("path,text,mine\n" + "\n".join(rows) + "\n")
    code, made, errors = index(capsys, table, "-o", tmp_path / "out.csv")
    assert (code, made[0]["rows"], made[0]["bad"]) == (0, 3, 1), errors
    assert "gone.mp4" in (tmp_path / "out.bad.csv").read_text()
    found = pl.read_csv(tmp_path / "out.csv")
    assert found.select("text", "mine", "num_frames").rows() == [("seven", 9.5, 9), (None, None, 1), ("x", None, 5)]
    assert len(set(found["id"])) == 3
    # What it has of these columns already stays, and rows are as they were.
    code, _, errors = index(capsys, tmp_path / "out.csv", "-o", tmp_path / "again.csv", "--kind", "video")
    assert code == 0, errors
    assert pl.read_csv(tmp_path / "again.csv").equals(found.filter(pl.col("num_frames") > 1).select(pl.all()))
    # Files of folders come first, those of the table once.
    code, made, errors = index(capsys, table, media, "-o", tmp_path / "both.csv", "--no-probe")
    assert code == 0, errors
    both = pl.read_csv(tmp_path / "both.csv")
    assert [os.path.basename(path) for path in both["path"]][:-4] == ["cut.mp4", "empty.mp4", "words.jpg"]
    assert both["mine"].to_list()[-4:] == [9.5, None, None, 1]


def test_broken_files_can_be_kept(media, tmp_path, capsys):
    output = tmp_path / "table.parquet"
    code, made, _ = index(capsys, media, "-o", output, "--keep-bad", "--fast", "--workers", "1")
    assert code == 0
    assert made[0]["rows"] == 6
    table = pl.read_parquet(output)
    assert table.filter(pl.col("num_frames") == 0)["relpath"].to_list() == ["cut.mp4", "empty.mp4", "words.jpg"]


def test_an_output_is_not_replaced(media, tmp_path, capsys):
    output = tmp_path / "table.csv"
    output.write_text("precious\n")
    code, _, errors = index(capsys, media, "-o", output)
    assert code == 2
    assert "exists already" in errors
    assert output.read_text() == "precious\n"


def test_nothing_is_an_error(tmp_path, capsys):
    code, _, errors = index(capsys, tmp_path, "-o", tmp_path / "t.csv")
    assert (code, "there is no video and no picture in" in errors) == (2, True)
    code, _, errors = index(capsys, tmp_path / "absent", "-o", tmp_path / "t.csv")
    assert (code, "does not exist" in errors) == (2, True)


def test_only_broken_files_are_an_error(tmp_path, capsys):
    (tmp_path / "x.mp4").touch()
    code, _, errors = index(capsys, tmp_path / "x.mp4", "-o", tmp_path / "t.csv")
    assert code == 1
    assert "looking into 1 row ...\n" in errors
    assert "1 of 1 row failed, listed in" in errors
    assert "of 1 row none succeeded" in errors
    assert not (tmp_path / "t.csv").exists()


def test_names_are_unique():
    names = unique_names(["a/clip.mp4", "b/clip.mp4", "c/CLIP.mov", "other.mp4"])
    assert names[3] == "other"
    assert [name.rpartition("-")[0] for name in names[:3]] == ["clip", "clip", "CLIP"]
    assert len({name.lower() for name in names}) == 4
    assert names == unique_names(["a/clip.mp4", "b/clip.mp4", "c/CLIP.mov", "other.mp4"])


def test_layouts_of_public_sets(tmp_path):
    for name in ("BoxingPunchingBag/v_1.avi", "YoYo/v_2.avi"):
        path = tmp_path / "ucf/train" / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert find_files([str(tmp_path / "ucf")], "ucf101")["text"].to_list() == ["Boxing Punching Bag", "Yo Yo"]

    picture = tmp_path / "in/val/n01440764/x.JPEG"
    picture.parent.mkdir(parents=True)
    picture.touch()
    with pytest.raises(UsageError, match="no list of what the folders"):
        find_files([str(tmp_path / "in")], "imagenet", split="val")
    (tmp_path / "in/LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert find_files([str(tmp_path / "in")], "imagenet", split="val")["text"].to_list() == ["tench"]

    (tmp_path / "vid").mkdir()
    (tmp_path / "vid/pika-77.mp4").touch()
    (tmp_path / "prompts.csv").write_text('uuid,prompt\n77,"a red, round ball"\n78,absent\n../x,out\n')
    found = find_files([str(tmp_path / "vid")], "vidprom", info=str(tmp_path / "prompts.csv"))
    assert found.select("id", "text").rows() == [("pika-77", "a red, round ball")]
