"""`sora generate`: plan, decide what is already done, then sample, decode and write the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.config.resolve import Resolved, resolved_table
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.launch.torchrun import launch_line
from sora_cli.plugin.manager import get_plugins

from .output import OutputState, check_outputs, output_state, prepare_folders, report
from .plan import GeneratePlan, plan_generate, shape_record

if TYPE_CHECKING:
    from types import FrameType


def run(resolved: Resolved, *, dry_run: bool = False) -> None:
    """Make the clips of a resolved configuration and print each path when its file is complete.

    Clips that are already there with the same settings are only printed. Raises SoraError; after Ctrl-C or a
    termination signal KeyboardInterrupt, with the sampled latents kept on disk for the next run.
    """
    console = get_console()
    plugins = get_plugins()
    plan = plan_generate(resolved, plugins, need_weights=not dry_run)
    states = {clip.path: output_state(clip.path, clip.settings_hash) for clip in plan.clips}
    for note in (*plan.notes, *unused_settings(resolved)):
        console.note(note)
    several = several_processes(resolved)
    if dry_run:
        if several:
            console.note(f"{several}; the launch line is how it will start")
        show_dry_run(plan, resolved, states)
        return
    if several:
        raise UsageError(several, hint="leave --gpus out for one device")
    check_outputs(states, overwrite=plan.config.output.overwrite)
    if all(state == "done" for state in states.values()):
        for clip in plan.clips:
            report(clip.path, "skipped", prompt=clip.prompt, seed=clip.seed)
        return
    prepare_folders(clip.path for clip in plan.clips if states[clip.path] != "done")
    console.note(f"model {plan.components.model.name}")
    if plan.components.model.note:
        console.note(plan.components.model.note)
    with _terminate_as_interrupt():
        # Idle worker threads that spin make a machine that is busy with other work ten times slower; sleeping ones cost
        # an idle machine little. Read once, when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Heavy imports start here.
        from .sampling import make_clips

        make_clips(plan, plugins, done=frozenset(path for path, state in states.items() if state == "done"))


def several_processes(resolved: Resolved) -> str | None:
    """Why a run on more than one process is refused; None for one process."""
    gpus = resolved.config.hardware.gpus
    if gpus == 1:
        return None
    return f"generating with {gpus} processes ({resolved.origins['hardware.gpus']}) is not available yet"


def unused_settings(resolved: Resolved) -> list[str]:
    """A line for each setting that was asked for and has no effect yet."""
    hardware = resolved.config.hardware
    asked = {
        "hardware.offload": hardware.offload not in ("auto", "none"),
        "hardware.decode_frames": hardware.decode_frames is not None,
    }
    return [f"{key} ({resolved.origins[key]}) has no effect yet" for key, is_asked in asked.items() if is_asked]


def show_dry_run(plan: GeneratePlan, resolved: Resolved, states: Mapping[Path, OutputState]) -> None:
    """Print what a run would do: settings with origins, sizes, files and what is at their places, the launch line."""
    console = get_console()
    rows = resolved_table(resolved)
    if console.mode == "json":
        settings: Any = rows
    else:
        settings = {
            row["key"]: f"{row['value']}  ({row['origin']})" for row in rows if row["value"] not in (None, [], "")
        }
    done = "is there already, would be skipped"
    other = "would be replaced" if plan.config.output.overwrite else "is there with other settings: an error"
    words = {"new": "would be made", "done": done, "other": other}
    launch = launch_line(resolved, Path("run.json"))
    record = {
        "settings": settings,
        "shape": shape_record(plan.shape),
        "latent": dict(zip(("channels", "frames", "height", "width"), plan.latent_shape, strict=True)),
        "files": {str(clip.path): words[states[clip.path]] for clip in plan.clips},
        "launch": None if launch is None else str(launch),
        "expect": dict(resolved.launch.expect) if resolved.launch else {},
    }
    console.record(record, title="dry run: nothing is loaded or written")


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that a scheduler's or a shell's stop keeps the latents too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
