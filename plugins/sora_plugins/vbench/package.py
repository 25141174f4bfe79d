"""The back end that runs the package `vbench`, which needs packages of its own time, in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.evaluation.vbench_results import INFO, RESULTS, write_results
from sora_cli.evaluation.vbench_scoring import raise_failed
from sora_cli.evaluation.vbench_suite import I2V_ONLY, PACKAGE, PACKAGE_FILE, load_suite
from sora_cli.plugin.protocols import ScoringJob, ScoringSettings

DRIVER = Path(__file__).with_name("driver.py")
VARIABLE = "SORA_VBENCH_PYTHON"
PROBE_SECONDS = 180.0
LOG_LINES = 12
#: How the reference divides the dimensions of t2v among eight GPUs.
EIGHT = (
    ("subject_consistency", "imaging_quality"),
    ("background_consistency", "motion_smoothness", "overall_consistency", "human_action"),
    ("multiple_objects",),
    ("spatial_relationship",),
    ("object_class",),
    ("color",),
    ("aesthetic_quality", "appearance_style", "temporal_flickering"),
    ("scene", "temporal_style", "dynamic_degree"),
)
#: The same for i2v.
EIGHT_I2V = (
    ("i2v_subject", "i2v_background"),
    ("camera_motion",),
    ("subject_consistency", "background_consistency"),
    ("motion_smoothness",),
    ("dynamic_degree",),
    ("aesthetic_quality",),
    ("imaging_quality",),
    ("temporal_flickering",),
)
#: About how many minutes each takes on a GPU, as its authors noted for t2v; others count as 5.
MINUTES = {
    "subject_consistency": 4.0,
    "imaging_quality": 6.0,
    "background_consistency": 2.0,
    "motion_smoothness": 5.0,
    "overall_consistency": 2.0,
    "human_action": 3.0,
    "multiple_objects": 14.0,
    "spatial_relationship": 14.0,
    "object_class": 12.0,
    "color": 12.0,
    "aesthetic_quality": 2.5,
    "appearance_style": 6.0,
    "temporal_flickering": 2.0,
    "scene": 3.0,
    "temporal_style": 2.0,
    "dynamic_degree": 4.0,
}
DETECTED = ("object_class", "multiple_objects", "color", "spatial_relationship")
#: Dimension -> packages that it alone needs.
NEEDS = {
    **dict.fromkeys(DETECTED, ("detectron2",)),
    "i2v_subject": ("vbench2_beta_i2v",),
    "i2v_background": ("vbench2_beta_i2v", "dreamsim"),
    "camera_motion": ("vbench2_beta_i2v",),
}
MODES = {"standard": "vbench_standard", "custom": "custom_input"}
HOW = f"""make an environment for it, on a machine with an NVIDIA GPU and CUDA; its pins contradict sora's:
  python3.10 -m venv vbench-env
  vbench-env/bin/pip install torch==2.5.1 torchvision==0.20.1 'setuptools<81' vbench==0.1.5
for object_class, multiple_objects, color and spatial_relationship also
  vbench-env/bin/pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2
