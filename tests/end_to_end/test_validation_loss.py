"""`sora eval loss` for real: a training run is measured, stopped by Ctrl-C, and goes on."""

from __future__ import annotations

import json
import signal

from executable import Executable, stop_when


def test_a_training_run_is_measured_and_goes_on_after_a_stop(here: Executable) -> None:
    cpu = ("--device", "cpu", "--workers", "0", "--dtype", "fp32")
    here("scenes", "render", "--count", "4", "--frames", "10", "--size", "144x256", "-o", "clips")
    shape = ("--size", "144x256", "--frames", "5", "--batch-size", "1", "--steps", "1", "--run", "run")
    here("train", "-m", "nano", "--data", "clips/clips.csv", *shape, *cpu)
    buckets = [word for frames in (3, 5, 7, 9) for word in ("--bucket", f"144p:{frames}:2")]
    measure = ("eval", "loss", "clips/clips.csv", *buckets, "--timesteps", "3", *cpu, "-o")
    here(*measure, "whole.json", "--weights", "run")
    part = here.folder / "stopped.json.part"
    stopped = stop_when(here, part.exists, signal.SIGINT, *measure, "stopped.json", "--weights", "run")
    assert stopped.returncode == 130
    known = len(json.loads(part.read_text())["buckets"])
    assert 1 <= known < 4
    assert not (here.folder / "stopped.json").exists()
    here(*measure, "stopped.json", "--weights", "run")
    here(*measure, "nano.json", "-m", "nano")
    whole, again, nano = (
        json.loads((here.folder / f"{name}.json").read_text()) for name in ("whole", "stopped", "nano")
    )
    assert again == whole
    assert whole["settings"]["model"]["weights"] != nano["settings"]["model"]["weights"]
    assert whole["table"] != nano["table"]
