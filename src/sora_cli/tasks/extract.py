"""`sora train extract`: latents and encoded captions of a table, to train from without the encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.files import write_text
from sora_cli.launch.torchrun import follow_run, launch_line
from sora_cli.plugin.manager import get_plugins
from sora_cli.training.features import INDEX, SETTINGS, features_path, read_index, write_index
from sora_cli.training.source import ClipSource

from .train_plan import TABLE_CACHE, TrainPlan, feature_settings, plan_of_process, plan_train, process_content

if TYPE_CHECKING:
    from sora_cli.launch.mesh import Team


def run(resolved: ResolvedTrain, output: Path, *, bin_size: int = 64) -> None:
    """Extract the features of one epoch into a folder, and print it. What is there already is kept.

    bin_size: micro-batches in a file. Raises UsageError for a folder with features of other settings.
    """
    plugins = get_plugins()
    output.mkdir(parents=True, exist_ok=True)
    plan = plan_train(resolved, plugins, cache=output / TABLE_CACHE)
    if not isinstance(plan.source, ClipSource):
        raise UsageError("these are features already", hint="give a table of clips with --data")
    for note in plan.notes:
        get_console().note(note)
    num_bins = _num_bins(plan, bin_size)
    if not num_bins:
        (output / TABLE_CACHE).unlink(missing_ok=True)
        raise UsageError(
            f"no bucket has a whole micro-batch of these {plan.num_rows} clips",
            hint="`sora train buckets` says where the clips go; use smaller batches",
        )
    settings = {**feature_settings(plan.config, plan.weights), "table": plan.identity["table"], "bin_size": bin_size}
    _keep_settings(output, settings)
    if launch_line(resolved, Path("run.json")) is None:
        from sora_cli.launch.mesh import Team

        _extract_share(plan, output, bin_size, Team())
    else:
        content = process_content("extract", resolved, plan.source, output / TABLE_CACHE)
        follow_run(resolved, {**content, "output": str(output), "bin_size": bin_size}, [])
    write_index(output, settings, num_bins)
    (output / TABLE_CACHE).unlink(missing_ok=True)
    get_console().result(output, {"path": str(output), "clips": len(read_index(output))})


def extract_in_process(content: Mapping[str, Any]) -> None:
    """Extract as one of several processes. content: what `run` wrote for all of them."""
    from sora_cli.launch.mesh import join_team

    plan = plan_of_process(content, get_plugins())
    _extract_share(plan, Path(content["output"]), content["bin_size"], join_team(content["device"], 1))


def _keep_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Write down what the features are made with, or check that it is the same as before."""
    path, now = output / SETTINGS, json.loads(json.dumps(settings))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            raise UsageError(
                f"{output} holds features made with another {', '.join(changed)}", hint="choose another folder"
            )
    elif (output / INDEX).is_file() or any(output.glob("features-*")):
        raise UsageError(f"{output} holds features of unknown settings", hint="choose another folder")
    write_text(path, json.dumps(now, indent=2) + "\n")


def _num_bins(plan: TrainPlan, bin_size: int) -> int:
    return -(-len(plan.source.plan(0, num_ranks=1)) // bin_size)


def _extract_share(plan: TrainPlan, output: Path, bin_size: int, team: Team) -> None:
    """The bins of this process, one after the other; bins that are complete are left alone."""
    import torch

    from sora_cli.tasks.components import choose_device, prepare_torch
    from sora_cli.training.features import captioned_batch, encoded_batch, write_bin
    from sora_cli.training.start import make_encoders
    from sora_cli.video.latents import key_seed

    prepare_torch(plan.config.hardware)
    device = choose_device(plan.config.hardware.device)
    source, seed = plan.source, plan.config.run.seed
    assert isinstance(source, ClipSource)  # checked before the processes were started
    made = source.plan(0, num_ranks=1)
    bins = range(team.data_rank, _num_bins(plan, bin_size), team.data_size)
    missing = [number for number in bins if not features_path(output, number).exists()]
    if not missing:
        return
    encoders = make_encoders(plan, get_plugins(), device)
    console = get_console()
    with console.progress(f"extracting into {output.name}", len(bins), len(bins) - len(missing)) as progress:
        for number in missing:
            numbers = range(number * bin_size, min((number + 1) * bin_size, len(made)))
            stored = []
            for batch in source.load(made, numbers, 0, dtype=torch.float32, pin_memory=False):
                for one in batch.bad:
                    console.warn(f"row {one.row + 1}, {one.path}: {one.detail}; another clip takes its place")
                key = key_seed(seed, 0, batch.number, "autoencoder")
                if plan.config.data.extract_captions == "text":
                    stored.append(
                        captioned_batch(*encoders.encode_clips(batch, key), batch.size, batch.rows, batch.clips)
                    )
                else:
                    stored.append(encoded_batch(encoders.encode(batch, key), batch.size, batch.rows))
            write_bin(features_path(output, number), stored)
            progress.advance()
