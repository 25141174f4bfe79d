"""How long a full-size checkpoint takes to load into main memory, and how much memory that takes.

    python benchmarks/loading.py [--json FILE]

Random weights of STDiT3-XL/2 (1.2 billion) are written once per number format to a temporary folder and loaded in a
process of its own. peak: most resident memory beyond that before loading, as a ratio to the size of the file. Reading
back what was just written comes from the system's cache, so times are without the disk.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

WAYS = (("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16"))
#: The goal for loading our own models.
TARGET = 1.15


def resident(what: str) -> int:
    """Resident memory of this process in bytes: "VmRSS" now, "VmHWM" the most so far (Linux).

    getrusage would count what the parent had when it started this process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def write(file: Path, dtype: torch.dtype) -> None:
    """A checkpoint with the names and shapes of STDiT3-XL/2."""
    from safetensors.torch import save_file

    from sora_plugins.stdit.stdit3 import build

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build({}).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}, file)


def load_one(file: Path, dtype: torch.dtype) -> None:
    """Load, touch every weight once, and print what it took."""
    from sora_cli.weights.load import load_network
    from sora_cli.weights.locate import locate_weights
    from sora_plugins.stdit.stdit3 import build

    weights = locate_weights(None, what="the network", override=str(file))
    assert weights is not None
    before, start = resident("VmRSS"), time.perf_counter()
    network = load_network(lambda: build({}), weights, what="the network", device=torch.device("cpu"), dtype=dtype)
    seconds = time.perf_counter() - start
    sum(float(parameter.sum()) for parameter in network.parameters())
    print(json.dumps({"seconds": round(seconds, 2), "peak_bytes": resident("VmHWM") - before}))


def measure() -> list[dict[str, object]]:
    """A row for each way."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for stored, wanted in WAYS:
            file = Path(folder, f"{stored}.safetensors")
            if not file.exists():
                for other in Path(folder).iterdir():
                    other.unlink()
                write(file, getattr(torch, stored))
            command = [sys.executable, __file__, "--load", str(file), "--dtype", wanted]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = file.stat().st_size
            ratio = round(done["peak_bytes"] / size, 2)
            rows.append({"file": stored, "as": wanted, "gib": round(size / 2**30, 2), **done, "peak_ratio": ratio})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load_one(arguments.load, getattr(torch, arguments.dtype))
        return
    rows = measure()
    print(f"{platform.machine()} {platform.system()}, torch {torch.__version__}, goal {TARGET}")
    for row in rows:
        print(
            f"{row['file']:>9} -> {row['as']:<9} {row['gib']:>6} GiB  {row['seconds']:>6} s  peak {row['peak_ratio']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "target": TARGET, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
