"""Profiling some updates with torch.profiler, and the rates that a machine could reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sora_cli.console import get_console

#: Updates before the profile: they make buffers and choose kernels.
WARM_UP = 3
ROWS = 15
#: Dense bfloat16 rates of GPUs in TFLOP/s, from their makers' data sheets, by part of the name.
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "4090": 165.0}


class Profiling:
    """Profiles `count` updates after the first few; does nothing with 0. The trace is for chrome://tracing."""

    def __init__(self, folder: Path, count: int) -> None:
        self.path, self.count = folder / "profile.json", count
        self._profiler: Any = None
        self._done = 0

    def step(self) -> None:
        """After each update."""
        if self.count == 0:
            return
        self._done += 1
        if self._done == WARM_UP:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.__enter__()
        elif self._done == WARM_UP + self.count:
            self.close()

    def close(self) -> None:
        """Write what was measured."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        profiler.export_chrome_trace(str(self.path))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        get_console().note(profiler.key_averages().table(sort_by=order, row_limit=ROWS))
        get_console().note(f"profile of {min(self._done, WARM_UP + self.count) - WARM_UP} updates: {self.path}")


def peak_tflops(device: torch.device) -> float | None:
    """What a device could compute, None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
