"""benchmarks/vae.py runs, and says what the modes promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "vae.py"
MODES = ["whole", "plain", "low", "tiled"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not BENCHMARK.is_file():
        pytest.skip("benchmarks/ is not part of an unpacked source distribution")
    command = [sys.executable, str(BENCHMARK), "--tiny", "--device", "cpu", "--dtype", "float32", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_a_row_for_each_mode_and_direction(tmp_path):
    done = run("--sizes", "64x80", "--frames", "17,20", "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["frames"], row["direction"], row["mode"]) for row in rows] == [
        (frames, direction, mode) for frames in (17, 20) for direction in ("encode", "decode") for mode in MODES
    ]
    for row in rows:
        assert row["frames_per_second"] > 0
        assert row["peak_mib"] > 0
    errors = {(row["frames"], row["direction"], row["mode"]): row.get("rms_error") for row in rows}
    for (_, _, mode), error in errors.items():
        if mode == "plain":
            assert error is None
        else:
            assert error is not None
            assert (error < 1e-4) == (mode != "tiled")
    peaks = {(row["frames"], row["mode"]): row["peak_mib"] for row in rows if row["direction"] == "decode"}
    assert peaks[17, "whole"] > 5 * peaks[17, "plain"]
    assert peaks[20, "plain"] == pytest.approx(peaks[17, "plain"], rel=0.01)
    assert len(done.stdout.splitlines()) == 1 + len(rows)


def test_unknown_modes():
    done = run("--modes", "plain,fast")
    assert done.returncode == 2
    assert "unknown modes fast; there are whole, plain, low, tiled" in done.stderr
