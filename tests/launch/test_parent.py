"""Workers end with the process they work for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["loader", "files", "values"])
def test_no_worker_outlives_a_killed_process(kind: str) -> None:
    script = Path(__file__).with_name("parent_of_workers.py")
    process = subprocess.Popen([sys.executable, script, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.kill()
    # The worker has the other end of this pipe, which is at its end when the worker is.
    assert process.communicate(timeout=60)[0] in ("", "waiting\n")
