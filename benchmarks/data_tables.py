"""How long `sora data filter` takes on a large table, and how much memory.

    python benchmarks/data_tables.py [--rows N] [--folder FOLDER] [--json FILE]

A made-up table with the columns of a scored and captioned set is written in pieces, as CSV and as Parquet. Each chain
of operations runs in a process of its own; memory is the most that it had resident, with Python and polars (about 0.2
GB). Chains marked * need the whole table in memory by their nature: sorting and shuffling. 10 million rows take 2.4 GB
of disk for the CSV table and as much again for a result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

ROWS_AT_ONCE = 250_000
LIMITS = ["--fmin", "32", "--fpsmax", "60", "--hwmax", "2073600", "--aesmin", "4.5", "--flowmin", "0.5"]
CHAINS = {
    "limits on numbers": [*LIMITS, "--remove-empty-caption", "--remove-url", "--vid-only"],
    "without double paths and captions": ["--remove-path-duplication", "--remove-text-duplication"],
    "without the rows of another table": ["--difference", "OTHER"],
    "captions of another table": ["--update-text", "OTHER"],
    "camera motion, openings, scores to text": ["--merge-cmotion", "--refine-llm-caption", "--score-to-text"],
    "an SQL expression": ["--where", "aes > 5 AND (flow > 2 OR text LIKE '%red%')"],
    "first million": ["--fmin", "32", "--head", "1000000"],
    "sorted by score *": ["--sort", "aes"],
    "shuffled *": ["--shuffle"],
}
WORDS = (
    *("red", "blue", "small", "old", "bright", "quiet", "dog", "boat", "house", "street"),
    *("river", "tree", "train", "child", "bird", "market", "hill", "bridge"),
)
MOTIONS = np.array(["static", "pan_left", "pan_right", "zoom_in", "zoom_out", "tilt_up", "tilt_down"])


def piece(start: int, count: int) -> pl.DataFrame:
    """Rows `start` and on. Some paths and captions were there before, some captions are missing."""
    rng = np.random.default_rng(start)
    number = np.arange(start, start + count)
    number = np.where(rng.random(count) < 0.01, rng.integers(0, start + 1, count), number)
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (count, 12))]
    texts = pl.DataFrame(words).select(pl.concat_str(pl.all(), separator=" ")).to_series()
    same = pl.Series(np.where(rng.random(count) < 0.02, "a man talks", ""))
    high, wide = np.array([[360, 640], [720, 1280], [1080, 1920], [2160, 3840]])[rng.integers(0, 4, count)].T
    digits = pl.Series(number).cast(pl.String)
    frame = pl.DataFrame(
        {
            "path": "/data/clips/"
            + digits.str.slice(-3)
            + "/video_"
            + digits
            + "_scene-"
            + digits.str.slice(-1)
            + ".mp4",
            "text": "The video shows a " + texts + same,
            "num_frames": rng.integers(1, 400, count),
            "height": high,
            "width": wide,
            "aspect_ratio": high / wide,
            "fps": rng.choice([23.976, 24.0, 25.0, 29.97, 30.0, 59.94, 120.0], count),
            "resolution": high * wide,
            "aes": rng.normal(5, 0.7, count).round(4),
            "flow": rng.exponential(3, count).round(4),
            "match": rng.normal(22, 4, count).round(4),
            "cmotion": MOTIONS[rng.integers(0, len(MOTIONS), count)],
        }
    )
    is_same = same != ""
    text = pl.when(is_same).then(same).when(pl.Series(rng.random(count) >= 1 / 30)).then(pl.col("text"))
    return frame.with_columns(text.alias("text"))


def write_tables(folder: Path, rows: int) -> None:
    """table.csv, table.parquet, and other.csv with every tenth row."""
    with (folder / "table.csv").open("wb") as table, (folder / "other.csv").open("wb") as other:
        for start in range(0, rows, ROWS_AT_ONCE):
            part = piece(start, min(ROWS_AT_ONCE, rows - start))
            part.write_csv(table, include_header=start == 0)
            part.gather_every(10).select("path", "text").write_csv(other, include_header=start == 0)
    numbers = dict.fromkeys(("aspect_ratio", "fps", "aes", "flow", "match"), pl.Float64)
    pl.scan_csv(folder / "table.csv", schema_overrides=numbers).sink_parquet(folder / "table.parquet")


def run_one(source: Path, output: Path, chain: list[str]) -> None:
    """Filter in this process, and print what it took."""
    from sora_cli.__main__ import main

    start = time.perf_counter()
    code = main(["data", "filter", str(source), "-o", str(output), "-q", "--workers", "1", *chain])
    seconds = time.perf_counter() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"code": code, "seconds": seconds, "peak_gb": int(peak.split()[1]) * 1024 / 1e9}))


def measure(folder: Path, name: str, source: str, target: str) -> dict[str, object]:
    """One chain from one kind of table to another."""
    output = folder / f"result.{target}"
    chain = [str(folder / "other.csv") if word == "OTHER" else word for word in CHAINS[name]]
    command = [sys.executable, __file__, "--one", str(folder / f"table.{source}"), str(output), json.dumps(chain)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    took = json.loads(finished.stdout.splitlines()[-1])
    if took.pop("code"):
        raise SystemExit(finished.stderr)
    size = output.stat().st_size / 1e9
    output.unlink()
    return {"chain": name, "from": source, "to": target, **took, "result_gb": size}


def main() -> None:
    """Write the tables, measure every chain, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the table")
    parser.add_argument("--folder", type=Path, help="where the tables are written; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(Path(arguments.one[0]), Path(arguments.one[1]), json.loads(arguments.one[2]))
        return
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_tables(folder, arguments.rows)
        sizes = {kind: (folder / f"table.{kind}").stat().st_size / 1e9 for kind in ("csv", "parquet")}
        print(f"{arguments.rows} rows, CSV {sizes['csv']:.2f} GB, Parquet {sizes['parquet']:.2f} GB")
        print(f"{'chain':42} {'from':8} {'to':8} {'seconds':>8} {'peak GB':>8}")
        for chain in CHAINS:
            for source, target in (("csv", "csv"), ("parquet", "parquet")):
                row = measure(folder, chain, source, target)
                results.append(row)
                print(f"{chain:42} {source:8} {target:8} {row['seconds']:8.1f} {row['peak_gb']:8.2f}", flush=True)
    if arguments.json:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "polars": pl.__version__}
        document = {"machine": machine, "rows": arguments.rows, "tables_gb": sizes, "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