and give it with --vbench-python vbench-env/bin/python, or in {VARIABLE}
it downloads its networks to ~/.cache/vbench (or $VBENCH_CACHE_DIR) with wget when they are first needed"""


class Environment(NamedTuple):
    """An environment with VBench. gpus: how many it sees; missing: packages that are not there."""

    python: str
    version: str
    suite_file: Path
    gpus: int
    missing: tuple[str, ...]


def find_python(given: Path | None) -> str:
    """The Python that has VBench: the one given, that of the environment variable, or this one. Raises MissingError."""
    if given is None and (variable := os.environ.get(VARIABLE)):
        given = Path(variable)
    if given is not None:
        if not given.is_file():
            raise MissingError(f"there is no Python {given}", hint=HOW)
        return os.path.abspath(given)  # links stay: they tell which environment it is
    if find_spec(PACKAGE) is None:
        raise MissingError(f"the package {PACKAGE} is not installed", hint=HOW)
    return sys.executable


def environment_of(python: str, device: str | None = None) -> dict[str, str]:
    """The variables of a process: where our packages are is not for another Python. device: the GPU that it sees."""
    own = {} if python == sys.executable else dict.fromkeys(("PYTHONPATH", "PYTHONHOME"))
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return kept if device is None else {**kept, "CUDA_VISIBLE_DEVICES": device}


def probe(python: str) -> Environment:
    """What an environment has. Raises MissingError for one without VBench, SoraError for one that does not run."""
    try:
        ended = subprocess.run(
            [python, str(DRIVER), "--probe"],
            env=environment_of(python),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        found = json.loads(ended.stdout.splitlines()[-1]) if ended.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise SoraError(f"{python} cannot be asked what it has: {error}") from error
    if found is None:
        raise SoraError(f"{python} cannot be asked what it has", hint="\n".join(ended.stderr.splitlines()[-LOG_LINES:]))
    if found["folder"] is None:
        raise MissingError(f"{python} has no package {PACKAGE}", hint=HOW)
    suite = Path(found["folder"]) / PACKAGE_FILE
    return Environment(python, found["version"] or "unknown", suite, found["gpus"], tuple(found["missing"]))


class PackageBackend:
    """See the module."""

    def __init__(self, settings: ScoringSettings, environment: Environment) -> None:
        self.settings, self.environment = settings, environment
        self.suite_file = environment.suite_file if settings.suite == "t2v" else None
        if settings.weights:
            raise UsageError("vbench downloads its own networks", hint="leave --weights out, or use --backend native")
        if settings.device not in ("auto", "cuda"):
            raise UsageError(f"vbench needs CUDA, not --device {settings.device}")
        if environment.gpus == 0:
            raise MissingError(
                f"{environment.python} sees no CUDA device, without which VBench scores nothing", hint=HOW
            )
        if settings.gpus > environment.gpus:
            raise UsageError(f"{settings.gpus} GPUs asked for, and {environment.python} sees {environment.gpus}")

    def missing(self, dimension: str) -> MissingError | None:
        """See `protocols.ScoringBackend`."""
        some = {package for packages in NEEDS.values() for package in packages}
        wanted = NEEDS.get(dimension, ())
        absent = [name for name in self.environment.missing if name in wanted or name not in some]
        if absent:
            return MissingError(
                f"{dimension} needs {', '.join(absent)}, which {self.environment.python} lacks", hint=HOW
            )
        if dimension in I2V_ONLY and dimension != "camera_motion" and self.settings.images is None:
            return MissingError(f"{dimension} compares with the pictures of the suite", hint="give them with --images")
        return None

    def score(self, jobs: Sequence[ScoringJob]) -> None:
        """See `protocols.ScoringBackend`."""
        shards = divide(jobs, self.settings.gpus)
        devices = visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), len(shards))
        running = Running()
        failed: list[SoraError] = []
        with (
            get_console().progress(f"scoring {len(jobs)} dimensions", len(jobs)) as progress,
            ThreadPoolExecutor(len(shards)) as pool,
        ):
            try:
                futures = [
                    pool.submit(self._shard, shard, device, running, progress)
                    for shard, device in zip(shards, devices, strict=True)
                ]
                for future in as_completed(futures):
                    failed += future.result()
            except BaseException:
                running.end()
                raise
        raise_failed(failed, len(jobs))

    def _shard(
        self, jobs: Sequence[ScoringJob], device: str | None, running: Running, progress: Any
    ) -> list[SoraError]:
        """One after the other on one GPU; what failed."""
        failed = []
        for job in jobs:
            try:
                self._score(job, device, running)
            except SoraError as error:
                failed.append(error)
            progress.advance()
        return failed

    def _score(self, job: ScoringJob, device: str | None, running: Running) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        log = job.folder / f"{job.dimension}.log"
        with tempfile.TemporaryDirectory(prefix=f".{job.dimension}-", dir=job.folder) as name:
            folder = Path(name).absolute()
            clips = self._prepare(job, folder)
            argv = [self.environment.python, str(DRIVER), str(folder / "job.json")]
            env = environment_of(self.environment.python, device)
            with log.open("wb") as output:
                code = running.run(argv, cwd=folder, env=env, output=output)
            if code != 0:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                raise SoraError(
                    f"VBench failed on {job.dimension} (exit code {code}); all it said is in {log}",
                    hint="\n".join(lines),
                )
            results, entries = _read(folder, job.dimension, clips)
        about = {
            "back_end": "vbench",
            "version": self.environment.version,
            "mode": self.settings.mode,
            "aggregation": "one process",
            **({"resize": self.settings.resize} if job.dimension == "imaging_quality" else {}),
            **({"crop": job.crop} if job.dimension in I2V_ONLY else {}),
        }
        write_results(job.folder, job.dimension, results, entries, about)
        log.unlink()

    def _prepare(self, job: ScoringJob, folder: Path) -> dict[str, str]:
        """Make the folder that VBench works in; returns link -> clip.

        VBench takes the ending of the first file that it finds for that of all, so it gets a folder of links to the
        clips and nothing else. Pictures of i2v it looks for below the working folder.
        """
        videos, output = folder / "videos", folder / "output"
        videos.mkdir()
        output.mkdir()
        clips, prompts = {}, {}
        for entry in job.entries:
            for clip in entry["video_list"]:
                link = videos / Path(clip).name
                if str(link) not in clips:
                    link.symlink_to(Path(clip).absolute())
                    clips[str(link)] = clip
                prompts[link.name] = entry["prompt_en"]
        is_i2v = job.dimension in I2V_ONLY
        if is_i2v and self.settings.images is not None:
            crops = folder / "vbench2_beta_i2v" / "data" / "crop"
            crops.parent.mkdir(parents=True)
            crops.symlink_to(self.settings.images.absolute(), target_is_directory=True)
        suite = self.settings.suite_file or load_suite(self.settings.suite, self.suite_file).path
        description = {
            "is_i2v": is_i2v,
            "suite": str(suite.absolute()),
            "output": str(output),
            "videos": str(videos),
            "dimension": job.dimension,
            "mode": MODES[self.settings.mode],
            "prompts": prompts if self.settings.mode == "custom" else [],
            "resize": self.settings.resize,
            "crop": job.crop,
        }
        (folder / "job.json").write_text(json.dumps(description), encoding="utf-8")
        return clips


class Running:
    """The processes that run now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_ended = False

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Any) -> int:
        """Run to its end; its exit code."""
        with self._lock:
            if self._is_ended:
                raise SoraError("interrupted")
            # In a session of its own, with what it starts: an interrupt reaches us alone, who then end them all.
            process = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            self._processes.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._processes.discard(process)

    def end(self) -> None:
        """End all, and start no more."""
        with self._lock:
            self._is_ended = True
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def divide(jobs: Sequence[ScoringJob], gpus: int) -> list[list[ScoringJob]]:
    """Jobs by GPU: among eight as the reference does, else so that all take about as long. None is empty."""
    if gpus == 8:
        names = {job.dimension for job in jobs}
        split = EIGHT_I2V if names & set(I2V_ONLY) else EIGHT
        shards = [[job for job in jobs if job.dimension in shard] for shard in split]
    else:
        shards = [[] for _ in range(gpus)]
        load = [0.0] * gpus
        for job in sorted(jobs, key=lambda job: -MINUTES.get(job.dimension, 5.0)):
            place = load.index(min(load))
            shards[place].append(job)
            load[place] += MINUTES.get(job.dimension, 5.0)
    return [shard for shard in shards if shard]


