"""STDiT3 split over processes gives what one process gives, also where positions do not divide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDENS = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "stdit3"
WORKER = Path(__file__).parents[1] / "support" / "sequence_worker.py"


@pytest.mark.parametrize("processes", [2, 4])
def test_golden_cases_on_several_processes(processes: int) -> None:
    if not GOLDENS.is_dir():
        pytest.skip(f"golden topic 'stdit3' is not in {GOLDENS.parent}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, str(WORKER), str(GOLDENS)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    worst = json.loads(done.stdout.splitlines()[-1])
    assert set(worst) == {"base", "x_mask", "sizes", "backward", "sp2_padded", "gradients"}
    assert max(worst.values()) < 1e-4, worst
