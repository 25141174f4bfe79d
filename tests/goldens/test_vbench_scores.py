"""Golden topic `vbench_scores`: from raw values to percentages, and what is refused."""

from __future__ import annotations

import json

import pytest
from loader import cases, read

from sora_cli.errors import SoraError
from sora_cli.evaluation.vbench_report import run_report
from sora_cli.evaluation.vbench_results import INFO, RESULTS, read_results
from sora_cli.evaluation.vbench_scores import LEADERBOARD, aggregates

TOPIC = "vbench_scores"


def of_kind(is_error: bool):
    return [
        each for each in cases(TOPIC, "cases") if not each.values[0] or is_error == ("files_delta" in each.values[0])
    ]


def write_files(folder, raw):
    folder.mkdir(exist_ok=True)
    for dimension, value in raw.items():
        info = [{"prompt_en": "p", "dimension": [dimension], "video_list": ["p-0.mp4"]}]
        (folder / f"{dimension}{INFO}").write_text(json.dumps(info))
        (folder / f"{dimension}{RESULTS}").write_text(json.dumps({dimension: [value, []]}))


@pytest.mark.parametrize("case", of_kind(False))
def test_tabulation(case, tmp_path):
    folder = tmp_path / "results"
    if "files" in case:
        folder.mkdir()
        for name, content in case["files"].items():
            (folder / name).write_text(json.dumps(content))
    else:
        write_files(folder, case["raw"])
    run_report(folder, case["kind"], reference_files=tmp_path)
    texts = (tmp_path / "all_results.json").read_text()
    assert json.loads(texts) == case["expected_all_results"]
    assert texts == json.dumps(case["expected_all_results"], indent=4, sort_keys=True)
    assert json.loads((tmp_path / "scaled_results.json").read_text()) == case["expected_scaled_results"]
    raw = {dimension: result.value for dimension, result in read_results(folder, case["kind"]).items()}
    assert raw == case["raw"]
    assert aggregates(case["kind"], raw, LEADERBOARD) == pytest.approx(case["official_unrounded"], abs=1e-9)
    for name, percent in case.get("published_percent", {}).items():
        assert 100 * case["official_unrounded"][name] == pytest.approx(percent, abs=0.0151)


def change(folder, delta):
    """What the error cases do to complete files, by their words."""
    words = delta.split()
    if words[0] == "remove":
        dimension = words[1].removesuffix(RESULTS).removesuffix(INFO)
        (folder / f"{dimension}{INFO}").unlink()
        if RESULTS in words[1]:
            (folder / f"{dimension}{RESULTS}").unlink()
    elif words[0] == "add":
        write_files(folder, {"foo_bar": 0.5})
    else:
        assert delta.endswith("video_list is empty")
        info = json.loads((folder / words[0]).read_text())
        info[0]["video_list"] = []
        (folder / words[0]).write_text(json.dumps(info))


@pytest.mark.parametrize("case", of_kind(True))
def test_what_is_refused(case, tmp_path):
    kind, delta = case["kind"], case["files_delta"]
    raw = next(each["raw"] for each in read(TOPIC, "cases")["cases"] if each["kind"] == kind and "raw" in each)
    write_files(tmp_path / "results", raw)
    run_report(tmp_path / "results", kind, reference_files=tmp_path)
    change(tmp_path / "results", delta)
    with pytest.raises(SoraError) as refused:
        run_report(tmp_path / "results", kind, reference_files=tmp_path / "more")
    assert refused.value.exit_code != 0
    named = (
        "foo_bar"
        if "foo_bar" in delta
        else "16 files of results but 15"
        if "only" in delta
        else delta.split("_")[0].split()[-1]
    )
    assert named in refused.value.message
    assert not (tmp_path / "more").exists()
