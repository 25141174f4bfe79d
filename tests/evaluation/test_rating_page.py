"""The page on which people rate clips: what it shows and hides, the key, and votes that come back from it."""

from __future__ import annotations

import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sora_cli.errors import UsageError
from sora_cli.evaluation.rating_page import QUESTIONS, criteria_of, page_text, write_page
from sora_cli.evaluation.votes import Vote, last_votes, read_key, read_votes, summary
from sora_cli.video.io import write_image, write_video
from sora_cli.video.settings import find_settings

NASTY = 'a </script><b>"cat" & dog</b> {{data}} é'


def settings(model: str, prompt: str = NASTY):
    return {"settings_hash": "0" * 64, "model": {"name": model}, "prompt": prompt, "seed": 7}


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same two pictures and a video, and one more in the second."""
    generator = np.random.default_rng(0)
    for model in ("fox-model", "hen-model"):
        folder = tmp_path / model
        folder.mkdir()
        for name in ("a.png", "b.png"):
            write_image(folder / name, generator.integers(0, 255, (8, 8, 3), dtype=np.uint8), settings(model))
        frames = generator.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
        write_video(folder / "c.mp4", [frames], 8, settings(model))
    write_image(tmp_path / "hen-model" / "d.png", np.zeros((8, 8, 3), np.uint8), settings("hen-model"))
    return tmp_path / "fox-model", tmp_path / "hen-model"


def write(folders, output: Path, **options):
    given = {"criteria": criteria_of(()), "prompts": {}, "title": "Which <one>?", "seed": 1, **options}
    return write_page(folders, output, **given)


def data_of(output: Path):
    text = (output / "page" / "index.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


class Checker(html.parser.HTMLParser):
    """Notes elements that are not closed in order, and addresses of things that are loaded."""

    VOID = ("meta", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.loaded += [found[name] for name in ("src", "href") if name in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(clips, tmp_path: Path) -> None:
    write(clips, tmp_path / "rating")
    text = (tmp_path / "rating" / "page" / "index.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == checker.loaded == []
    assert len(checker.ids) == len(set(checker.ids))
    assert "http" not in text.partition("<body>")[0] + text.partition('id="data">')[0]
    assert set(re.findall(r'\$\("(\w+)"\)', text)) <= {*checker.ids, "A", "B"}


def test_prompts_and_titles_are_text(clips, tmp_path: Path) -> None:
    write(clips, tmp_path / "rating")
    text = (tmp_path / "rating" / "page" / "index.html").read_text()
    assert text.count("</script>") == 2
    assert "Which &lt;one&gt;?" in text
    assert "Which <one>" not in text
    assert {pair["prompt"] for pair in data_of(tmp_path / "rating")["pairs"]} == {NASTY}
    assert json.loads(page_text("x", {"a": "</b>"}).partition('id="data">')[2].partition("</script>")[0]) == {
        "a": "</b>"
    }


def test_the_page_does_not_say_what_made_the_clips(clips, tmp_path: Path) -> None:
    from PIL import Image

    write(clips, tmp_path / "rating")
    page = tmp_path / "rating" / "page"
    files = [path for path in page.rglob("*") if path.is_file()]
    assert len(files) == 1 + 6
    for path in files:
        assert b"model" not in path.read_bytes()
        assert find_settings(path) is None
        assert "a.png" not in path.read_text(errors="replace")
    key = json.loads((tmp_path / "rating" / "key.json").read_text())
    assert {pair["name"] for pair in key["pairs"].values()} == {"a.png", "b.png", "c.mp4"}
    for pair in data_of(tmp_path / "rating")["pairs"]:
        secret = key["pairs"][pair["id"]]
        original = tmp_path / secret["left"] / secret["name"]
        copy = page / pair["A"]
        assert copy.suffix == original.suffix
        if pair["is_image"]:
            assert Image.open(io.BytesIO(copy.read_bytes())).tobytes() == Image.open(original).tobytes()
        else:
            assert len(copy.read_bytes()) == len(original.read_bytes())
            assert frames_of(copy) == frames_of(original)


def frames_of(path: Path) -> list[bytes]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def test_questions_are_those_that_fit_the_clip(clips, tmp_path: Path) -> None:
    for folder in clips:
        write_image(folder / "e.png", np.zeros((8, 8, 3), np.uint8), settings("x", ""))
    write(clips, tmp_path / "rating", prompts={"a.png": "another text"})
    pairs = data_of(tmp_path / "rating")["pairs"]
    by_questions = sorted(pair["criteria"] for pair in pairs)
    assert by_questions == [
        ["overall", "quality"],
        ["overall", "quality", "motion", "text"],
        ["overall", "quality", "text"],
        ["overall", "quality", "text"],
    ]
    assert "another text" not in [pair["prompt"] for pair in pairs], "the file says what it was made from"


def test_clips_without_settings_take_the_given_prompt(tmp_path: Path) -> None:
    for model in ("one", "two"):
        (tmp_path / model / "sub").mkdir(parents=True)
        (tmp_path / model / "sub" / "x.gif").write_bytes(b"GIF89a " + model.encode())
    key = write([tmp_path / "one", tmp_path / "two"], tmp_path / "rating", prompts={"sub/x.gif": "a fox"})
    (pair,) = data_of(tmp_path / "rating")["pairs"]
    assert (pair["prompt"], pair["is_image"]) == ("a fox", True)
    assert key["models"]["one"]["provenance"]["unknown"] == [str(tmp_path / "one" / "sub" / "x.gif")]


def test_sides_and_order_are_those_of_the_seed(tmp_path: Path) -> None:
    for model in ("one", "two", "three"):
        (tmp_path / model).mkdir()
        for number in range(40):
            (tmp_path / model / f"{number}.png").write_bytes(f"{model}{number}".encode())
    folders = [tmp_path / model for model in ("one", "two", "three")]
    first, again = (write(folders, tmp_path / name)["pairs"] for name in ("p", "q"))
    assert first == again
    assert first != write(folders, tmp_path / "r", seed=2)["pairs"]
    assert len(first) == 3 * 40
    left = [pair["left"] for pair in first.values() if {pair["left"], pair["right"]} == {"one", "two"}]
    assert 10 < left.count("one") < 30
    assert [int(pair["name"][:-4]) for pair in first.values()] != sorted(int(p["name"][:-4]) for p in first.values())
    assert len(write(folders, tmp_path / "s", limit=7)["pairs"]) == 7
    assert len(list((tmp_path / "s" / "page" / "clips").iterdir())) <= 14


def test_labels_tell_folders_apart(tmp_path: Path) -> None:
    folders = [tmp_path / model / "clips" for model in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(b"x")
    assert list(write(folders, tmp_path / "rating")["models"]) == ["one/clips", "two/clips"]


@pytest.mark.parametrize(
    ("folders", "words"),
    [(["one"], "two folders or more"), (["one", "one"], "two folders or more"), (["one", "no"], "no folder")],
)
def test_folders_that_make_no_page(folders, words: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(UsageError, match=words):
        write([tmp_path / name for name in folders], tmp_path / "rating")
    assert not (tmp_path / "rating").exists()


def test_folders_without_common_names_make_no_page(clips, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no clip is in two of fox-model, empty"):
        write([clips[0], tmp_path / "empty"], tmp_path / "rating")


def test_what_is_there_is_kept(clips, tmp_path: Path) -> None:
    (tmp_path / "rating").mkdir()
    (tmp_path / "rating" / "mine.txt").touch()
    with pytest.raises(UsageError, match="is there already"):
        write(clips, tmp_path / "rating")
    with pytest.raises(UsageError, match="nothing is left to ask"):
        write(clips, tmp_path / "other", criteria=criteria_of(["motion"]))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name not in ("home", "work")) == [
        *("fox-model", "hen-model", "rating")
    ]


def test_criteria() -> None:
    assert criteria_of(["text", "faces=Whose faces?"]) == {"text": QUESTIONS["text"], "faces": "Whose faces?"}
    for wrong in ("faces", "=x", "faces= "):
        with pytest.raises(UsageError, match="has no question"):
            criteria_of([wrong])


# -- votes -----------------------------------------------------------------------------------------------------------


def vote_file(path: Path, page: str, rater: str, votes) -> Path:
    rows = [dict(zip(("pair", "criterion", "choice", "time"), vote, strict=True)) for vote in votes]
    path.write_text(json.dumps({"page": page, "rater": rater, "votes": rows}))
    return path


def choice_for(pair, model: str) -> str:
    return "A" if pair["left"] == model else "B"


def test_votes_are_summed_up_by_model(clips, tmp_path: Path) -> None:
    key_content = write(clips, tmp_path / "rating")
    key = read_key(tmp_path / "rating")
    pairs = key_content["pairs"]
    ann = [(token, "overall", choice_for(pair, "fox-model"), "2") for token, pair in pairs.items()]
    changed = (ann[0][0], "overall", "bad", "1")
    bob = [(token, "overall", choice_for(pair, "hen-model"), "1") for token, pair in list(pairs.items())[:1]]
    bob.append((list(pairs)[1], "overall", "tie", "1"))
    files = [
        vote_file(tmp_path / "ann.json", key.page, "ann", [changed, *ann]),
        vote_file(tmp_path / "bob.json", key.page, "bob", bob),
    ]
    votes, replaced = last_votes([vote for path in [*files, files[0]] for vote in read_votes(path, key)])
    assert (len(votes), replaced) == (5, 1)
    found = summary(votes, key, samples=50, seed=0)
    assert list(found["criteria"]) == ["overall"]
    overall = found["criteria"]["overall"]
    assert overall["pairs"] == [{"a": "fox-model", "b": "hen-model", "a_better": 3, "b_better": 1, "tie": 1, "bad": 0}]
    fox, hen = overall["models"]
    assert (fox["model"], fox["score"], fox["votes"]) == ("fox-model", 0.7, 5)
    assert fox["strength"] - hen["strength"] == pytest.approx(np.log(3.5 / 1.5), abs=2e-4)
    assert fox["low"] <= fox["elo"] <= fox["high"]
    assert overall["notes"] == []
    assert [rater["agreement"] for rater in found["raters"]] == [0, 0]
    assert found["models"]["fox-model"]["provenance"]["shared"]["seed"] == 7
    json.dumps(found, allow_nan=False)


def test_one_sided_votes_say_so(clips, tmp_path: Path) -> None:
    write(clips, tmp_path / "rating")
    key = read_key(tmp_path / "rating")
    votes = [
        Vote("ann", token, "text", choice_for(pair, "hen-model"), "")
        for token, pair in key.pairs.items()
        if pair["name"] == "a.png"
    ]
    found = summary(votes, key, samples=50, seed=0)["criteria"]["text"]
    assert "half a win was added" in found["notes"][0]
    assert "single clip" in found["notes"][1]
    assert found["models"][0]["low"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"page": "other"}, "of another page, 'other'"),
        ({"rater": " "}, "it has no rater"),
        ({"pair": "123"}, "the page has no pair '123'"),
        ({"criterion": "beauty"}, r"unknown criterion \(.*ann.json, vote 1\) 'beauty'"),
        ({"choice": "C"}, "unknown choice"),
        ({"choice": 1}, "holds no votes"),
    ],
)
def test_votes_that_are_not_of_the_page(change, words: str, clips, tmp_path: Path) -> None:
    key = write(clips, tmp_path / "rating")
    vote = {"page": key["page"], "rater": "ann", "pair": next(iter(key["pairs"])), "criterion": "overall"}
    vote |= {"choice": "A", "time": "1", **change}
    path = tmp_path / "ann.json"
    path.write_text(json.dumps({"page": vote.pop("page"), "rater": vote.pop("rater"), "votes": [vote]}))
    with pytest.raises(UsageError, match=words):
        read_votes(path, read_key(tmp_path / "rating"))


@pytest.mark.parametrize(("name", "text"), [("v.json", "{"), ("v.json", "[]"), ("v.csv", "page,rater\nx,y\n")])
def test_files_that_hold_no_votes(name: str, text: str, clips, tmp_path: Path) -> None:
    write(clips, tmp_path / "rating")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="holds no votes"):
        read_votes(tmp_path / name, read_key(tmp_path / "rating"))


def test_a_folder_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no key of a rating page"):
        read_key(tmp_path)


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the script of the page")
def test_what_the_page_saves_is_read(clips, tmp_path: Path) -> None:
    write(clips, tmp_path / "rating")
    text = (tmp_path / "rating" / "page" / "index.html").read_text()
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    data = data_of(tmp_path / "rating")
    pair = data["pairs"][0]["id"]
    said = {pair: {"overall": {"choice": "B", "time": "2"}, "quality": {"choice": "tie", "time": "3"}}}
    for kind in ("json", "csv"):
        values = ", ".join(json.dumps(value) for value in (data, 'Ann, "1"', said))
        ran = subprocess.run(
            ["node", "-e", f"{script}\nprocess.stdout.write({kind}Of({values}))"], capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        (tmp_path / f"votes.{kind}").write_bytes(ran.stdout.encode())
        assert read_votes(tmp_path / f"votes.{kind}", read_key(tmp_path / "rating")) == [
            Vote('Ann, "1"', pair, "overall", "B", "2"),
            Vote('Ann, "1"', pair, "quality", "tie", "3"),
        ]
