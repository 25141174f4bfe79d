"""Golden topic `data_filters`: the operations of `sora data filter` on small tables and tiny media."""

from __future__ import annotations

import csv
import math
import shutil

import pytest
from loader import cases, goldens_dir


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_same(found, wanted):
    try:
        return math.isclose(float(found), float(wanted), rel_tol=1e-9)
    except ValueError:
        return found == wanted


@pytest.mark.parametrize("case", cases("data_filters", "cases"))
def test_filter(case, sora, tmp_path, monkeypatch):
    if "--lang" in case["options"]:
        pytest.importorskip("py3langid", reason="needs the extra `data`")
    if {"--info", "--video-info"} & set(case["options"]):
        pytest.importorskip("pebble", reason="needs the extra `data`")
    folder = tmp_path / "goldens"
    shutil.copytree(goldens_dir() / "data_filters", folder)
    monkeypatch.chdir(folder)
    names = [output["reference_file_name"] for output in case["outputs"]]
    arguments = ["data", "filter", *case["inputs"], *case["options"], "--workers", "1"]
    if "--output" not in case["options"]:
        if "equals the input" in case.get("note", ""):
            before = (folder / case["inputs"][0]).read_bytes()
            refused = sora(*arguments, "--reference-name", "--overwrite")
            assert refused.code == 2
            assert names[0] in refused.err
            assert (folder / case["inputs"][0]).read_bytes() == before
            names = ["result.csv"]
            arguments += ["--output", names[0]]
        else:
            arguments.append("--reference-name")
    finished = sora(*arguments, "-q")
    assert finished.code == 0, finished.err
    assert finished.out.split() == names
    for name, output in zip(names, case["outputs"], strict=True):
        found, wanted = rows_of(folder / name), rows_of(folder / output["expected"])
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert set(one) == set(other)
            for column, cell in other.items():
                is_open = column == "fps" and "leave fps empty" in case.get("note", "")
                assert is_same(one[column], cell) or (is_open and not one[column]), (column, one[column], cell)
