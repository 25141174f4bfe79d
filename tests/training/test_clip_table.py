"""Tables of clips: kinds of files, headers, values, paths."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sora_cli.errors import SoraError, UsageError
from sora_cli.training.table import clip_path, open_table

ROWS = {
    "path": ["a.mp4", "b.jpg", "sub/c.mov"],
    "text": ["a cat", "a bird", "a, dog"],
    "num_frames": [60, 1, 120],
    "height": [360, 512, 720],
    "width": [640, 512, 1280],
    "aes": [5.5, None, 6.0],
}


def opened(*sources: Path, **options):
    return open_table([str(source) for source in sources], cache=sources[0].parent / "cache" / "t.arrow", **options)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".parquet.gz", ".parquet.gzip"])
def test_kinds_of_files(tmp_path: Path, suffix: str):
    file = tmp_path / f"clips{suffix}"
    frame = pl.DataFrame(ROWS)
    plain = tmp_path / "plain"
    frame.write_csv(plain, quote_style="always") if "csv" in suffix else frame.write_parquet(plain)
    file.write_bytes(gzip.compress(plain.read_bytes()) if "gz" in suffix else plain.read_bytes())
    table = opened(file)
    assert len(table) == 3
    assert table.numbers("num_frames").tolist() == ROWS["num_frames"]
    assert table.numbers("width").dtype == np.int64
    rows = table.rows(np.array([2, 0]))
    assert [row.path for row in rows] == ["sub/c.mov", "a.mp4"]
    assert [row.texts for row in rows] == [("a, dog",), ("a cat",)]
    assert rows[1].scores.aes == 5.5
    assert table.root == tmp_path
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["t.arrow"]


def test_the_fingerprint_is_of_the_content(tmp_path: Path):
    frame = pl.DataFrame(ROWS)
    frame.write_csv(tmp_path / "a.csv", quote_style="always")
    frame.with_columns(unused=pl.lit(1)).write_parquet(tmp_path / "b.parquet")
    frame.with_columns(text=pl.lit("other")).write_parquet(tmp_path / "c.parquet")
    prints = [opened(tmp_path / name).fingerprint for name in ("a.csv", "b.parquet", "c.parquet")]
    assert prints[0] == prints[1] != prints[2]


def test_shards_are_read_in_order(tmp_path: Path):
    for index in range(3):
        frame = pl.DataFrame(ROWS).with_columns(path=pl.lit(f"{index}.mp4"))
        frame.write_parquet(tmp_path / f"part-{index}.parquet")
    for source in (tmp_path, tmp_path / "part-*.parquet"):
        table = open_table([str(source)], cache=tmp_path / "cache" / "t.arrow")
        assert [row.path for row in table.rows(np.arange(0, 9, 3))] == ["0.mp4", "1.mp4", "2.mp4"]


def test_blanks_around_headers(tmp_path: Path):
    (tmp_path / "t.csv").write_text("path, text, num_frames, height , width\na.mp4,a cat, 20,32,64\n")
    assert opened(tmp_path / "t.csv").numbers("num_frames").tolist() == [20]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_that_are_none_are_missing(tmp_path: Path, kind: str):
    frame = pl.DataFrame(
        {
            "path": ["a.mp4", "b.mp4", "c.mp4"],
            "text": ["a", "b", "c"],
            "num_frames": [float("nan"), float("inf"), 20.0],
            "height": [36] * 3,
            "width": [64] * 3,
            "aes": [5.0, 5.0, float("nan")],
            "flow": [1.0, 1.0, float("-inf")],
        }
    )
    file = tmp_path / f"t.{kind}"
    frame.write_csv(file) if kind == "csv" else frame.write_parquet(file)
    with pytest.raises(UsageError, match="2 bad rows") as failed:
        opened(file)
    assert "row 1: num_frames is missing or no number" in str(failed.value.hint)
    [row] = opened(file, bad_rows="skip").rows(np.arange(1))
    assert (row.path, row.scores.aes, row.scores.motion) == ("c.mp4", None, None)


def test_missing_columns(tmp_path: Path):
    (tmp_path / "t.csv").write_text("path,texts,num_frames\na.mp4,x,2\n")
    with pytest.raises(UsageError, match=r"t\.csv lacks the columns text, height, width") as failed:
        opened(tmp_path / "t.csv")
    assert "did you mean 'texts'" in str(failed.value.hint)
    (tmp_path / "my table.csv").write_text("path\na.mp4\n")
    with pytest.raises(UsageError, match=r"lacks the columns text, num_frames") as failed:
        opened(tmp_path / "my table.csv")
    assert "`sora data index '" in str(failed.value.hint)
    with pytest.raises(UsageError, match=r"lacks the column text$") as failed:
        opened(tmp_path / "my table.csv", needs_sizes=False)
    assert "`sora data caption '" in str(failed.value.hint)
    (tmp_path / "t.csv").write_text("path,text\na.mp4,x\n")
    assert len(opened(tmp_path / "t.csv", needs_sizes=False)) == 1
    (tmp_path / "t.csv").write_text("path,text,text \na.mp4,x,y\n")
    with pytest.raises(UsageError, match="two columns of one name"):
        opened(tmp_path / "t.csv", needs_sizes=False)


def test_bad_values_are_named_with_their_rows(tmp_path: Path):
    lines = ["a.mp4,x,0,8,8", "b.mp4,x,5,,8", "c.mp4,x,5,8,many", ",x,5,8,8", "e.mp4,x,2.5,8,8", "f.mp4,,5,8,8"]
    (tmp_path / "t.csv").write_text("path,text,num_frames,height,width\ngood.mp4,x,5,8,8\n" + "\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="6 bad rows") as failed:
        opened(tmp_path / "t.csv")
    hint = str(failed.value.hint)
    for part in ("row 2: num_frames is 0", "row 3: height is missing", "row 4: width is missing or no number",
                 "row 5: no path", "row 6: num_frames is 2.5", "row 7: no text"):  # fmt: skip
        assert part in hint
    table = opened(tmp_path / "t.csv", bad_rows="skip")
    assert (len(table), table.num_skipped) == (1, 6)


def test_captions_that_are_not_text(tmp_path: Path):
    pl.DataFrame({**ROWS, "text": [1, 2, 3]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="the column text holds Int64, not text"):
        opened(tmp_path / "t.parquet")


@pytest.mark.parametrize("content", [b"\x00\x01", b"PAR1" + b"\x00" * 40])
def test_damaged_tables(tmp_path: Path, content: bytes):
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(SoraError, match=r"cannot read the table .*t\.parquet"):
        opened(tmp_path / "t.parquet")
    assert not list((tmp_path / "cache").iterdir())


def test_sources_that_are_no_tables(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    for source, message in (("absent.csv", "no table at"), ("notes.txt", "is no table"), (".", "no table at")):
        with pytest.raises(UsageError, match=message):
            opened(tmp_path / source)
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(UsageError, match=r"t\.csv is empty") as failed:
        opened(tmp_path / "t.csv")
    assert failed.value.hint == "a table starts with a line of column names"
    (tmp_path / "t.csv").write_text("path,text,num_frames,height,width\n")
    with pytest.raises(UsageError, match="no row to train on"):
        opened(tmp_path / "t.csv")


def test_tables_of_several_folders(tmp_path: Path):
    """Relative paths start from the folder of their own table, or from the root that was given."""
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        frame = pl.DataFrame(ROWS).with_columns(path=pl.Series(["x.mp4", "/data/y.mp4", "https://z/z.mp4"]))
        frame.write_parquet(tmp_path / name / "t.parquet")
    sources = [tmp_path / "a" / "t.parquet", tmp_path / "b" / "c" / "t.parquet"]
    table = opened(*sources)
    assert table.root == tmp_path
    whole = ["/data/y.mp4", "https://z/z.mp4"]
    assert [row.path for row in table.rows(np.arange(6))] == ["a/x.mp4", *whole, "b/c/x.mp4", *whole]
    table = opened(*sources, root=tmp_path)
    assert table.root == tmp_path
    assert [row.path for row in table.rows(np.array([0, 3]))] == ["x.mp4", "x.mp4"]
    pl.DataFrame(ROWS).with_columns(path=pl.Series(["x.mp4", " ", None])).write_parquet(sources[1])
    with pytest.raises(UsageError, match="2 bad rows"):
        opened(*sources)


def test_further_captions(tmp_path: Path):
    more = {"text_10": ["c", "", None], "text_2": ["b", " ", "d"], "text_x": ["no"] * 3}
    pl.DataFrame({**ROWS, **more}).write_csv(tmp_path / "t.csv")
    pl.DataFrame({**ROWS, **more}).write_parquet(tmp_path / "t.parquet")
    wanted = [("a cat", "b", "c"), ("a bird",), ("a, dog", "d")]
    for name in ("t.csv", "t.parquet"):
        assert [row.texts for row in opened(tmp_path / name).rows(np.arange(3))] == wanted
        assert [row.texts for row in opened(tmp_path / name, needs_text=False).rows(np.arange(3))] == [()] * 3
    pl.DataFrame(ROWS).write_csv(tmp_path / "one.csv")
    together = opened(tmp_path / "one.csv", tmp_path / "t.csv")
    assert [row.texts for row in together.rows(np.array([0, 3]))] == [("a cat",), wanted[0]]
    pl.DataFrame({**ROWS, "text_2": [1, 2, 3]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="the column text_2 holds Int64, not text"):
        opened(tmp_path / "t.parquet")


def test_paths_stay_in_the_root(tmp_path: Path):
    assert clip_path(tmp_path, "x/../y.MP4") == tmp_path / "y.MP4"
    assert clip_path(tmp_path, "/data/y.webp") == Path("/data/y.webp")
    for text, message in (
        ("https://example.com/a.mp4", "address"),
        ("../a.mp4", "out of"),
        ("x/../../a.mp4", "out of"),
        ("a.txt", "neither a video"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_path(tmp_path, text)
