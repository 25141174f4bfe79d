"""`sora eval human` from a plan to ratings, with the fake model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

PLAN = """
tasks:
  a:
    - {name: clip, prompts: [a fox, a hen], shape: {size: 16x16, frames: 2}}
    - {name: still, prompts: [a dog], shape: {size: 16x16, frames: 1}}
"""
CLIPS = ("clip_0000.mp4", "clip_0001.mp4", "still_0000.png")


@pytest.fixture
def plan(fake_plugin, tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(PLAN)
    return str(path)


def test_from_a_plan_to_ratings(plan: str, sora, tmp_path: Path) -> None:
    model = ("-m", "fake", "--threads", "1", "-q")
    made = sora("eval", "human", "sample", plan, "--steps", "1", "-o", str(tmp_path / "one"), *model)
    assert made.code == 0, made.err
    assert made.out.split() == [str(tmp_path / "one" / name) for name in CLIPS]
    written = sora("eval", "human", "plan", plan, "--seed", "5", "-o", str(tmp_path / "plan.json"), "-q")
    assert written.out == f"{tmp_path / 'plan.json'}\n"
    for shard in ("1/2", "2/2"):
        options = ("--steps", "2", "--shard", shard, "-o", str(tmp_path / "two"))
        assert sora("eval", "human", "sample", str(tmp_path / "plan.json"), *options, *model).code == 0
    again = sora("eval", "human", "sample", plan, "--steps", "1", "-o", str(tmp_path / "one"), "-m", "fake", "--json")
    assert [clip["status"] for clip in json.loads(again.out)] == ["skipped"] * 3

    page = sora("eval", "human", "page", str(tmp_path / "one"), str(tmp_path / "two"), "-o", "rating", "--json")
    assert page.code == 0, page.err
    assert json.loads(page.out)[0]["pairs"] == 3
    key = json.loads(Path("rating/key.json").read_text())
    votes = [
        {"pair": token, "criterion": "overall", "choice": "A" if pair["left"] == "two" else "B", "time": "1"}
        for token, pair in key["pairs"].items()
    ]
    Path("ann.json").write_text(json.dumps({"page": key["page"], "rater": "ann", "votes": votes}))
    found = sora("eval", "human", "votes", "rating", "ann.json", "--bootstrap", "20", "--json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document["criteria"]["overall"]["models"][0]["model"] == "two"
    assert document["models"]["two"]["provenance"]["shared"]["steps"] == 2
    assert document["models"]["two"]["provenance"]["shared"]["seed"] == 5
    names = sora("eval", "human", "votes", "rating", "ann.json", "--bootstrap", "0", "-q")
    assert names.out.split() == ["two", "one"], "from best to worst"
    shown = sora("eval", "human", "votes", "rating", "ann.json", "--bootstrap", "0")
    assert "overall, 3 clips" in shown.out
    assert "overall: some model won or lost against all others, so half a win was added" in shown.err
    assert "clips of one" in shown.out


def test_the_folder_has_the_name_of_the_model(plan: str, sora) -> None:
    made = sora("eval", "human", "sample", plan, "--steps", "1", "-m", "fake", "--threads", "1", "-q")
    assert made.code == 0, made.err
    assert made.out.split() == [f"outputs/samples_fake/{name}" for name in CLIPS]


def test_a_written_plan_is_settled(plan: str, sora) -> None:
    assert sora("eval", "human", "plan", plan, "-o", "plan.json").code == 0
    again = sora("eval", "human", "sample", "plan.json", "--task", "a", "-m", "fake")
    assert again.code == 2
    assert "settled in plan.json" in again.err
    assert sora("eval", "human", "plan", plan, "-o", "plan.json").code == 2, "it is kept"
    assert sora("eval", "human", "plan", plan, "-o", "plan.json", "--overwrite").code == 0


def test_the_list_of_batches(plan: str, sora) -> None:
    rows = json.loads(sora("eval", "human", "plan", plan, "--json").out)
    assert [(row["task"], row["name"], row["clips"]) for row in rows] == [("a", "clip", 2), ("a", "still", 1)]
    assert "size 16x16, frames 2" in sora("eval", "human", "plan", plan).out


def test_page_and_votes_need_no_torch(sora_process, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    Path("sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    env = {"PYTHONPATH": f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}"}
    made = sora_process("eval", "human", "page", str(tmp_path / "one"), str(tmp_path / "two"), "-o", "rating", env=env)
    assert made.code == 0, made.err
    key = json.loads(Path("rating/key.json").read_text())
    vote = {"pair": next(iter(key["pairs"])), "criterion": "overall", "choice": "tie", "time": "1"}
    Path("v.json").write_text(json.dumps({"page": key["page"], "rater": "ann", "votes": [vote]}))
    summed = sora_process("eval", "human", "votes", "rating", "v.json", env=env)
    assert summed.code == 0, summed.err


def test_a_length_for_videos_leaves_pictures_as_they_are(plan: str, sora) -> None:
    made = sora("eval", "human", "sample", plan, "--steps", "1", "--frames", "3", "-m", "fake", "-o", "clips", "-q")
    assert made.code == 0, made.err
    assert made.out.split() == [f"clips/{name}" for name in CLIPS]


def test_an_input_that_is_not_there(sora) -> None:
    refused = sora("eval", "human", "plan", "opensora", "--task", "2h", "-i", "refs/")
    assert refused.code == 2
    assert "there is no folder refs/" in refused.err
