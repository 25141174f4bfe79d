"""`sora eval vbench score` with the back end `vbench`, against a stand-in of its environment."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_environment import make_environment

from sora_cli.plugin.protocols import ScoringJob
from sora_cli.video.io import write_video
from sora_plugins.vbench.package import Running, divide, visible_devices

PROMPT = """it's a "fox" $HOME; in a box"""
SUITE = [
    {"prompt_en": "a cat", "dimension": ["color", "motion_smoothness"]},
    {"prompt_en": PROMPT, "dimension": ["color", "imaging_quality"]},
]
I2V = [
    {"prompt_en": "a fox", "dimension": ["i2v_subject", "dynamic_degree"], "image_name": "fox.jpg"},
]


@pytest.fixture
def clips(isolated, monkeypatch):
    """Clips with what `sora generate` writes beside them, in the working folder."""
    folder = Path("clips")
    folder.mkdir()
    for number, prompt in enumerate(("a cat", PROMPT, "a fox")):
        for sample in range(2):
            (folder / f"{prompt}-{sample}.mp4").write_bytes(b"x" * (10 * number + sample + 1))
            (folder / f"{prompt}-{sample}.mp4.json").write_text("{}")
    (folder / ".hidden.gif").write_bytes(b"")
    monkeypatch.setenv("CALLS", os.path.abspath("calls.jsonl"))
    return folder


@pytest.fixture
def environment(tmp_path):
    return lambda **more: make_environment(tmp_path / "an environment", json.dumps(SUITE), **more)


def calls():
    return {call["dimension"]: call for call in map(json.loads, Path("calls.jsonl").read_text().splitlines())}


def score(sora, python, *more, suite="vbench"):
    return sora("eval", suite, "score", "clips", "--vbench-python", str(python), *more)


def test_files_and_arguments(clips, environment, sora):
    finished = score(sora, environment())
    assert finished.code == 0, finished.err
    folder = clips.absolute().with_name("clips_scores")
    assert len(finished.out.splitlines()) == 3
    value, details = json.loads((folder / "color_eval_results.json").read_text())["color"]
    assert [each["video_path"] for each in details] == [
        f"clips/{p}-{k}.mp4" for p in ("a cat", PROMPT) for k in range(2)
    ]
    assert value == pytest.approx((1 + 2 + 11 + 12) / 400)
    assert json.loads((folder / "imaging_quality_full_info.json").read_text()) == [
        {**SUITE[1], "video_list": [f"clips/{PROMPT}-{k}.mp4" for k in range(2)]}
    ]
    assert json.loads((folder / "color_scored_by.json").read_text()) == {
        "back_end": "vbench",
        "version": "0.1.5",
        "mode": "standard",
        "aggregation": "one process",
    }
    assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 9
    common = {"prompt_list": [], "local": False, "read_frame": False, "mode": "vbench_standard", "gpu": None}
    for dimension, call in calls().items():
        assert call["name"] == dimension
        assert call["imaging_quality_preprocessing_mode"] == "longer"
        # Only where torch would refuse VBench's own file.
        assert call["weights_only"] == (dimension != "motion_smoothness")
        assert common.items() <= call.items()
    again = score(sora, environment_python(folder))
    assert "already scored: imaging_quality, motion_smoothness, color" in again.err
    assert len(Path("calls.jsonl").read_text().splitlines()) == 3


def environment_python(folder):
    return folder.parent.parent / "an environment" / "bin" / "python"


def test_the_environment_can_be_named_by_a_variable(clips, environment, sora, monkeypatch):
    monkeypatch.setenv("SORA_VBENCH_PYTHON", str(environment()))
    finished = sora("eval", "vbench", "score", "clips", "--dimension", "color")
    assert finished.code == 0, finished.err
    assert list(calls()) == ["color"]


def test_what_failed_is_named_and_tried_again(clips, environment, sora, monkeypatch):
    python = environment()
    monkeypatch.setenv("BROKEN", "raises:color")
    failed = score(sora, python)
    assert failed.code == 1
    assert "1 of 3 dimensions failed" in failed.err
    assert "VBench failed on color (exit code 1)" in failed.err
    assert "CUDA error: out of memory" in failed.err
    folder = clips.with_name("clips_scores")
    assert "looking at color" in (folder / "color.log").read_text()
    assert (folder / "imaging_quality_eval_results.json").exists()
    monkeypatch.setenv("BROKEN", "silent:color")
    silent = score(sora, python)
    assert silent.code == 1
    assert "without writing" in silent.err
    monkeypatch.delenv("BROKEN")
    assert score(sora, python).code == 0
    assert not (folder / "color.log").exists()
    assert len(Path("calls.jsonl").read_text().splitlines()) == 5


