"""Reading training checkpoints of the released Open-Sora code, which ColossalAI wrote (training.md 14.1).

A folder `epoch<E>-global_step<G>` holds `model/` and `optimizer/` in shards, and `ema.safetensors` or `ema.pt`. The
optimizer's state has numbers for names: those of the trained parameters in the order of the network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.weights.load import read_tensors
from sora_cli.weights.locate import locate_weights

from .engine import AVERAGE, MODEL, OPTIMIZER

STATES = "running_states.json"
NUMBERED = re.compile(r"state\.(\d+)\.(exp_avg|exp_avg_sq|step)\Z")


def is_released_run(folder: Path) -> bool:
    """Whether a folder is such a checkpoint."""
    return (folder / STATES).is_file() and (folder / "model").is_dir()


def read_released_run(folder: Path, trainable: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Its weights, averages and moments, as an engine loads them; weights have the bfloat16 rounding they were kept in.

    trainable: names of the trained parameters, in the order of the network. Raises SoraError for a damaged checkpoint
    or one that trained other parameters.
    """
    files = {MODEL: _tensors(folder / "model")}
    averages = [folder / name for name in ("ema.safetensors", "ema.pt") if (folder / name).is_file()]
    files[AVERAGE] = read_tensors(averages[:1]) if averages else dict(files[MODEL])
    for name, tensor in files[MODEL].items():
        files[AVERAGE].setdefault(name, tensor)
    files[OPTIMIZER] = _moments(folder / "optimizer", files[MODEL], trainable)
    return files


def _tensors(folder: Path) -> dict[str, Tensor]:
    located = locate_weights(None, what="the checkpoint", override=str(folder))
    assert located is not None  # an override that does not exist raises
    return read_tensors(located.files)


def _moments(folder: Path, weights: dict[str, Tensor], trainable: Sequence[str]) -> dict[str, Tensor]:
    """AdamW's state by name; empty without a folder of it."""
    paths = [path for suffix in (".safetensors", ".bin") for path in sorted(folder.glob(f"*optim*-*{suffix}"))]
    if not paths:
        return {}
    moments = {}
    for key, tensor in read_tensors(paths).items():
        found = NUMBERED.match(key)
        if found is None:
            continue
        number, kind = int(found[1]), found[2]
        if number >= len(trainable):
            count = len(trainable)
            raise SoraError(f"the optimizer state in {folder} is of more than the {count} parameters that are trained")
        name = trainable[number]
        if kind != "step" and tensor.shape != weights[name].shape:
            raise SoraError(
                f"the optimizer state in {folder} is of other parameters: number {number} should be {name}",
                hint="were other parts of the network frozen? see model.freeze and model.train_only",
            )
        moments[f"{kind}.{name}"] = tensor.float().reshape(()) if kind == "step" else tensor.float()
    return moments
