"""Tables as streams: what is read, what passes through, what is refused and where it says so."""

from __future__ import annotations

import errno
import gzip

import polars as pl
import pytest

from sora_cli.data.tables import ROWS_AT_ONCE, batches_of, scan_tables, through, write_table
from sora_cli.errors import MissingError, SoraError, UsageError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "tables"
    place.mkdir()
    return place


def test_cells_that_nobody_knows_pass_through(folder):
    source, copy = folder / "a.csv", folder / "b.csv"
    text = "path,note,text,zip,aes\na.mp4, 007 ,None,01234,5.50\n"
    text += 'b.mp4,"say ""x"", y",null,1e3,\nc.mp4,NA,"two\nlines",,nan\n'
    source.write_text(text)
    write_table(scan_tables([str(source)], numbers=()), copy)
    assert copy.read_text() == text


def test_numbers_and_missing_cells(folder):
    source = folder / "a.csv"
    source.write_text("path,text,num_frames,aes\na,None,48.0,NA\nb,nan,null, 5.5 \n\nc,,NaN,None\n,,,\n")
    frame = scan_tables([str(source)]).collect()
    assert frame.schema == {"path": pl.String, "text": pl.String, "num_frames": pl.Int64, "aes": pl.Float64}
    assert frame.rows() == [("a", "None", 48, None), ("b", "nan", None, 5.5), ("c", None, None, None)]


def test_captions_that_are_all_missing(folder):
    pl.DataFrame({"path": ["a.mp4"], "text": [float("nan")]}).write_parquet(folder / "1.parquet")
    assert scan_tables([str(folder / "1.parquet")]).collect()["text"].to_list() == [None]


def test_columns_are_united_in_order_of_appearance(folder):
    (folder / "2.csv").write_text("path,b,num_frames\ny,2,7\n")
    (folder / "1.csv").write_text("path,a\nx,1\n")
    pl.DataFrame({"c": [1.5], "b": [9], "path": ["z"]}).write_parquet(folder / "3.parquet")
    for places in ([str(folder)], [str(folder / "*")], [str(folder / f"{n}") for n in ("1.csv", "2.csv", "3.*")]):
        frame = scan_tables(places).collect()
        assert frame.columns == ["path", "a", "b", "num_frames", "c"]
        assert frame["path"].to_list() == ["x", "y", "z"]
        assert frame["b"].to_list() == [None, "2", "9"]


def test_kinds_of_files(folder):
    plain = b"path,text\na,x\n"
    (folder / "a.csv.gz").write_bytes(gzip.compress(plain))
    pl.read_csv(plain).write_parquet(folder / "p.parquet")
    (folder / "b.parquet.gz").write_bytes(gzip.compress((folder / "p.parquet").read_bytes()))
    for name in ("a.csv.gz", "p.parquet", "b.parquet.gz"):
        assert scan_tables([str(folder / name)]).collect().rows() == [("a", "x")]
    for name in ("o.csv", "o.csv.gz", "o.parquet"):
        write_table(scan_tables([str(folder / "p.parquet")]), folder / name)
        assert scan_tables([str(folder / name)]).collect().rows() == [("a", "x")]
    assert gzip.decompress((folder / "o.csv.gz").read_bytes()) == plain


def test_names_that_look_like_patterns(folder):
    for suffix in ("csv", "parquet"):
        write_table(pl.DataFrame({"path": ["a"]}), folder / f"clips[1]*.{suffix}")
        assert scan_tables([str(folder / f"clips[1]*.{suffix}")]).collect()["path"].to_list() == ["a"]