def test_several_gpus(clips, environment, sora, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    finished = score(sora, environment(), "--gpus", "2")
    assert finished.code == 0, finished.err
    # The longest alone, the others together.
    assert {dimension: call["gpu"] for dimension, call in calls().items()} == {
        "color": "4",
        "imaging_quality": "5",
        "motion_smoothness": "5",
    }


def test_custom_mode(clips, environment, sora):
    finished = score(sora, environment(), "--mode", "custom", "--dimension", "motion_smoothness")
    assert finished.code == 0, finished.err
    call = calls()["motion_smoothness"]
    assert call["mode"] == "custom_input"
    assert call["prompt_list"]["a fox-1.mp4"] == "a fox"
    assert call["prompt_list"][f"{PROMPT}-0.mp4"] == PROMPT


def test_pictures_of_the_closest_crop(isolated, environment, sora, monkeypatch):
    monkeypatch.setenv("CALLS", os.path.abspath("calls.jsonl"))
    Path("clips").mkdir()
    write_video(Path("clips/a fox-0.mp4"), [np.zeros((2, 36, 64, 3), np.uint8)], 8)
    (Path("pictures") / "16-9").mkdir(parents=True)
    Path("pictures/16-9/fox.jpg").write_bytes(b"")
    Path("i2v.json").write_text(json.dumps(I2V))
    python = environment()
    alone = score(sora, python, "--suite", "i2v.json", suite="vbench-i2v")
    assert alone.code == 3
    assert "give them with --images" in alone.err
    finished = score(sora, python, "--suite", "i2v.json", "--images", "pictures", suite="vbench-i2v")
    assert finished.code == 0, finished.err
    assert calls()["i2v_subject"]["resolution"] == "16-9"
    assert "resolution" not in calls()["dynamic_degree"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"gpus": 0}, "sees no CUDA device"),
        ({"without": ("vbench",)}, "has no package vbench"),
        ({"without": ("decord",)}, "needs decord"),
        ({"without": ("detectron2",)}, "color needs detectron2"),
    ],
)
def test_what_an_environment_lacks(clips, environment, sora, more, words):
    Path("suite.json").write_text(json.dumps(SUITE))
    lacking = score(sora, environment(**more), "--suite", "suite.json")
    assert lacking.code == 3
    assert words in lacking.err
    assert "pip install torch==" in lacking.err
    scored = Path("clips_scores/imaging_quality_eval_results.json").exists()
    assert scored == ("detectron2" in more.get("without", ()))


def test_without_an_environment(clips, sora):
    absent = sora("eval", "vbench", "score", "clips", "--backend", "vbench")
    assert absent.code == 3
    assert "SORA_VBENCH_PYTHON" in absent.err
    assert score(sora, "no/python").code == 3
    Path("python").write_text("#!/bin/sh\necho broken >&2; exit 7\n")
    os.chmod("python", 0o755)
    broken = score(sora, "python")
    assert broken.code == 1
    assert "broken" in broken.err


def test_more_gpus_than_there_are(clips, environment, sora):
    refused = score(sora, environment(gpus=1), "--gpus", "2")
    assert refused.code == 2
    assert "sees 1" in refused.err


def test_an_interrupt_ends_what_runs(tmp_path):
    running, codes = Running(), []
    reading, writing = os.pipe()
    wait_for_signals = "import signal, sys; print(1, flush=True); signal.pause()"

    def run():
        codes.append(running.run([sys.executable, "-c", wait_for_signals], cwd=tmp_path, env={}, output=writing))

    thread = threading.Thread(target=run)
    thread.start()
    assert os.read(reading, 1)
    running.end()
    thread.join()
    assert codes == [-9]
    with pytest.raises(Exception, match="interrupted"):
        running.run([sys.executable], cwd=tmp_path, env={}, output=writing)


def test_eight_gpus_are_shared_as_in_the_reference():
    import sora_plugins.vbench.package as package

    names = [dimension for shard in package.EIGHT for dimension in shard]
    jobs = [ScoringJob(name, [], Path()) for name in names]
    assert [[job.dimension for job in shard] for shard in divide(jobs, 8)] == [list(shard) for shard in package.EIGHT]
    # Without the empty ones.
    assert len(divide(jobs[:3], 8)) == 2
    loads = [sum(package.MINUTES[job.dimension] for job in shard) for shard in divide(jobs, 4)]
    assert max(loads) - min(loads) < 3


def test_gpus_by_their_names():
    assert visible_devices(None, 1) == [None]
    assert visible_devices("3", 1) == [None]
    assert visible_devices("GPU-a, GPU-b,GPU-c", 2) == ["GPU-a", "GPU-b"]
    assert visible_devices(None, 3) == ["0", "1", "2"]