def visible_devices(visible: str | None, count: int) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is for each of `count` processes; None leaves it as it is."""
    if count == 1:
        return [None]
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


def _read(folder: Path, dimension: str, clips: Mapping[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What VBench wrote, with the names of the clips instead of the links. Raises SoraError when it is not whole."""
    found = []
    for ending, kind in ((RESULTS, dict), (INFO, list)):
        path = folder / "output" / f"{dimension}{ending}"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SoraError(f"VBench ended well on {dimension}, but {path.name} is not readable: {error}") from error
        if not isinstance(content, kind):
            raise SoraError(f"VBench wrote something else than expected into {path.name}")
        found.append(_renamed(content, clips))
    results, entries = found
    value = results.get(dimension)
    if not isinstance(value, list) or not value or not isinstance(value[0], (int, float)):
        raise SoraError(f"VBench gave no value of {dimension}")
    return results, entries


def _renamed(content: Any, clips: Mapping[str, str]) -> Any:
    if isinstance(content, str):
        return clips.get(content, content)
    if isinstance(content, list):
        return [_renamed(each, clips) for each in content]
    if isinstance(content, dict):
        return {name: _renamed(each, clips) for name, each in content.items()}
    return content


def load(settings: ScoringSettings) -> PackageBackend:
    """The back end `vbench`."""
    return PackageBackend(settings, probe(find_python(settings.python)))
