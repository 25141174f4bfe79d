"""`sora train`: plan, then train in this process or in several, until done or told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.config.settings import resolved_table
from sora_cli.config.train_schema import TrainConfig
from sora_cli.console import counted, get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.launch.hosts import without_option
from sora_cli.launch.torchrun import follow_run, launch_line, machines
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.training.run_folder import RECORD, complete_checkpoints, step_of
from sora_cli.training.source import ClipSource

from .run_memory import DTYPE_BYTES
from .train_plan import RUN_KINDS, TABLE_CACHE, RunPlan, check_same_run, plan_of_process, process_content

if TYPE_CHECKING:
    from types import FrameType

    from sora_cli.config.vae_schema import VaeTrainConfig
    from sora_cli.launch.mesh import Team
    from sora_cli.plugin.manager import Plugins
    from sora_cli.training.loop import Stop

LOCK, WORKER_LOCK = "lock", "worker-lock"


def run(resolved: ResolvedTrain, *, dry_run: bool = False) -> None:
    """Train, and print the folder of the run when it is done or was stopped by SIGTERM.

    After Ctrl-C raises KeyboardInterrupt; in both cases the state is saved, and the same command goes on from it.
    """
    console, plugins = get_console(), get_plugins()
    check_optimizer(resolved.config)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="sora-") as place:
            show_dry_run(_plan(resolved, plugins, cache=Path(place) / "table", need_weights=False), resolved)
        return
    folder = resolved.config.run.folder
    assert folder is not None  # filled by the resolver
    node = machines(resolved.config.hardware).node_rank
    # One machine of several keeps others out, and each has a copy of the table of its own: they may share the folder.
    with _locked(folder) if node == 0 else contextlib.nullcontext():
        plan = _plan(resolved, plugins, cache=folder / node_cache(node))
        for note in plan.notes:
            console.note(note)
        console.note(f"{plan.name}, {counted(plan.num_rows, 'clip')}, run {plan.folder}")
        if _is_done(plan):
            reason = None
        elif launch_line(resolved, Path("run.json")) is None:
            reason = _train_here(plan, resolved.kind)
        else:
            reason = _train_in_processes(plan, resolved)
    if reason == "interrupted":
        raise KeyboardInterrupt
    if node != 0:
        return
    console.result(plan.folder, {"run": str(plan.folder), "stopped": reason is not None, **progress_of(plan.folder)})


def _is_done(plan: RunPlan) -> bool:
    """Whether the run in the folder is where it is to end already, which is said; no model is loaded for that.

    Raises SoraError for a run of other data or another model.
    """
    run = plan.config.run
    if run.steps is None or not run.resume or machines(plan.config.hardware).nnodes > 1:  # several start together
        return False
    found = complete_checkpoints(plan.folder)
    if not found or step_of(found[-1]) < run.steps:
        return False
    console, record = get_console(), json.loads((found[-1] / RECORD).read_text(encoding="utf-8"))
    for note in check_same_run(plan, record, plan.folder):
        console.note(note)
    console.note(f"already at update {step_of(found[-1])} of {run.steps}, nothing to do")
    return True


def check_optimizer(config: TrainConfig | VaeTrainConfig) -> None:
    """Raise UsageError for settings of the optimizer that the rest of the settings does not allow."""
    optimizer, hardware = config.optimizer, config.hardware
    if optimizer.schedule != "constant" and config.run.steps is None:
        raise UsageError(
            f"the learning rate falls towards the end ({optimizer.schedule}), and run.steps does not say where that is",
            hint="give --steps, or optimizer.schedule constant",
        )
    is_cut = hardware.sharding != "none" and hardware.gpus * machines(hardware).nnodes > 1
    if optimizer.name == "muon" and is_cut:
        raise UsageError(
            f"muon needs whole matrices, which --sharding {hardware.sharding} cuts over the processes",
            hint="use --sharding none, or optimizer.name adamw",
        )
    if optimizer.matrix_learning_rate is not None and optimizer.name != "muon":
        raise UsageError("optimizer.matrix_learning_rate is Muon's", hint="set optimizer.name to muon")


def _plan(resolved: ResolvedTrain, plugins: Plugins, **options: Any) -> RunPlan:
    kind = RUN_KINDS[resolved.kind]
    plan: RunPlan = load_attribute(kind.plan, what=kind.command)(resolved, plugins, **options)
    return plan


def node_cache(node: int) -> str:
    """The name of a machine's mapped copy of the table."""
    return TABLE_CACHE if node == 0 else f"{node}-{TABLE_CACHE}"


