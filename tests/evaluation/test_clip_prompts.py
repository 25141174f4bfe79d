"""The file of `--prompts`: every form says the same prompts, in every command that takes it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sora_cli.errors import UsageError
from sora_cli.evaluation.clip_prompts import read_clip_prompts
from sora_cli.evaluation.vbench_scoring import custom_entries
from sora_cli.video.io import write_image

PROMPTS = {"a.mp4": "a cat", "b.mp4": 'snow, "deep"'}
SAMPLES = [
    {"name": "a.mp4", "prompt": 'a cat{"aes": 6.5}', "seed": 1},
    {"name": "b.mp4", "prompt": PROMPTS["b.mp4"], "seed": 2},
]
FORMS = {
    "table.csv": 'path,text\na.mp4,a cat\nb.mp4,"snow, ""deep"""\n',
    "names.json": json.dumps(PROMPTS),
    "list.json": json.dumps(list(PROMPTS.values())),
    "objects.json": json.dumps([{"path": "x/a.mp4", "text": "a cat"}, {"name": "b.mp4", "prompt": PROMPTS["b.mp4"]}]),
    "plan.json": json.dumps({"about": {}, "samples": SAMPLES}),
    "lines.txt": 'a cat{"aes": 6.5}\nsnow, "deep"\n',
    "lines": 'a cat\nsnow, "deep"',
}


@pytest.fixture(params=FORMS)
def file(request, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(FORMS[request.param])
    return path


def test_every_form(file: Path, tmp_path: Path) -> None:
    assert read_clip_prompts(file, list(PROMPTS)) == PROMPTS
    whole = [str(tmp_path / name) for name in PROMPTS]
    assert read_clip_prompts(file, whole) == dict(zip(whole, PROMPTS.values(), strict=True))


def test_every_form_for_vbench(file: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in PROMPTS:
        (videos / name).touch()
    entries = custom_entries(SimpleNamespace(videos=videos, prompts=file, prompt=None))
    assert [entry["prompt_en"] for entry in entries] == list(PROMPTS.values())


def test_every_form_for_a_page(file: Path, tmp_path: Path, sora) -> None:
    import numpy as np

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in PROMPTS:
            write_image(tmp_path / folder / f"{name[0]}.png", np.zeros((8, 8, 3), np.uint8), {"settings_hash": "x"})
    text = file.read_text().replace(".mp4", ".png")
    file.write_text(text)
    arguments = ("eval", "human", "page", str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "page"))
    done = sora(*arguments, "--prompts", str(file))
    assert done.code == 0, done.err
    page = (tmp_path / "page" / "page" / "index.html").read_text()
    assert all(json.dumps(prompt) in page for prompt in PROMPTS.values())


def test_which_prompt_is_whose(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"x/a.mp4": "one", "y/a.mp4": "two", "y/b.mp4": "three"}))
    assert read_clip_prompts(file, ["y/a.mp4", "z/b.mp4", "z/a.mp4", "c.mp4"]) == {"y/a.mp4": "two", "z/b.mp4": "three"}
    file.write_text('["one", "", "three"]')
    assert read_clip_prompts(file, ["a", "b", "c"]) == {"a": "one", "c": "three"}
    with pytest.raises(UsageError, match="has 3 prompts without names, and there are 2 clips"):
        read_clip_prompts(file, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "entry 1 is not an object"),
        ('[{"name": "a"}]', "entry 1 needs path or name or video and text or prompt"),
        ('{"a": 1}', "'a': 1 is not text"),
        ("3", "neither names nor a list"),
        ("[", "cannot read the prompts"),
    ],
)
def test_what_holds_no_prompts(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=why):
        read_clip_prompts(file, ["a"])
