"""`sora data run`: a plan from raw videos to a table, done once, gone on with, and mended when anything changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.config.files import read_yaml  # noqa: E402
from sora_cli.data.pipeline import make_steps  # noqa: E402
from sora_cli.errors import UsageError  # noqa: E402
from sora_cli.presets import list_presets  # noqa: E402
from sora_cli.video.io import write_video  # noqa: E402


def video(path, value, frames=48):
    """Noise that moves: told apart by hashes."""
    random = np.random.default_rng(value)
    base = random.integers(0, 255, (12, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(path, iter([np.stack([np.roll(base, step, 1) for step in range(frames)])]), 24.0)


@pytest.fixture
def films(tmp_path, monkeypatch):
    from pathlib import Path

    import sora_cli

    source = Path(sora_cli.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{source}:{source.parent / 'plugins'}")
    folder = tmp_path / "films"
    folder.mkdir()
    video(folder / "a.mp4", 1)
    video(folder / "b.mp4", 2)
    (folder / "broken.mp4").write_text("nothing")
    plan = "- index:\n- cut:\n    detector: table\n    min_seconds: 0\n- dedup:\n    bits: 4\n"
    (tmp_path / "plan.yaml").write_text(plan)
    return tmp_path


def run(capfd, folder, *arguments):
    code = main(
        [
            "data",
            "run",
            str(folder / "films"),
            "-o",
            str(folder / "out"),
            "--plan",
            str(folder / "plan.yaml"),
            *arguments,
        ]
    )
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_a_plan_is_done_once_and_mended(films, capfd):
    pytest.importorskip("imagehash", reason="needs the extra data")
    code, out, errors = run(capfd, films, "--json")
    assert code == 0, errors
    assert json.loads(out) == [{"path": str(films / "out/clips.csv"), "steps": ["index", "cut", "dedup"]}]
    table = pl.read_csv(films / "out/clips.csv")
    assert table["source_id"].to_list() == ["a", "b"]
    clips = {path: (films / "out/clips" / path).stat().st_mtime_ns for path in table["relpath"]}

    code, _, errors = run(capfd, films)
    assert errors.count("is done") == 3

    code, _, errors = run(capfd, films, "--retry-failed")
    assert code == 0, errors
    assert "2 of 3 rows are done already" in errors
    assert "broken.mp4" in errors
    assert "`sora data run --retry-failed` tries the rows that failed again" in errors
    assert "is done\n" not in errors  # what follows depends on the rows

    video(films / "films/c.mp4", 3)
    code, _, errors = run(capfd, films)
    assert code == 0, errors
    assert "2 of 3 rows are done already" in errors
    table = pl.read_csv(films / "out/clips.csv")
    assert table["source_id"].to_list() == ["a", "b", "c"]
    assert {path: (films / "out/clips" / path).stat().st_mtime_ns for path in clips} == clips

    video(films / "films/b.mp4", 4, frames=30)
    code, _, errors = run(capfd, films)
    assert code == 0, errors
    assert pl.read_csv(films / "out/clips.csv")["num_frames"].to_list() == [48, 30, 48]

    (films / "plan.yaml").write_text(
        (films / "plan.yaml").read_text().replace("min_seconds: 0", "min_seconds: 0\n    fps: 12")
    )
    code, _, errors = run(capfd, films)
    assert code == 0, errors
    assert pl.read_csv(films / "out/clips.csv")["num_frames"].to_list() == [24, 15, 24]


def test_a_table_that_was_edited_is_kept(films, capfd):
    pytest.importorskip("imagehash", reason="needs the extra data")
    assert run(capfd, films)[0] == 0
    edited = (films / "out/clips.csv").read_text() + "\n"
    (films / "out/clips.csv").write_text(edited)
    code, _, errors = run(capfd, films)
    assert code == 0, errors
    assert (films / "out/clips.before.csv").read_text() == edited
    again = edited + "\n"
    (films / "out/clips.csv").write_text(again)
    assert run(capfd, films)[0] == 0
    assert [(films / f"out/clips.before{n}.csv").read_text() for n in ("", 1)] == [edited, again]


def test_a_step_that_fails_says_so(films, capfd):
    for name in ("a", "b"):
        (films / f"films/{name}.mp4").write_text("nothing")
    code, _, errors = run(capfd, films)
    assert code == 1
    assert "of 3 rows none succeeded" in errors
    assert "step 1 of 3: index failed" in errors


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("- index:\n- cutt:\n", "did you mean 'cut'?"),
        ("- index:\n- cut:\n    detektor: fast\n", "did you mean 'detector'?"),
        ("- cut:\n", "a plan begins with index"),
        ("- index:\n- index:\n", "a plan begins with index"),
        ("- index: {fast: 3}\n", "neither true nor false"),
        ("index:\n", "a plan is a list of steps"),
        ("[]\n", "a plan is a list of steps"),
        ("- [index]\n", "a step is"),
    ],
)
def test_faults_of_plans(films, plan, message):
    (films / "plan.yaml").write_text(plan)
    with pytest.raises(UsageError) as caught:
        make_steps(read_yaml(films / "plan.yaml"), [str(films / "films")], films / "out", {})
    assert message in f"{caught.value.message}\n{caught.value.hint}"


def test_steps_that_write_files_have_folders(films):
    (films / "plan.yaml").write_text("- index:\n- cut:\n- interpolate:\n    doublings: 2\n")
    steps = make_steps(read_yaml(films / "plan.yaml"), [str(films / "films")], films / "out", {})
    folders = [step.arguments[step.arguments.index("--clips") + 1] for step in steps[1:]]
    assert folders == [str(films / "out/clips"), str(films / "out/interpolated")]


def test_plans_of_ours_can_be_run(films):
    for info in list_presets():
        if info.kind == "data":
            steps = make_steps(read_yaml(info.path), [str(films / "films")], films / "out", {"workers": 2})
            assert steps[0].name == "index"
            assert "--workers" in steps[0].arguments


def test_clips_elsewhere(films, capfd):
    pytest.importorskip("imagehash", reason="needs the extra data")
    pytest.importorskip("fsspec", reason="needs the extra cloud")
    store = f"file://{films / 'store'}"
    code, _, errors = run(capfd, films, "--clips", store)
    assert code == 0, errors
    paths = pl.read_csv(films / "out/clips.csv")["path"].to_list()
    assert paths == [f"{store}/clips/a_scene-0.mp4", f"{store}/clips/b_scene-0.mp4"]
    assert (films / "store/clips/a_scene-0.mp4").is_file()
    assert not (films / "out/clips").exists()
    # In another place they are other files, so they are not there yet.
    code, _, errors = run(capfd, films, "--clips", str(films / "third"))
    assert code == 0, errors
    assert errors.count("is done\n") == 1  # index
    assert (films / "third/clips/b_scene-0.mp4").is_file()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_its_processes_end_with_it(films, stop):
    """The one of the step, and those that look into files."""
    (films / "films/broken.mp4").unlink()
    os.mkfifo(films / "films/z.mp4")  # whoever opens it waits for ever
    arguments = ("films", "-o", "out", "--plan", "plan.yaml", "--workers", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "sora_cli", "data", "run", *arguments], stderr=subprocess.PIPE, text=True, cwd=films
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("looking into"):
            break
    process.send_signal(stop)
    # All of them have the other end of this pipe.
    process.communicate(timeout=60)
    assert process.returncode == (130 if stop is signal.SIGTERM else -stop)
    assert not (films / "out/clips.csv").exists()