def _train_here(plan: RunPlan, kind: str) -> str | None:
    from sora_cli.launch.mesh import Team
    from sora_cli.training.loop import Stop

    stop = Stop()
    with _stop_on_signals(stop):
        train_share(plan, kind, Team(), stop)
    return stop.reason


def train_share(plan: RunPlan, kind: str, team: Team, stop: Stop) -> None:
    """Train on this process. kind: of RUN_KINDS."""
    import torch

    from sora_cli.tasks.components import is_out_of_memory, prepare_torch

    prepare_torch(plan.config.hardware)
    loop = load_attribute(RUN_KINDS[kind].loop, what=kind)(plan, get_plugins(), team, stop)
    try:
        loop.run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SoraError(
            f"not enough memory on {loop.encoders.device.type}",
            hint="try smaller batches, --gradient-checkpointing, or --sharding zero2 or zero3 on several GPUs",
        ) from error
    if stop.reason:
        get_console().note(f"stopped after update {loop.position.step}; the same command goes on from there")
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train_in_process(content: Mapping[str, Any]) -> None:
    """Train as one of several processes. content: what `_train_in_processes` wrote for all of them."""
    from sora_cli.launch.mesh import join_team
    from sora_cli.training.loop import Stop

    stop = Stop(file=Path(content["stop_file"]))
    folder = Path(content["config"]["run"]["folder"])
    # However often it is told: all processes of a job may be signalled, and then once more by the one that leads them.
    with (
        _stop_on_signals(stop, is_patient=True),
        _after_others(folder) if os.environ["RANK"] == "0" else contextlib.nullcontext(),
    ):
        plan = plan_of_process(content, get_plugins())
        train_share(plan, content["kind"], join_team(content["device"], content["sequence"]), stop)


def _train_in_processes(plan: RunPlan, resolved: ResolvedTrain) -> str | None:
    """Start the processes and wait for them; why they stopped early, if they did."""
    stopped: list[str] = []
    cache = plan.folder / node_cache(machines(resolved.config.hardware).node_rank)
    content = process_content("train", resolved, plan.source, cache)
    content["sequence"] = resolved.config.hardware.sequence_parallel or 1
    with tempfile.TemporaryDirectory(prefix="sora-") as place:
        # A file instead of a signal to the launcher, which would give its processes half a minute to save their state.
        stop_file = Path(place) / "stop"

        def on_signal(number: int, frame: FrameType | None) -> None:
            if stopped:
                raise KeyboardInterrupt
            stopped.append("terminated" if number == signal.SIGTERM else "interrupted")
            stop_file.write_text(stopped[0], encoding="utf-8")
            get_console().note("stopping after this update; once more to stop at once")

        with _handling(on_signal):
            follow_run(resolved, {**content, "stop_file": str(stop_file)}, [])
    return stopped[0] if stopped else None


@contextlib.contextmanager
def _stop_on_signals(stop: Stop, *, is_patient: bool = False) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops after the running update, a second one at once unless `is_patient`."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.reason is not None:
            if is_patient:
                return
            raise KeyboardInterrupt
        stop.reason = "terminated" if number == signal.SIGTERM else "interrupted"
        get_console().note("stopping after this update; once more to stop at once")

    with _handling(on_signal):
        yield


