"""Videos in an object store: listed, looked into, cut and scored through copies that go again."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble", reason="needs the extra data")
pytest.importorskip("fsspec", reason="needs the extra cloud")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.video.io import write_video  # noqa: E402


def run(capsys, *arguments):
    code = main(["data", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)[0]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The scheme file:// of fsspec, which every process sees, unlike memory://."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "store/deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.mp4", "deep/b.mp4"):
        frames = random.integers(0, 255, (24, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(tmp_path / "store" / name, iter([frames]), 12.0)
    (tmp_path / "store/notes.txt").write_text("not media")
    return f"file://{tmp_path / 'store'}"


def test_steps_work_on_addresses(store, tmp_path, capsys):
    assert run(capsys, "index", store, "-o", tmp_path / "v.csv")["rows"] == 2
    table = pl.read_csv(tmp_path / "v.csv")
    assert table["path"].to_list() == [f"{store}/a.mp4", f"{store}/deep/b.mp4"]
    assert table["relpath"].to_list() == ["a.mp4", "deep/b.mp4"]
    assert table["num_frames"].to_list() == [24, 24]
    arguments = ("--detector", "table", "--clips", tmp_path / "c", "-o", tmp_path / "c.csv")
    assert run(capsys, "cut", tmp_path / "v.csv", *arguments)["rows"] == 2
    clips = pl.read_csv(tmp_path / "c.csv")
    assert clips["source"].to_list() == table["path"].to_list()
    assert clips["num_frames"].to_list() == [24, 24]
    run(capsys, "score", tmp_path / "v.csv", "-o", tmp_path / "s.csv", "--score", "brightness")
    assert pl.read_csv(tmp_path / "s.csv")["brightness"].null_count() == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_clips_are_written_to_a_store(store, tmp_path, capsys):
    clips = f"file://{tmp_path / 'out'}"
    run(capsys, "index", store, "-o", tmp_path / "v.csv")
    arguments = ["cut", tmp_path / "v.csv", "--detector", "table", "--clips", f"{clips}/", "-o", tmp_path / "c.csv"]
    assert run(capsys, *arguments)["rows"] == 2
    table = pl.read_csv(tmp_path / "c.csv")
    assert table["path"].to_list() == [f"{clips}/a_scene-0.mp4", f"{clips}/deep/b_scene-0.mp4"]
    assert table["relpath"].to_list() == ["a_scene-0.mp4", "deep/b_scene-0.mp4"]
    # They are as those of a folder, and the next steps take them from there.
    local = [*arguments[:-3], tmp_path / "here", "-o", tmp_path / "h.csv"]
    run(capsys, *local)
    assert (tmp_path / "out/deep/b_scene-0.mp4").read_bytes() == (tmp_path / "here/deep/b_scene-0.mp4").read_bytes()
    run(capsys, "score", tmp_path / "c.csv", "-o", tmp_path / "s.csv", "--score", "brightness")
    assert pl.read_csv(tmp_path / "s.csv")["brightness"].null_count() == 0
    assert not list((tmp_path / "temporary").iterdir())

    (tmp_path / "c.csv").unlink()
    assert main(["data", *map(str, arguments)]) == 2
    assert f"{clips}/a_scene-0.mp4 exists already" in capsys.readouterr().err
    run(capsys, *arguments, "--overwrite")


def test_the_table_of_a_step_is_written_here(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.csv").write_text(f"path\n{store}/a.mp4\n")
    assert main(["data", "score", "v.csv", "-o", "s3://bucket/s.csv", "--score", "brightness"]) == 2
    assert "copy it with `sora data filter TABLE -o ADDRESS`" in capsys.readouterr().err
    assert not (tmp_path / "s3:").exists()


def test_smoother_videos_are_written_to_a_store(store, tmp_path, capsys):
    pytest.importorskip("cv2", reason="needs the extra data")
    run(capsys, "index", store, "-o", tmp_path / "v.csv")
    clips = f"file://{tmp_path / 'out'}"
    run(capsys, "interpolate", tmp_path / "v.csv", "--clips", clips, "-o", tmp_path / "c.csv")
    table = pl.read_csv(tmp_path / "c.csv")
    assert table["path"].to_list() == [f"{clips}/a.mp4", f"{clips}/deep/b.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.mp4", "b.mp4"]
    arguments = ("interpolate", tmp_path / "v.csv", "--clips", store, "-o", tmp_path / "o.csv", "--overwrite")
    assert main(["data", *map(str, arguments)]) == 2
    assert f"{store}/a.mp4 is in the table, and would be overwritten" in capsys.readouterr().err


def test_a_store_that_takes_nothing_costs_rows_their_reason(store, tmp_path, capsys):
    run(capsys, "index", store, "-o", tmp_path / "v.csv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/deep").write_text("a file where a folder is to be")
    clips = f"file://{tmp_path / 'out'}"
    arguments = ("--detector", "table", "--clips", clips, "-o", tmp_path / "c.csv")
    made = run(capsys, "cut", tmp_path / "v.csv", *arguments)
    assert (made["rows"], made["bad"]) == (1, 1)
    assert f"{clips}/deep/b_scene-0.mp4 cannot be reached" in (tmp_path / "c.bad.csv").read_text()


@pytest.mark.parametrize("address", ["https://x/clips", "memory://clips"])
def test_where_clips_cannot_be_written(store, tmp_path, capsys, address):
    (tmp_path / "v.csv").write_text(f"path\n{store}/a.mp4\n")
    arguments = ("cut", tmp_path / "v.csv", "--clips", address, "-o", tmp_path / "c.csv")
    assert main(["data", *map(str, arguments)]) == 2
    assert address in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/a.mp4", "https://x/a.mp4", "ftp://x/a.mp4", "simplecache::s3://x/a.mp4"]
)
def test_tables_choose_no_web_servers(tmp_path, capsys, address):
    (tmp_path / "t.csv").write_text(f"path\n{address}\n")
    code = main(["data", "score", str(tmp_path / "t.csv"), "-o", str(tmp_path / "s.csv"), "--score", "brightness"])
    errors = capsys.readouterr().err
    assert code in (1, 2)
    assert "not fetched over" in errors or "does not exist" in errors
