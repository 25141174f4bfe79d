"""`sora data filter`: what the goldens do not show. Their order, names and results are in tests/goldens."""

from __future__ import annotations

import csv
import json
import re
import socket

import numpy as np
import polars as pl
import pytest
from media import greys, picture, save_video
from t5_tiny import write_tokenizer

from sora_cli.data.operations import BOUNDS, STEPS, FilterOptions, row_hashes
from sora_cli.data.tables import ROWS_AT_ONCE
from sora_cli.text.captions import append_camera_motion, strip_opening


@pytest.fixture
def run(sora, tmp_path):
    """run(rows or text of a table, *options) -> (rows of the result, {step: rows dropped})."""

    def go(table, *options, columns=None):
        if not isinstance(table, str):
            pl.DataFrame(table).write_csv("in.csv")
        else:
            (tmp_path / "work" / "in.csv").write_text(table)
        finished = sora("data", "filter", "in.csv", "-o", "out.csv", "--overwrite", "--json", *options)
        assert finished.code == 0, finished.err
        steps = {step["step"]: step["dropped"] for step in json.loads(finished.out)["steps"]}
        with open("out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return ([row[columns] for row in rows] if columns else rows), steps

    return go


def test_web_servers_that_a_table_names_are_not_called(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        table = {"path": [f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"]}
        assert run(table, "--ext")[0] == []
        assert run(table, "--filesize", columns="filesize")[0] == [""]
        assert run(table, "--info", "--workers", "1", columns="num_frames")[0] == ["0"]
        with pytest.raises(BlockingIOError):  # nobody waits to be heard
            server.accept()


def test_every_step_is_an_option_and_has_its_place():
    assert set(STEPS) | {"on", "clean_keys", "shard", "seed", "root"} == set(FilterOptions.__dataclass_fields__)
    assert [name for name in STEPS if STEPS.count(name) == 2] == ["remove_empty_caption"] * 2
    assert set(BOUNDS) < set(STEPS)


def test_limits(run):
    table = "path,num_frames,fps,resolution,aes,flow,match,ocr\n"
    table += "a,10,24,100,5,1,20,0\nb,20,,200,6,2,21,3\nc,,60,,,,,\n"
    for options, kept in {
        ("--fmin", "20"): "b",
        ("--fmax", "10"): "a",
        ("--fpsmin", "25"): "bc",
        ("--fpsmax", "30"): "ab",
        ("--hwmin", "101"): "b",
        ("--hwmax", "100"): "a",
        ("--aesmin", "5.5"): "b",
        ("--aesmax", "5.5"): "a",
        ("--flowmin", "1.5"): "b",
        ("--flowmax", "1.5"): "a",
        ("--matchmin", "20.5"): "b",
        ("--ocrmax", "2"): "a",
        ("--where", "aes >= 5 AND ocr < 1"): "a",
        ("--where", "aes = MAX(aes)"): "b",
    }.items():
        rows, steps = run(table, *options, columns="path")
        assert ("".join(rows), steps[" ".join(options)]) == (kept, 3 - len(kept)), options


def test_camera_labels(run):
    table = {"path": ["a", "b", "c", "d"], "cmotion": ["pan_left+zoom in", "static", None, "Undetermined"]}
    assert run(table, "--cmotion", "zoom_in,tilt_up", columns="path")[0] == ["a"]
    table["text"] = ["a cat", None, "a dog", "a bird"]
    texts = run(table, "--merge-cmotion", columns="text")[0]
    assert texts == ["a cat Camera motion: pan left, zoom in.", "", "a dog", "a bird"]


def test_captions_that_the_reference_loses():
    assert strip_opening("The video shows") == ""
    assert strip_opening("the image is ") == ""
    for label in ("pan/tilt", "dynamic", "unknown", "", None, "pan_left+unknown"):
        assert append_camera_motion("a cat", label) == "a cat"


def test_missing_captions_stay_missing(run):
    table = "path,text,aes,cmotion\na,,5,static\nb,None,,static\nc,a cat,,static\n"
    options = ("--remove-url", "--clean-caption", "--append-text", " x", "--score-to-text", "--merge-cmotion")
    texts = run(table, *options, columns="text")[0]
    assert texts == ["", "none camera motion: static. x", "a cat camera motion: static. x"]
    assert run(table, "--remove-empty-caption", columns="path")[0] == ["b", "c"]


def test_score_text_is_by_chance_of_the_row(run):
    rows = [{"path": f"{n}.mp4", "text": "a cat", "aes": 5.25, "flow": None if n % 2 else 0.96} for n in range(2000)]
    texts = run(rows, "--score-to-text", columns="text")[0]
    both = "a cat [aesthetic score: 5.2, motion score: 1.0]"
    kinds = {"a cat", "a cat [aesthetic score: 5.2]", "a cat [motion score: 1.0]", both}
    assert set(texts) == kinds
    # 0.8 x 0.8 of the rows with both; the standard error of 1000 rows is 0.015.
    assert texts.count(both) / 1000 == pytest.approx(0.64, abs=0.06)
    assert run(rows[::-1], "--score-to-text", columns="text")[0] == texts[::-1]
    assert run(rows, "--score-to-text", "--workers", "2", columns="text")[0] == texts
    assert run(rows, "--score-to-text", "--seed", "7", columns="text")[0] != texts


def test_shuffle(run):
    rows = [{"path": f"{n}"} for n in range(3 * ROWS_AT_ONCE // 2)]
    order = run(rows, "--shuffle", columns="path")[0]
    places = np.array(order, int)
    assert sorted(places) == list(range(len(rows)))
    assert abs(np.corrcoef(places, np.arange(len(rows)))[0, 1]) < 0.02
    # The order of some rows does not depend on the others.
    assert run(rows[:1000], "--shuffle", columns="path")[0] == [path for path in order if int(path) < 1000]
    assert run(rows[:1000], "--shuffle", "--seed", "1", columns="path")[0] != order[:1000]
    assert row_hashes(pl.DataFrame({"path": ["a"]}), ("path",)).tolist() == [3405396810240292928]


def test_duplicates_over_many_batches(run):
    rng = np.random.default_rng(0)
    paths = [None if n == 0 else f"p{n}" for n in rng.integers(0, 150_000, 3 * ROWS_AT_ONCE)]
    kept, steps = run({"path": paths, "n": range(len(paths))}, "--remove-path-duplication", columns="path")
    wanted = ["" if path is None else path for path in dict.fromkeys(paths)]
    assert kept == wanted
    assert steps["--remove-path-duplication"] == len(paths) - len(wanted)


def test_sorting_is_stable_and_unknown_numbers_count_as_numbers(run):
    table = "path,aes,mine,word\na,5,10,x\nb,,9,9\nc,7,nan,\nd,5,100,10\n"
    assert run(table, "--sort", "aes", columns="path")[0] == list("cadb")
    assert run(table, "--sort-ascending", "aes", columns="path")[0] == list("adcb")
    assert run(table, "--sort", "mine", columns="path")[0] == list("dabc")
    assert run(table, "--sort-ascending", "word", columns="path")[0] == list("dbac")


def test_other_tables(run, tmp_path):
    table = {"path": ["a", "b", "c", None], "id": ["1", "2", "3", "4"], "text": ["A Cat!", "a dog", "x", "y"]}
    other = "id,path,text,extra,num_frames\n3,z,a cat!,e3,5\n1,a,,e1,6\n1,a,new,e2,\n"
    (tmp_path / "work" / "other.csv").write_text(other)
    assert run(table, "--difference", "other.csv", columns="id")[0] == ["2", "3", "4"]
    assert run(table, "--difference", "other.csv", "--on", "id", columns="id")[0] == ["2", "4"]
    assert run(table, "--keep-in", "other.csv", "--on", "id", columns="id")[0] == ["1", "3"]
    assert run(table, "--keep-in", "other.csv", "--on", "text", columns="id")[0] == []
    assert run(table, "--keep-in", "other.csv", "--on", "text", "--clean-keys", columns="id")[0] == ["1"]
    rows, steps = run(table, "--intersection", "other.csv", "--on", "id")
    assert [list(row.values()) for row in rows] == [
        ["a", "1", "A Cat!", "e1", "6"],
        ["a", "1", "A Cat!", "e2", ""],
        ["c", "3", "x", "e3", "5"],
    ]
    assert steps["--intersection other.csv"] == 1
    assert run(table, "--join", "other.csv", columns="extra")[0] == ["e1", "", "", ""]
    assert run(table, "--update-text", "other.csv", columns="text")[0] == ["new", "a dog", "x", "y"]
    assert list(run({"n": [1], "path": ["a"]}, "--update-text", "other.csv")[0][0]) == ["path", "n", "text"]


def test_keys_in_lists(run, tmp_path):
    captions = tmp_path / "work" / "panda.csv"
    captions.write_text('caption\n"[\'a man walks\', ""it\'s a dog""]"\nplain\n"[broken"\n')
    table = {"path": ["1", "2", "3", "4"], "text": ["it's a dog", "a man walks", "other", "plain"]}
    assert run(table, "--keep-in", "panda.csv", "--on", "text=caption", columns="path")[0] == ["1", "2", "4"]
    pl.DataFrame({"caption": [["other"], ["plain", "x"]]}).write_parquet("panda.parquet")
    assert run(table, "--keep-in", "panda.parquet", "--on", "text=caption", columns="path")[0] == ["3", "4"]
    # What a table holds is never run.
    captions.write_text("caption\n\"['x', open('made.txt', 'w')]\"\n")
    assert run(table, "--keep-in", "panda.csv", "--on", "text=caption", columns="path")[0] == []
    assert not (tmp_path / "work" / "made.txt").exists()


def test_files(run, tmp_path):
    work = tmp_path / "work"
    save_video(work / "a.b.mp4", greys(5))
    (work / "a.b.txt").write_text("a grey wall\n")
    (work / "a.b.json").write_text('{"caption": "grey"}')
    (work / "c.png").write_bytes(picture("red"))
    table = {"path": ["a.b.mp4", "c.png", "no.mp4", None], "n": [1, 2, 3, 4]}
    assert run(table, "--load-caption", "txt", columns="text")[0] == ["a grey wall", "", "", ""]
    assert run(table, "--load-caption", "json", columns="text")[0] == ["grey", "", "", ""]
    rows, _ = run(table, "--info", "--filesize")
    assert [row["num_frames"] for row in rows] == ["5", "1", "0", "0"]
    assert [bool(row["filesize"]) for row in rows] == [True, True, False, False]
    assert run(table, "--ext", columns="path")[0] == ["a.b.mp4", "c.png"]
    assert run(table, "--abspath", "/x", "--path-to-id", columns="id")[0] == ["a.b", "c", "no", ""]
    assert run({"path": ["s3://b/x/a.mp4", "a.mp4"]}, "--abspath", "s3://b", columns="path")[0] == [
        "s3://b/x/a.mp4",
        "s3://b/a.mp4",
    ]
    assert run({"path": ["s3://b/x/a.mp4", "a.M2TS"]}, "--relpath", "s3://b", "--vid-only", columns="path")[0] == [
        "x/a.mp4",
        "a.M2TS",
    ]


def test_languages(run):
    pytest.importorskip("py3langid", reason="needs the extra `data`")
    texts = {
        "en": "two cats sleep on a sofa in the sun",
        "de": "eine Frau läuft langsam durch den Markt",
        "ja": "赤いコートを着た女性が、混雑した市場をゆっくりと歩いています。",
        "short": "aerial drone shot",
        "none": None,
    }
    table = {"path": list(texts), "text": list(texts.values())}
    assert run(table, "--lang", "en", columns="path")[0] == ["en", "short", "none"]
    assert run(table, "--lang", "de,ja", columns="path")[0] == ["de", "ja", "short", "none"]


def test_tokens(run, tmp_path):
    folder = tmp_path / "t5"
    folder.mkdir()
    write_tokenizer(folder)
    rows, _ = run({"path": ["a", "b"], "text": ["a cat", None]}, "--count-num-token", str(folder))
    assert int(rows[0]["text_len"]) > 1
    assert rows[1]["text_len"] == ""
    longer, _ = run({"path": ["a"], "text": ["a cat " * 400]}, "--count-num-token", str(folder))
    assert int(longer[0]["text_len"]) > 400


def test_cleaning_in_several_processes(run):
    rows = [{"path": f"{n}", "text": f"The <b>CAT</b> number {n} at https://example.com"} for n in range(3000)]
    alone = run(rows, "--clean-caption", "--workers", "1", columns="text")[0]
    assert alone[17] == "the cat number 17 at"
    assert run(rows, "--clean-caption", "--workers", "2", columns="text")[0] == alone


def test_dry_run_counts_everything_and_writes_nothing(sora, tmp_path):
    work = tmp_path / "work"
    pl.DataFrame({"path": [f"{n}" for n in range(100_000)], "num_frames": range(100_000)}).write_csv(work / "a.csv")
    options = ("data", "filter", "a.csv", "--fmin", "10", "--shuffle", "--head", "5")
    finished = sora(*options, "--dry-run", "--json")
    steps = json.loads(finished.out)["steps"]
    assert [(step["step"], step["rows"], step["dropped"]) for step in steps] == [
        ("read", 100_000, None),
        ("--fmin 10", 99_990, 10),
        ("--shuffle", 99_990, 0),
        ("--head 5", 5, 99_985),
    ]
    assert [path.name for path in work.iterdir()] == ["a.csv"]
    shown = sora(*options, "--dry-run")
    assert re.search(r"99990 +10 +--fmin 10\n", shown.out)


def test_reading_stops_when_the_head_is_there(sora, tmp_path):
    pl.DataFrame({"path": [f"{n}" for n in range(300_000)], "num_frames": 1}).write_csv(tmp_path / "work" / "a.csv")
    finished = sora("data", "filter", "a.csv", "-o", "b.csv", "--fmin", "1", "--head", "5", "--json")
    assert [step["rows"] for step in json.loads(finished.out)["steps"]] == [None, None, 5]
    assert "--dry-run counts" in finished.err


def test_shards(sora, tmp_path):
    (tmp_path / "work" / "a.csv").write_text("path\n" + "".join(f"{n}\n" for n in range(7)))
    finished = sora("data", "filter", "a.csv", "-o", "out/b.csv.gz", "--shard", "3", "-q")
    assert finished.out.split() == ["out/b_0.csv.gz", "out/b_1.csv.gz", "out/b_2.csv.gz"]
    parts = [pl.read_csv(name)["path"].to_list() for name in finished.out.split()]
    assert parts == [[0, 1, 2], [3, 4], [5, 6]]
    assert len(list((tmp_path / "work" / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "it is not said where the result goes"),
        (("-o", "a.csv"), "a.csv exists already"),
        (("-o", "b.txt"), "no name of a table"),
        (("-o", "b.csv", "--aesmin", "5"), "--aesmin 5 needs the column aes"),
        (("-o", "b.csv", "--hwmax", "5"), "--hwmax 5 needs the column height"),
        (("-o", "b.csv", "--sort", "pth"), "did you mean 'path'"),
        (("-o", "b.csv", "--where", "size >"), "--where size >"),
        (("-o", "b.csv", "--where", "size > 3"), "CAST(my_column AS DOUBLE)"),
        (("-o", "b.csv", "--path-subset", "("), "no regular expression"),
        (("-o", "b.csv", "--score-to-text"), "needs the column text"),
        (("-o", "b.csv", "--difference", "no.csv"), "no table at no.csv"),
        (("-o", "b.csv", "--difference", "a.csv", "--on", "id"), "needs the column id"),
        (("-o", "b.csv", "--count-num-token", "no"), "there is no folder no"),
        (("-o", "b.csv", "--reference-name"), "both name the result"),
        (("--reference-name", "--train-column", "--overwrite"), "that of the input"),
        (("-o", "b.csv", "--fmin", "3"), "a.csv, line 3: num_frames is 'x', not a whole number"),
    ],
)
def test_mistakes(sora, tmp_path, options, message):
    table = tmp_path / "work" / "a.csv"
    table.write_text("path,num_frames,size\na.mp4,5,1\nb.mp4,x,2\n")
    before = table.read_bytes()
    finished = sora("data", "filter", "a.csv", *options)
    assert finished.code in (1, 2)
    assert message in finished.err
    assert table.read_bytes() == before
    assert [path.name for path in table.parent.iterdir()] == ["a.csv"]


def test_a_column_that_is_not_used_may_hold_anything(run):
    assert run("path,num_frames,aes\na,x,5\n", "--aesmin", "5")[0] == [{"path": "a", "num_frames": "x", "aes": "5.0"}]


def test_parquet_gets_numbers(sora, tmp_path):
    (tmp_path / "work" / "a.csv").write_text("path,num_frames,aes,mine\na,5.0,NA,x\n")
    assert sora("data", "filter", "a.csv", "-o", "b.parquet").code == 0
    assert pl.read_parquet("b.parquet").rows() == [("a", 5, None, "x")]
    assert pl.read_parquet_schema("b.parquet")["num_frames"] == pl.Int64


def test_nothing_left(sora, tmp_path):
    (tmp_path / "work" / "a.csv").write_text("path,num_frames\na,5\n")
    finished = sora("data", "filter", "a.csv", "-o", "b.csv", "--fmin", "9")
    assert finished.code == 0
    assert "no row is left" in finished.err
    assert (tmp_path / "work" / "b.csv").read_text() == "path,num_frames\n"


def test_tables_in_an_object_store(sora):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/filter-test/a.csv", b"path,num_frames\nx.mp4,5\ny.mp4,50\n")
    finished = sora("data", "filter", "memory://filter-test/a.csv", "-o", "memory://filter-test/b.csv", "--fmin", "9")
    assert finished.code == 0, finished.err
    assert store.cat("/filter-test/b.csv") == b"path,num_frames\ny.mp4,50\n"
    named = sora(
        "data", "filter", "memory://filter-test/a.csv", "--fmin", "9", "--shard", "2", "--reference-name", "-q"
    )
    assert named.out.split() == [f"memory:///filter-test/a_fmin9_{index}.csv" for index in range(2)]
    assert store.cat("/filter-test/a_fmin9_0.csv") == b"path,num_frames\ny.mp4,50\n"
    assert sora("data", "filter", "memory://filter-test/a.csv", "-o", "memory://filter-test/b.csv").code == 2
