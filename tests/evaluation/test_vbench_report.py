"""`sora eval vbench report`: folders and zip files of results, complete and not."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sora_cli.evaluation.vbench_results import INFO, RESULTS, SCORED
from sora_cli.evaluation.vbench_scores import RANGES
from sora_cli.video.settings import HASH_KEY


def write(folder: Path, dimension: str, value: float, videos: list[list[str]], **scored) -> None:
    """Results of prompts p0, p1 and so on, with these clips each."""
    folder.mkdir(exist_ok=True)
    entries = [
        {"prompt_en": f"p{number}", "dimension": [dimension], "video_list": each} for number, each in enumerate(videos)
    ]
    details = [{"video_path": video, "video_results": value} for each in videos for video in each]
    (folder / f"{dimension}{INFO}").write_text(json.dumps(entries))
    (folder / f"{dimension}{RESULTS}").write_text(json.dumps({dimension: [value, details]}))
    if scored:
        (folder / f"{dimension}{SCORED}").write_text(json.dumps(scored))


def report(sora, *arguments, suite="vbench"):
    finished = sora("eval", suite, "report", *map(str, arguments))
    assert finished.code == 0, finished.err
    return finished.out


def document(sora, *arguments, suite="vbench"):
    return json.loads(report(sora, *arguments, "--json", suite=suite))


@pytest.fixture
def partial() -> Path:
    """One dimension of two prompts, with a clip missing."""
    folder = Path("results")
    clips = [[f"clips/p0-{k}.mp4" for k in range(5)], [f"clips/p1-{k}.mp4" for k in (0, 1, 2, 4)]]
    about = {"back_end": "native", "version": "sora 1", "mode": "standard", "aggregation": "one process"}
    write(folder, "color", 0.81456, clips, **about, unreadable=["clips/p1-3.mp4"])
    return folder


def test_partial_results(partial, sora):
    found = document(sora, partial)
    [color] = found["dimensions"]
    assert color["raw"] == color["normalised"] == 0.81456
    assert (color["videos"], color["expected_videos"]) == (9, 425)
    assert (color["prompts"], color["expected_prompts"]) == (2, 85)
    assert color["samples_per_prompt"] == {"4": 1, "5": 1}
    assert color["missing_videos"] == ["p1-3"]
    assert color["scored_by"]["aggregation"] == "one process"
    assert found["missing_dimensions"] == [name for name in RANGES["t2v"] if name != "color"]
    assert all(value is None for scores in found["scores"].values() for value in scores.values())
    text = report(sora, partial)
    assert "| color     | 0.8146 |     81.46% |      1 | semantic | 9 of 425 | 2 of 85 |  4 to 5 |" in text
    assert "| total    |                      - |                       - |" in text
    assert "Not scored: subject_consistency," in text
    assert "- color: p1-3\n" in text
    assert "- color: unreadable: p1-3.mp4" in text
    assert "- native sora 1, standard mode, one process: all" in text


def test_a_group_that_is_complete_has_a_score(partial, sora):
    for dimension in list(RANGES["t2v"])[:7]:
        write(partial, dimension, 1.0, [["a/p0-0.mp4"]])
    scores = document(sora, partial)["scores"]["reference"]
    assert scores["total"] is None
    assert scores["semantic"] is None
    assert scores["quality"] == pytest.approx((6.5 + (1 - 0.706) / (0.9975 - 0.706) - 1) / 6.5)
    assert "- not kept: " in report(sora, partial)


def test_how_the_clips_were_made(partial, sora):
    Path("clips").mkdir()
    for number in range(2):
        for sample in range(5):
            settings = {
                HASH_KEY: "x",
                "prompt": f"p{number}",
                "text": f"p{number} aesthetic score: 6.5.",
                "seed": 10 * number + sample,
                "model": {"name": "toy", "weights": "abc123"},
                "scheduler": {"name": "rflow", "steps": 30 + number, "guidance": 7.0},
                "shape": {"height": 240, "width": 426, "num_frames": 51, "fps": 24.0},
            }
            Path(f"clips/p{number}-{sample}.mp4").write_bytes(b"")
            Path(f"clips/p{number}-{sample}.mp4.json").write_text(json.dumps(settings))
    text = report(sora, partial)
    for line in (
        "Clips: 9, of them 9 with settings of sora",
        "- model: toy",
        "- weights: model abc123",
        "- height: 240",
        "- num_frames: 51",
        "- steps: 30 (5 clips); 31 (4 clips)",
        "- seeds: 0 to 14, 9 different ones in 9 clips",
        "- prompts rewritten by a language model: none",
        "- added to prompts: 'aesthetic score: 6.5.'",
    ):
        assert line in text.splitlines(), text
    Path("clips").rename("elsewhere")
    assert "9 are not here" in report(sora, partial)
    found = document(sora, partial, "--videos", "elsewhere")["clips"]
    assert found["absent"] == []
    assert found["clips"]["elsewhere/p1-4.mp4"]["seed"] == 14


def test_a_zip_file_for_the_leaderboard(partial, sora):
    with zipfile.ZipFile("results.zip", "w") as archive:
        for path in partial.iterdir():
            if SCORED not in path.name:
                archive.write(path, f"my model/{path.name}")
        archive.writestr("__MACOSX/my model/._color_eval_results.json", b"\0")
    [color] = document(sora, "results.zip")["dimensions"]
    assert (color["raw"], color["videos"], color["scored_by"]) == (0.81456, 9, None)


def test_results_without_their_info_file(partial, sora):
    (partial / f"color{INFO}").unlink()
    [color] = document(sora, partial)["dimensions"]
    assert (color["videos"], color["prompts"]) == (9, None)


def complete(suite: str, value: float = 0.5) -> Path:
    folder = Path(f"all-{suite}")
    for dimension in RANGES[suite]:
        write(folder, dimension, value, [["a/p0-0.mp4"]])
    return folder


def test_both_ways_of_i2v_are_labelled(sora):
    text = report(sora, complete("i2v"), suite="vbench-i2v")
    assert "i2v (leaderboard only)" in text
    assert "quality (reference only)" in text
    assert "cannot be compared" in text
    scores = document(sora, "all-i2v", suite="vbench-i2v")["scores"]
    assert scores["reference"]["total"] != scores["leaderboard"]["total"]


def test_published_models_beside_it(sora):
    text = report(sora, complete("t2v"), "--compare")
    row = next(line for line in text.splitlines() if line.startswith("| total score"))
    assert {"75.91%", "79.23%"} <= set(row.replace("|", " ").split())
    assert "Open-Sora V1.2 (2s)" in text


def test_published_rows_are_those_of_plugins(sora, monkeypatch):
    monkeypatch.setenv("SORA_PLUGINS", "")
    refused = sora("eval", "vbench", "report", str(complete("t2v")), "--compare")
    assert refused.code == 3
    assert "no published scores" in refused.err


def test_files(partial, sora):
    assert report(sora, partial, "-o", "a/report.md") == "a/report.md\n"
    assert Path("a/report.md").read_text().startswith("# VBench t2v: results\n\n| dimension")
    report(sora, partial, "-o", "report.json")
    assert json.loads(Path("report.json").read_text()) == document(sora, partial)
    assert sora("eval", "vbench", "report", str(partial), "-o", "report.txt").code == 2
    refused = sora("eval", "vbench", "report", str(partial), "-o", "report.json")
    assert refused.code == 2
    assert "report.json is there already" in refused.err
    assert report(sora, partial, "-o", "report.json", "--overwrite") == "report.json\n"
    refused = sora("eval", "vbench", "report", str(partial), "--reference-files", "tables")
    assert refused.code == 1
    assert "subject_consistency" in refused.err
    assert not Path("tables").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (f"scene{RESULTS}", "{", "cannot read"),
        (f"scene{RESULTS}", "[]", "not as VBench writes it"),
        (f"scene{RESULTS}", '{"scene": []}', "no number"),
        (f"scene{RESULTS}", '{"scene": [NaN, []]}', "no number"),
        (f"scene{RESULTS}", '{"colour": [0.5, []]}', "did you mean 'color'"),
        (f"scene{RESULTS}", '{"camera_motion": [0.5, []]}', "sora eval vbench-i2v report"),
        (f"again{RESULTS}", '{"color": [0.5, []]}', "two values of color"),
        (f"color{INFO}", '[{"prompt_en": "a"}]', "no prompt_en or dimension"),
    ],
)
def test_damaged_results(partial, sora, name, content, words):
    (partial / name).write_text(content)
    refused = sora("eval", "vbench", "report", str(partial))
    assert refused.code == 1
    assert words in refused.err


def test_what_holds_no_results(sora):
    Path("empty").mkdir()
    Path("file").write_text("x")
    for place, words in (("empty", "holds no"), ("absent", "there is no"), ("file", "neither a folder nor a zip")):
        refused = sora("eval", "vbench", "report", place)
        assert refused.code == 2
        assert words in refused.err


def test_a_report_imports_no_torch(partial):
    probe = (
        "import sys; from sora_cli.__main__ import main; code = main(['eval', 'vbench', 'report', 'results']); "
        "print(code, sorted({'torch', 'av', 'polars', 'transformers'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "0 []", ended.stderr
