"""How long the batch plan of an epoch takes for a table of many rows, and how much memory.

    python benchmarks/plan.py [--rows 10000000] [--json FILE]

Rows are synthetic: usual sizes and lengths, one picture in three rows; the buckets are those of a stage with three
resolutions, five lengths and chances everywhere.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from sora_cli.training.buckets import BucketTable
from sora_cli.training.plan import EpochPlan

LENGTHS = {1: [0.5, 64], 51: [0.5, 16], 102: [[0.5, 0.33], 8], 204: [[0.5, 0.1], 4], 408: [[0.5, 0.1], 2]}
BUCKETS = {"144p": LENGTHS, "256": LENGTHS, "240p": LENGTHS, "360p": LENGTHS, "480p": LENGTHS, "720p": LENGTHS}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    frames = generator.choice(np.array([1, 60, 120, 300, 500], np.int32), arguments.rows, p=[0.34, 0.2, 0.2, 0.2, 0.06])
    sizes = np.array([[240, 426], [360, 640], [640, 360], [720, 1280], [1080, 1920], [512, 512]], np.int32)
    chosen = sizes[generator.integers(0, len(sizes), arguments.rows)]
    table = BucketTable(BUCKETS)
    start = time.perf_counter()
    assigned = table.assign(frames, chosen[:, 0], chosen[:, 1], seed=42, epoch=0)
    between = time.perf_counter()
    plan = EpochPlan(table, assigned, seed=42, epoch=0)
    end = time.perf_counter()
    result = {
        "rows": arguments.rows,
        "assign_seconds": round(between - start, 2),
        "plan_seconds": round(end - between, 2),
        "micro_batches": len(plan),
        "dropped": assigned.dropped(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    for name, value in result.items():
        print(f"{name:<16} {value}")
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
