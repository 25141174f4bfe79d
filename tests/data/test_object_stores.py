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


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/a.mp4", "https://x/a.mp4", "ftp://x/a.mp4", "simplecache::s3://x/a.mp4"]
)
def test_tables_choose_no_web_servers(tmp_path, capsys, address):
    (tmp_path / "t.csv").write_text(f"path\n{address}\n")
    code = main(["data", "score", str(tmp_path / "t.csv"), "-o", str(tmp_path / "s.csv"), "--score", "brightness"])
    errors = capsys.readouterr().err
    assert code in (1, 2)
    assert "not fetched over" in errors or "does not exist" in errors
