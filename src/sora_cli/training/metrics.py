"""What a run says of itself: a line for each update in `metrics.jsonl`, TensorBoard and Weights & Biases if asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_cli.errors import MissingError

METRICS = "metrics.jsonl"


class Metrics:
    """The log of a run. Values of updates after `step`, of a run that was killed later, are taken out."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False, wandb: bool = False) -> None:
        """folder: of the run; step: updates that are done."""
        self.path = folder / METRICS
        _cut(self.path, step)
        self._board = _tensorboard(folder, step) if tensorboard else None
        self._wandb = _wandb(folder) if wandb else None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, each with its `step`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dict(row)) + "\n" for row in rows)
        for row in rows:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
            if self._board is not None:
                for name, value in numbers.items():
                    self._board.add_scalar(name, value, row["step"])
            if self._wandb is not None:
                self._wandb.log(numbers, step=row["step"])

    def close(self) -> None:
        """Send and write what is left."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that was cut off is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _cut(path: Path, step: int) -> None:
    kept = [row for row in read_metrics(path.parent) if row["step"] <= step]
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(temporary, path)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)


def _wandb(folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb") from error
    known = folder / "wandb-id"  # of its own: other runs may have folders of the same name
    if not known.is_file():
        known.write_text(wandb.util.generate_id(), encoding="utf-8")
    identity = known.read_text(encoding="utf-8")
    return wandb.init(project="sora", name=folder.name, dir=str(folder), resume="allow", id=identity)


def _missing(package: str) -> MissingError:
    return MissingError(f"{package} is not installed", hint=f"pip install 'sora-cli[train]', or leave {package} out")