def test_without_header(folder):
    source = folder / "a.csv"
    source.write_text("a.mp4,a cat,16\nb.mp4,,8\n")
    frame = scan_tables([str(source)], has_header=False).collect()
    assert frame.columns == ["path", "text", "num_frames"]
    assert frame.rows() == [("a.mp4", "a cat", 16), ("b.mp4", None, 8)]
    source.write_text("a,b,1,2\n")
    with pytest.raises(UsageError, match="has 4 columns"):
        scan_tables([str(source)], has_header=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,num_frames\na,1\n\nb,twelve\n", "line 4: num_frames is 'twelve', not a whole number"),
        (b'path,text,num_frames\na,"x\ny",1\nb,z,2.5\n', "line 4: num_frames is '2.5', not a whole number"),
        (b"path,aes\na,1\nb,high\n", "line 3: aes is 'high', not a number"),
        (b"path,text\na,b\nc,d,e\n", "line 3: 3 cells, and the table has 2 columns"),
        (b"path,text\na,b\nc,\xff\xfe\n", "line 3: it is not UTF-8 text"),
        (b'path,text\na,b\nc,"d\ne,f\n', "from line 3 on: unexpected end of data"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_lines_are_named(folder, content, message, packed):
    source = folder / ("bad.csv.gz" if packed else "bad.csv")
    source.write_bytes(gzip.compress(content) if packed else content)
    good = folder / "good.csv"
    good.write_text("path\nx\n")
    output = folder / "o.csv"
    with pytest.raises(SoraError) as caught:
        write_table(scan_tables([str(good), str(source)]), output)
    assert f"{source}, {message}" in caught.value.message
    assert sorted(path.name for path in folder.iterdir()) == sorted(["good.csv", source.name])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "path,text,path\n", "two columns of one name: path"),
        ("a.parquet", "not parquet", "cannot read"),
        ("a.txt", "path\n", "is no table"),
    ],
)
def test_what_is_no_table(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(SoraError, match=message):
        scan_tables([str(folder / name)]).collect()


def test_nothing_is_overwritten(folder):
    output = folder / "o.csv"
    output.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_table(pl.DataFrame({"path": ["a"]}), output)
    assert output.read_text() == "mine"
    write_table(pl.DataFrame({"path": ["a"]}), output, overwrite=True)
    assert output.read_text() == "path\na\n"
    with pytest.raises(UsageError, match="no name of a table"):
        write_table(pl.DataFrame({"path": ["a"]}), folder / "o.json")
    with pytest.raises(UsageError, match="holds lists"):
        write_table(pl.DataFrame({"path": [["a"]]}), folder / "l.csv")
    # A table may replace itself.
    write_table(scan_tables([str(output)]).with_columns(pl.lit("x").alias("b")), output, overwrite=True)
    assert output.read_text() == "path,b\na,x\n"


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_a_failed_write_leaves_nothing(folder, suffix):
    output = folder / f"o.{suffix}"
    output.write_text("mine")

    def broken(batches):
        yield next(batches)
        raise OSError(errno.ENOSPC, "No space left on device")

    frame = pl.LazyFrame({"path": ["a"] * (2 * ROWS_AT_ONCE)})
    with pytest.raises(SoraError, match="no space left"):
        write_table(through(frame, broken, frame.collect_schema()), output, overwrite=True)
    assert [path.name for path in folder.iterdir()] == [output.name]
    assert output.read_text() == "mine"


def test_columns_rows_and_filters_reach_the_file(folder):
    source = folder / "a.csv"
    pl.DataFrame({"path": [f"{n}" for n in range(200_000)], "num_frames": range(200_000)}).write_csv(source)
    frame = scan_tables([str(source)])
    assert frame.select(pl.len()).collect().item() == 200_000
    assert frame.filter(pl.col("num_frames") > 199_997).select("path").collect()["path"].to_list() == [
        "199998",
        "199999",
    ]
    assert frame.head(3).select("num_frames").collect()["num_frames"].to_list() == [0, 1, 2]
    assert frame.slice(100_000, 1).collect()["path"].to_list() == ["100000"]


def test_object_stores(folder):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/data/tables-test/b.csv", b"path,text\nb,y\n")
    store.pipe("/data/tables-test/a.csv", b"path,text\na,x\n")
    for place in ("memory://data/tables-test", "memory://data/tables-test/*.csv"):
        assert scan_tables([place]).collect()["path"].to_list() == ["a", "b"]
    target = "memory://data/tables-out/o.parquet"
    write_table(scan_tables(["memory://data/tables-test/b.csv"]), target)
    assert scan_tables([target]).collect().rows() == [("b", "y")]
    with pytest.raises(UsageError, match="exists already"):
        write_table(pl.DataFrame({"path": ["a"]}), target)
    store.pipe("/data/tables-test/c.csv", b"path,aes\nb,y\n")
    with pytest.raises(SoraError, match=r"memory:///data/tables-test/c.csv, line 2: aes is 'y'"):
        list(batches_of(scan_tables(["memory://data/tables-test/c.csv"])))
    with pytest.raises(UsageError, match="no table at memory://data/nothing"):
        scan_tables(["memory://data/nothing/*.csv"])
    with pytest.raises(UsageError, match="cannot be opened"):
        scan_tables(["nosuchstore://bucket/a.csv"])


def test_the_extra_of_object_stores_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingError) as caught:
        scan_tables(["s3://bucket/a.csv"])
    assert "sora-cli[cloud]" in (caught.value.hint or "")
