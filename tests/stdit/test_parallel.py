"""A network split over processes gives what one process gives, also where positions do not divide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDENS = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve()
WORKER = Path(__file__).parents[1] / "support" / "sequence_worker.py"


CASES = {"base", "x_mask", "backward", "gradients"}


@pytest.mark.parametrize(
    ("topic", "processes", "cases"),
    [
        ("stdit1", 2, CASES),
        ("stdit2", 2, {*CASES, "sizes"}),
        ("stdit3", 2, {*CASES, "sizes", "sp2_padded"}),
        ("stdit3", 4, {*CASES, "sizes", "sp2_padded"}),
    ],
)
def test_golden_cases_on_several_processes(topic: str, processes: int, cases: set[str]) -> None:
    if not (GOLDENS / topic).is_dir():
        pytest.skip(f"golden topic {topic!r} is not in {GOLDENS}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, str(WORKER), str(GOLDENS / topic)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    worst = json.loads(done.stdout.splitlines()[-1])
    assert set(worst) == cases
    assert max(worst.values()) < 1e-4, worst
