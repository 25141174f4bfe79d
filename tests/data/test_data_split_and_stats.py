"""`sora data split` and `sora data stats`."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from media import greys, picture, save_video
from PIL import Image

from sora_cli.data.splitting import source_of
from sora_cli.training.buckets import BucketTable

BUCKETS = {"144p": {1: [1.0, 8], 17: [[0.5, 0.3], 4], 49: [0.2, 2]}, "240p": {1: [0.3, 8], 17: [0.0, None]}}


def recipe(folder):
    text = "data:\n  bucket_config:\n"
    for resolution, entries in BUCKETS.items():
        text += f"    {resolution}:\n" + "".join(f"      {n}: {json.dumps(entry)}\n" for n, entry in entries.items())
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


def clips(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.array([[144, 256], [256, 144], [240, 426], [100, 100]])[rng.integers(0, 4, count)]
    frames = rng.choice([1, 20, 60], count)
    return pl.DataFrame(
        {"path": [f"{n}.mp4" for n in range(count)], "num_frames": frames, "height": sizes[:, 0], "width": sizes[:, 1]}
    )


def test_a_balanced_set(sora, tmp_path):
    work = tmp_path / "work"
    clips(600).with_columns(pl.lit("007").alias("note")).write_csv(work / "a.csv")
    finished = sora("data", "split", "a.csv", "-o", "b.csv", "--config", recipe(work), "--limit", "9", "--json")
    assert finished.code == 0, finished.err
    document = json.loads(finished.out)
    kept = pl.read_csv(work / "b.csv", infer_schema=False)
    assert kept["note"].unique().to_list() == ["007"]
    assert document["rows"] == len(kept) == sum(part["kept"] for part in document["parts"])
    assert {part["kept"] for part in document["parts"]} == {9}
    # The first nine of each bucket, in order; every chance above zero is certain.
    certain = {"144p": {1: [1.0, 1], 17: [[1.0, 1.0], 1], 49: [1.0, 1]}, "240p": {1: [1.0, 1], 17: [0.0, None]}}
    columns = clips(600)
    sizes = [columns[name].to_numpy() for name in ("num_frames", "height", "width")]
    found = BucketTable(certain).assign(*sizes, seed=1, epoch=1)
    seen, wanted = {}, []
    for row, (pair, aspect) in enumerate(zip(found.pair, found.aspect, strict=True)):
        seen[pair, aspect] = seen.get((pair, aspect), 0) + 1
        if pair >= 0 and seen[pair, aspect] <= 9:
            wanted.append(f"{row}.mp4")
    assert kept["path"].to_list() == wanted
    assert "fit no bucket" in finished.err


def test_parts_share_no_video(sora, tmp_path):
    work = tmp_path / "work"
    paths = [f"v{video}_scene-{scene}.mp4" for scene in range(5) for video in range(2000)]
    pl.DataFrame({"path": paths, "text": ["x"] * len(paths)}).write_csv(work / "a.csv")
    finished = sora("data", "split", "a.csv", "-o", "parts", "--val", "0.1", "--test", "0.05", "--json")
    assert finished.code == 0, finished.err
    parts = {name: pl.read_csv(work / "parts" / f"{name}.csv")["path"].to_list() for name in ("train", "val", "test")}
    assert sorted(path for found in parts.values() for path in found) == sorted(paths)
    videos = {name: {source_of(path) for path in found} for name, found in parts.items()}
    assert not videos["train"] & videos["val"]
    assert not videos["train"] & videos["test"]
    assert not videos["val"] & videos["test"]
    # Five standard errors of 2000 draws.
    assert len(videos["val"]) / 2000 == pytest.approx(0.1, abs=0.034)
    assert len(videos["test"]) / 2000 == pytest.approx(0.05, abs=0.025)
    assert parts["val"] == [path for path in paths if path in set(parts["val"])]
    # A video stays in its part when others come or go.
    pl.DataFrame({"path": paths[::-7]}).write_csv(work / "b.csv")
    sora("data", "split", "b.csv", "-o", "less", "--val", "0.1", "--test", "0.05")
    assert set(pl.read_csv(work / "less" / "val.csv")["path"]) == set(paths[::-7]) & set(parts["val"])


def test_parts_by_a_column(sora, tmp_path):
    work = tmp_path / "work"
    rows = [{"path": f"{n}.mp4", "source": f"s{n % 50}", "show": f"t{n % 7}"} for n in range(500)]
    pl.DataFrame(rows).write_parquet(work / "a.parquet")
    for options, column in (((), "source"), (("--by", "show"), "show")):
        finished = sora("data", "split", "a.parquet", "-o", column, "--val", "0.3", "--format", "parquet", *options)
        assert finished.code == 0, finished.err
        train, val = (set(pl.read_parquet(work / column / f"{part}.parquet")[column]) for part in ("train", "val"))
        assert train
        assert not train & val


def test_rows_that_do_not_say_their_source(sora, tmp_path):
    work = tmp_path / "work"
    rows = [{"path": f"v{n // 2}_scene-{n % 2}.mp4", "source": f"s{n // 2}" if n < 400 else None} for n in range(800)]
    pl.DataFrame(rows).write_csv(work / "a.csv")
    finished = sora("data", "split", "a.csv", "-o", "parts", "--val", "0.5")
    assert finished.code == 0, finished.err
    assert "start from" in finished.err
    train, val = (
        {
            source_of(path)
            for path in pl.read_csv(work / "parts" / f"{part}.csv").filter(pl.col("source").is_null())["path"]
        }
        for part in ("train", "val")
    )
    assert min(len(train), len(val)) > 50
    assert not train & val


def test_a_table_is_not_split_onto_itself(sora, tmp_path):
    work = tmp_path / "work"
    table = "path\n" + "".join(f"v{n}.mp4\n" for n in range(40))
    (work / "train.csv").write_text(table)
    finished = sora("data", "split", "train.csv", "-o", ".", "--val", "0.5", "--overwrite")
    assert (finished.code, "would replace a table" in finished.err) == (2, True)
    assert (work / "train.csv").read_text() == table
    assert not (work / "val.csv").exists()


def test_names_of_sources():
    assert source_of("/x/a.b_scene-12.mp4") == source_of("/x/a.b_scene-3.mkv") == "/x/a.b"
    assert source_of("/x/a_scene-1-0.mp4") == "/x/a"
    assert source_of("/x/a_scene-1/b.mp4") == "/x/a_scene-1/b"
    assert source_of("") == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "not said how to split"),
        (("--val", "1.5"), "between 0 and 1"),
        (("--val", "0.5", "--test", "0.5"), "leave something"),
        (("--val", "0.5", "--preset", "nano"), "give one kind"),
        (("--val", "0.5", "--by", "source"), "needs the column source"),
        (("--preset", "nano"), "needs the column num_frames"),
    ],
)
def test_mistakes_in_splitting(sora, tmp_path, options, message):
    (tmp_path / "work" / "a.csv").write_text("path\na.mp4\n")
    output = "o.csv" if "nano" in options else "o"
    finished = sora("data", "split", "a.csv", "-o", output, *options)
    assert finished.code == 2
    assert message in finished.err
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["a.csv"]


@pytest.fixture
def scored(tmp_path):
    work = tmp_path / "work"
    for number in range(20):
        save_video(work / f"v{number}.mp4", greys(3, step=10 + number))
    (work / "p.png").write_bytes(picture("red"))
    rows = "path,text,num_frames,height,width,fps,aes,flow,sharpness,cmotion,objects,note\n"
    for number in range(20):
        name = "broken<b>.mp4" if number == 19 else f"v{number}.mp4"
        rows += f'{name},A Dog runs,48,360,640,24,{number / 4},,{number}e1,pan_left+static,"dog, tree",n{number}\n'
    rows += "p.png,,1,96,128,,9,,,static,NONE_FOUND,x\nlost.mp4,one cat,10,,,,,,,,cat,y\n"
    (work / "a.csv").write_text(rows)
    return work


def test_numbers_of_a_table(sora, scored):
    document = json.loads(sora("data", "stats", "a.csv", "--json", "--preset", "nano").out)
    assert document["rows"] == 22
    images, videos = document["images"], document["videos"]
    assert (images["rows"], videos["rows"], videos["frames"]) == (1, 21, 970)
    assert videos["hours"] == pytest.approx(20 * 2 / 3600, abs=1e-4)
    assert videos["rows_without_rate"] == 1
    aes = videos["numbers"]["aes"]
    assert (aes["count"], aes["min"], aes["50%"], aes["max"]) == (20, 0, 2.375, 4.75)
    assert videos["numbers"]["sharpness"]["max"] == 190
    assert videos["numbers"]["words"] == pytest.approx(
        {"count": 21, "mean": 62 / 21, **dict.fromkeys(("5%", "25%", "50%", "75%", "95%", "99%", "max"), 3)}
        | {"min": 2, "1%": 2.2}
    )
    assert set(videos["numbers"]) == {
        *("num_frames", "height", "width", "fps", "aes", "sharpness", "words", "duration"),
    }
    assert "num_frames" not in images["numbers"]
    assert document["missing"]["flow"] == 22
    assert document["missing"]["text"] == 1
    assert document["camera_motion"] == {"pan_left": 20, "static": 20}
    assert document["words"] == {"dog": 20, "runs": 20, "one": 1, "cat": 1}
    assert document["tags"] == {"objects": {"dog": 20, "tree": 20, "cat": 1}}
    assert document["buckets"] == [{"resolution": "144p", "frames": 17, "aspect": "0.56", "rows": 20}]
    shown = sora("data", "stats", "a.csv").out
    assert re.search(r"^aes +20 +2.375 +0 ", shown, re.MULTILINE)
    assert re.search(r"^pan_left +20$", shown, re.MULTILINE)


def test_report(sora, scored):
    pytest.importorskip("pebble", reason="needs the extra data")
    finished = sora("data", "stats", "a.csv", "--html", "r.html", "-q")
    assert finished.code == 0, finished.err
    assert finished.out == "r.html\n"
    text = (scored / "r.html").read_text()
    assert text.count("<svg") >= 10
    # Highest and lowest of aes and sharpness: eight each, without the one that cannot be read.
    assert text.count("data:image/jpeg;base64,") == 32 - 2
    assert "1 of 8 clips cannot be read here" in text
    assert "<b>" not in text
    assert not re.search(r"(?:src|href)=.?(?:https?:|//)", text)
    assert sora("data", "stats", "a.csv", "--html", "r.html").code == 2
    assert (scored / "r.html").read_text() == text


class Page(HTMLParser):
    """What a browser makes of a page, where every element is closed in its place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("script", "link", "iframe", "object")
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag == "path"  # in SVG, where it is allowed

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_report_of_odd_names_is_a_page_of_its_own(sora, tmp_path):
    pytest.importorskip("pebble", reason="needs the extra data")
    work = tmp_path / "work"
    names = ['a"onerror="x.mp4', "b<script>&amp;.png", "c'd\n e\x01.png", "ü 漢 %41 #?.png", "-o.mp4", "&lt;.png"]
    for name in names:
        if name.endswith("mp4"):
            save_video(work / name, greys(3))
        else:
            (work / name).write_bytes(picture("red"))
    frame = pl.DataFrame(
        {
            "path": [*names, "http://127.0.0.1:9/x.png"],
            "text": ["</style><script>alert(1)</script> dog"] * 7,
            "num_frames": [3 if name.endswith("mp4") else 1 for name in names] + [1],
            "a<b>es": [float(number) for number in range(7)],
            "cmotion": ["<i>pan_left"] * 7,
            "start": [float(number) for number in range(7)],
        }
    )
    frame.write_parquet(work / "<b>&.parquet")
    finished = sora("data", "stats", "<b>&.parquet", "--html", "r.html")
    assert finished.code == 0, finished.err
    page = Page((work / "r.html").read_text())
    pictures = [address.removeprefix("data:image/jpeg;base64,") for address in page.addresses]
    assert len(pictures) == 2 * len(names)
    for data in pictures:
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()
    words = "".join(page.words)
    for name in names:
        assert " ".join(name.replace("\x01", " ").split()) in words
    assert "highest a<b>es" in words
    assert "highest start" not in words  # which says where a clip is, not how good
    assert "<b>&.parquet" in words
    assert words.count("1 of 7 clips cannot be read here") == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_report_waits_for_no_clip_that_hangs(tmp_path):
    pytest.importorskip("pebble", reason="needs the extra data")
    from sora_cli.data.report import write_report
    from sora_cli.data.statistics import Statistics

    os.mkfifo(tmp_path / "a.mp4")  # whoever opens it waits for ever
    (tmp_path / "b.png").write_bytes(picture("red"))
    found = Statistics()
    found.best["aes"] = found.worst["aes"] = [(1.0, "a.mp4"), (2.0, "b.png")]
    write_report(found, tmp_path / "r.html", title="t", root=tmp_path, seconds=1.0)
    text = (tmp_path / "r.html").read_text()
    assert (text.count("base64,"), text.count("1 of 2 clips cannot be read here")) == (2, 2)


def test_statistics_of_an_empty_table(sora, tmp_path):
    (tmp_path / "work" / "a.csv").write_text("path,text,aes\n")
    finished = sora("data", "stats", "a.csv", "--html", "r.html", "--json")
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["rows"] == 0