@contextlib.contextmanager
def _handling(on_signal: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder. Raises SoraError when one is in it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SoraError(f"another process is training in {folder}", hint="choose another one with --run") from None
        yield


@contextlib.contextmanager
def _after_others(folder: Path) -> Iterator[None]:
    """Wait until processes are gone that outlived the command which started them, and keep later ones out."""
    import fcntl

    with (folder / WORKER_LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            get_console().note("waiting for the processes of an earlier start to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def progress_of(folder: Path) -> dict[str, Any]:
    """How far a run is, from its log."""
    from sora_cli.training.metrics import read_metrics

    rows = [row for row in read_metrics(folder) if "loss" in row]
    return {"step": rows[-1]["step"], "epoch": rows[-1]["epoch"], "loss": rows[-1]["loss"]} if rows else {}


# -- reports -------------------------------------------------------------------------------------------------------


def bucket_report(plan: RunPlan, epoch: int = 0) -> dict[str, Any]:
    """Where the clips of an epoch go: rows and batches by size, by shape, and what is left out and why."""
    source = plan.source
    made = source.plan(epoch, num_ranks=plan.num_ranks)
    steps = made.num_steps(plan.num_ranks) // plan.config.optimizer.accumulation
    report: dict[str, Any] = {"rows": plan.num_rows, "micro_batches": len(made), "updates_per_epoch": steps}
    if not isinstance(source, ClipSource) or source.buckets is None:
        return report
    table, assigned = source.buckets, source.assign(epoch)
    sizes: dict[str, dict[str, int]] = {}
    shapes: dict[str, dict[str, int]] = {}
    remainder = 0
    for bucket in made.buckets:  # type: ignore[union-attr]  # a table with buckets makes such a plan
        resolution, frames, aspect = table.bucket(bucket.pair, bucket.aspect)
        remainder += bucket.num_rows - min(len(bucket.rows), bucket.num_rows)
        for group, key in ((sizes, f"{resolution}, {frames} frames"), (shapes, f"{aspect}")):
            row = group.setdefault(key, {"rows": 0, "batches": 0})
            row["rows"] += bucket.num_rows
            row["batches"] += bucket.num_batches
    order = [f"{pair.resolution}, {pair.num_frames} frames" for pair in table.pairs]
    report["by_size"] = {key: sizes[key] for key in order if key in sizes}
    report["by_aspect"] = dict(sorted(shapes.items()))
    report["left_out"] = {
        **{name: count for name, count in assigned.dropped().items() if count},
        "remainder": remainder,
    }
    report["buckets"] = len(made.buckets)  # type: ignore[union-attr]
    return report


def memory_report(plan: RunPlan) -> dict[str, Any]:
    """What the state of training takes on each device, GiB; activations, which depend on the batches, come on top.

    Weights and gradients in the training format; master weights, two moments (with Muon one of weights in blocks, of
    which next to all are in matrices) and the average in float32.
    """
    config, numbers = plan.config, plan.num_weights
    if numbers is None:
        return {}
    section = config.model if isinstance(config, TrainConfig) else config.vae
    width = DTYPE_BYTES[section.dtype]
    parts = {"weights": width, "gradients": width, "masters": 4 if width < 4 else 0, "moments": 8, "average": 4}
    cut = {"none": (), "zero2": ("gradients", "masters", "moments", "average"), "zero3": tuple(parts)}
    ranks = plan.num_processes
    total = {name: numbers * each for name, each in parts.items()}
    if config.optimizer.name == "muon":
        total["moments"] -= 4 * plan.num_in_blocks
    gib = {name: each / 2**30 / (ranks if name in cut[config.hardware.sharding] else 1) for name, each in total.items()}
    if (
        isinstance(config, TrainConfig) and config.model.lora is not None
    ):  # what else there is belongs to adapters, and is small
        gib = {"weights": gib["weights"]}
    return {"all_gib": round(sum(gib.values()), 4), **{f"{name}_gib": round(value, 4) for name, value in gib.items()}}


def show_buckets(resolved: ResolvedTrain, *, epoch: int) -> None:
    """Print the report on one epoch."""
    with tempfile.TemporaryDirectory(prefix="sora-") as folder:
        plan = _plan(resolved, get_plugins(), cache=Path(folder) / "table", need_weights=False)
        get_console().record(bucket_report(plan, epoch), title=f"epoch {epoch}")


def slurm_line(plan: RunPlan) -> str:
    """How this run is started under SLURM, one task on each machine."""
    hardware = plan.config.hardware
    given = without_option(sys.argv[1:], "--nnodes", "--node-rank", "--rdzv-endpoint")  # SLURM says them
    given = [word for word in given if word not in ("-n", "--dry-run")]
    words = ["srun", f"--nodes={hardware.nnodes}", "--ntasks-per-node=1", f"--gpus-per-node={hardware.gpus}"]
    return shlex.join([*words, "sora", *given])


def show_dry_run(plan: RunPlan, resolved: ResolvedTrain) -> None:
    """Print what a run would do: settings with origins, buckets, steps, memory, the launch line."""
    console = get_console()
    for note in plan.notes:
        console.note(note)
    rows = resolved_table(resolved)
    settings: Any = rows
    if console.mode != "json":
        settings = {
            row["key"]: f"{row['value']}  ({row['origin']})" for row in rows if row["value"] not in (None, [], "")
        }
    launch = launch_line(resolved, Path("run.json"))
    record = {
        "settings": settings,
        "run": str(plan.folder),
        "data": bucket_report(plan),
        "memory": memory_report(plan),
        "launch": None if launch is None else str(launch),
        "slurm": slurm_line(plan),
    }
    if console.mode == "quiet":
        console.result(plan.folder)
        return
    console.record(record, title="dry run: nothing is loaded or written")
