"""How long `sora --help` takes, against a bare Typer app with two commands, alternating in the same run.

    python benchmarks/startup.py [--runs 15] [--json FILE]

Prints a table and, with --json, writes the same numbers. The target is a ratio of at most 1.4. Times are medians of
whole processes in seconds; the ratio is the median of the ratios of neighbouring runs, so that a change of load during
the run cancels out. The last column is the same ratio of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

TARGET = 1.4

BARE = '''
import typer

app = typer.Typer()


@app.command()
def first(name: str, count: int = 1) -> None:
    """The first command."""


@app.command()
def second(name: str, loud: bool = False) -> None:
    """The second command."""


app()
'''


class Cost(NamedTuple):
    """What one process took: seconds on the clock, and on the processor (waiting for other programs left out)."""

    wall: float
    cpu: float


def cost(command: list[str]) -> Cost:
    """Run one process; its output is read but not kept."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    return Cost(wall, sum(after[2:4]) - sum(before[2:4]))


def measure(runs: int) -> dict[str, object]:
    """Medians and ratios; each command runs once before, so that files are in the cache of the system."""
    with tempfile.TemporaryDirectory() as folder:
        bare_app = Path(folder, "bare.py")
        bare_app.write_text(BARE)
        bare_command = [sys.executable, str(bare_app), "--help"]
        commands = {
            "sora --help": [sys.executable, "-m", "sora_cli", "--help"],
            "sora presets list": [sys.executable, "-m", "sora_cli", "presets", "list"],
            "sora plugins list": [sys.executable, "-m", "sora_cli", "plugins", "list"],
        }
        for command in [bare_command, *commands.values()]:
            cost(command)
        rows = []
        for name, command in commands.items():
            pairs = [(cost(bare_command), cost(command)) for _ in range(runs)]
            rows.append(
                {
                    "command": name,
                    "seconds": round(statistics.median(ours.wall for _, ours in pairs), 3),
                    "bare_seconds": round(statistics.median(bare.wall for bare, _ in pairs), 3),
                    "ratio": round(statistics.median(ours.wall / bare.wall for bare, ours in pairs), 2),
                    "cpu_ratio": round(statistics.median(ours.cpu / bare.cpu for bare, ours in pairs), 2),
                }
            )
    return {
        "runs": runs,
        "target_ratio": TARGET,
        "python": platform.python_version(),
        "typer": version("typer"),
        "machine": f"{platform.machine()} {platform.system()}",
        "rows": rows,
    }


def main() -> int:
    """Print the table; exit code 1 when `sora --help` misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.runs)
    rows = result["rows"]
    assert isinstance(rows, list)
    print(f"{'command':<20}  {'seconds':>8}  {'bare app':>8}  {'ratio':>6}  {'cpu ratio':>9}")
    for row in rows:
        print(
            f"{row['command']:<20}  {row['seconds']:>8.3f}  {row['bare_seconds']:>8.3f}  {row['ratio']:>6.2f}"
            f"  {row['cpu_ratio']:>9.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if rows[0]["ratio"] <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
