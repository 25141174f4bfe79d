"""`sora generate`: plan, decide what is already done, then sample, decode and write the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sora_cli.conditioning.sources import Sources
from sora_cli.config.resolve import Resolved, resolved_table
from sora_cli.console import get_console
from sora_cli.launch.torchrun import launch_line, run_processes
from sora_cli.plugin.manager import get_plugins

from .output import OutputState, check_not_read, check_outputs, output_state, prepare_folders, report
from .plan import GeneratePlan, plan_generate
from .records import shape_record


def run(resolved: Resolved, *, dry_run: bool = False, sources: Sources | None = None) -> None:
    """Make the clips of a resolved configuration and print each path when its file is complete.

    sources: where references are found.

    Clips that are already there with the same settings are only printed. Raises SoraError; after Ctrl-C or a
    termination signal KeyboardInterrupt, with the sampled latents kept on disk for the next run.
    """
    console = get_console()
    plugins = get_plugins()
    plan = plan_generate(resolved, plugins, need_weights=not dry_run, sources=sources)
    states = {clip.path: output_state(clip.path, clip.settings_hash) for clip in plan.clips}
    for note in plan.notes:
        console.note(note)
    if dry_run:
        show_dry_run(plan, resolved, states)
        return
    for clip in plan.clips:
        check_not_read(clip.path, clip.given.read)
    check_outputs(states, overwrite=plan.config.output.overwrite)
    if all(state == "done" for state in states.values()):
        for clip in plan.clips:
            report(clip, "skipped")
        return
    prepare_folders(clip.path for clip in plan.clips if states[clip.path] != "done")
    console.note(f"model {plan.components.model.name}")
    if plan.components.model.note:
        console.note(plan.components.model.note)
    if note_on_memory := memory_note(plan):
        console.note(note_on_memory)
    done = frozenset(path for path, state in states.items() if state == "done")
    if launch_line(resolved, Path("run.json")) is not None:
        run_processes(
            replace(resolved, config=plan.config),
            num_batches=len(plan.batches),
            paths=[clip.path for clip in plan.clips],
            done=done,
            references=plan.sources.record(),
        )
        return
    # Heavy imports start here.
    from .sampling import make_clips

    make_clips(plan, plugins, done=done)


def memory_record(plan: GeneratePlan) -> dict[str, Any]:
    """The memory plan for people and programs; GiB."""
    memory = plan.memory
    return {
        "phases_gib": memory.phases,
        "peak_gib": memory.peak if memory.phases else None,
        "device_gib": memory.available,
        "offload": memory.offload,
        "text_device": memory.text_device,
        "decode_frames": memory.decode_frames,
    }


def memory_note(plan: GeneratePlan) -> str | None:
    """One line on what a run on a GPU will need; None on a CPU and without an estimate."""
    memory = plan.memory
    if memory.available is None or not memory.phases:
        return None
    return (
        f"{plan.shape.height}x{plan.shape.width}, {plan.shape.num_frames} frames: about {memory.peak:.1f} of "
        f"{memory.available:.1f} GiB, offload {memory.offload}, text encoder {memory.text_device}, "
        f"decoding {memory.decode_frames} frames at a time"
    )


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
    refined = {str(clip.path): clip.refined for clip in plan.clips if clip.refined is not None}
    launch = launch_line(resolved, Path("run.json"))
    record = {
        "settings": settings,
        "shape": shape_record(plan.shape),
        **plan.segments.record(),
        "latent": dict(zip(("channels", "frames", "height", "width"), plan.latent_shape, strict=True)),
        "files": {str(clip.path): words[states[clip.path]] for clip in plan.clips},
        **({"refined": refined} if refined else {}),
        "launch": None if launch is None else str(launch),
        "memory": memory_record(plan),
        "expect": dict(resolved.launch.expect) if resolved.launch else {},
    }
    if console.mode == "quiet":
        for path in states:
            console.result(path)
        return
    console.record(record, title="dry run: nothing is loaded or written")
