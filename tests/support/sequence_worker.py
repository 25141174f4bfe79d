"""Run under torchrun: golden cases of a network, split over all processes, compared with one process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from sora_plugins.stdit.parallel import shard
from sora_plugins.stdit.stdit1 import build as build1
from sora_plugins.stdit.stdit2 import build as build2
from sora_plugins.stdit.stdit3 import build as build3
from sora_plugins.stdit.weights import POSITION_TABLES

BUILDS = {"stdit1": build1, "stdit2": build2, "stdit3": build3}
#: Those that a network has are run.
NAMES = ("base", "x_mask", "sizes", "backward", "sp2_padded")


def mean_difference(parameter: torch.nn.Parameter, wanted: torch.Tensor) -> float:
    """How far the mean gradient of all processes is from the one of a single process."""
    assert parameter.grad is not None
    mean = parameter.grad.clone()
    dist.all_reduce(mean)
    return float((mean / dist.get_world_size() - wanted).abs().max())


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    index = json.loads((folder / "index.json").read_text())
    worst = {}
    for name in [name for name in NAMES if name in index["cases"]]:
        case = index["cases"][name]
        model = BUILDS[folder.name](case["config"])
        weights = load_file(folder / index["weights"][case["weights"]]["file"])
        model.load_state_dict({name: weights[name] for name in weights if name not in POSITION_TABLES}, strict=True)
        model.train(case["mode"] == "train")
        shard(model, dist.group.WORLD)
        tensors = load_file(folder / case["file"])
        given = {name.removeprefix("in."): tensor for name, tensor in tensors.items() if name.startswith("in.")}
        given.setdefault("mask", None)
        if "force_drop_ids" in given:
            given["drop_ids"] = given.pop("force_drop_ids")
        out = model(**given)
        wanted = tensors.get("out_single_device", tensors["out"])
        worst[name] = float((out - wanted).abs().max())
        if "backward" in case:
            (out * tensors["grad.cotangent"]).mean().backward()
            worst["gradients"] = max(
                mean_difference(parameter, tensors[f"grad.param.{key}"])
                for key, parameter in model.named_parameters()
                if f"grad.param.{key}" in tensors
            )
    if dist.get_rank() == 0:
        print(json.dumps(worst))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # As the worker of sora does: torch's threads for gradients may abort the usual end of the interpreter.
    sys.stdout.flush()
    os._exit(0)
