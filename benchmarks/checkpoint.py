"""How long a checkpoint holds the training up, and how long it takes to be on the disk.

    python benchmarks/checkpoint.py [--gib 1] [--folder DIR] [--json FILE]

The first checkpoint makes the buffers; the figures are of the second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from sora_cli.training.checkpoint import Checkpointer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count = 64
    tensors = {f"block.{index}": torch.rand(int(arguments.gib * 2**28 / count)) for index in range(count)}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        saver = Checkpointer(Path(folder), keep=1)
        rows = []
        for step in range(3):
            start = time.perf_counter()
            saver.save(step, {"model": tensors}, {})
            stall = time.perf_counter() - start
            saver.wait()
            rows.append((stall, time.perf_counter() - start))
    stall, whole = rows[-1]
    result = {
        "gib": arguments.gib,
        "stall_seconds": round(stall, 3),
        "on_disk_seconds": round(whole, 3),
        "share": round(stall / whole, 3),
        "first_stall_seconds": round(rows[0][0], 3),
    }
    for name, value in result.items():
        print(f"{name:<20} {value}")
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
