"""`sora train search-batch-size`: the largest batch of every bucket that fits, or that is as fast as it should be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.training.batch_search import FoundBatch, search_batch_size
from sora_cli.training.buckets import BucketPair, BucketTable
from sora_cli.training.table import ClipTable
from sora_cli.video.shapes import closest_aspect, file_size, table_size

from .train_plan import TrainPlan, plan_train


def run(
    resolved: ResolvedTrain,
    *,
    only: Sequence[str] = (),
    base: str | None = None,
    seconds: float | None = None,
    most: int | None = None,
    updates: int = 5,
) -> None:
    """Search, and print a bucket table in YAML that can be merged into a recipe.

    only: buckets "RESOLUTION:FRAMES" to search, none for all. base: the bucket whose largest batch sets the time of an
    update; seconds: that time itself; without either the largest batches that fit are found. most: upper end of the
    search, by default four times the batch of the recipe. updates: measured for each batch size, after as many others.
    """
    import polars as pl

    if base is not None and seconds is not None:
        raise UsageError("--base and --seconds are two ways to say the time of an update", hint="give one of them")
    nothing = ClipTable(pl.DataFrame({"path": [], "text": []}), Path())
    plan = plan_train(resolved, get_plugins(), table=nothing)
    buckets = getattr(plan.source, "buckets", None)
    if buckets is None:
        raise UsageError("there are no buckets to search", hint="give --preset or data.bucket_config")
    chosen = [_pair(buckets, name) for name in only] or [pair for pair in buckets.pairs if pair.batch_size]
    measure = _Measure(plan, updates)
    if base is not None:
        found = _search(measure, _pair(buckets, base), most, None)
        if not found.batch_size:
            raise UsageError(f"the bucket {base} does not fit at all", hint="choose a smaller one for --base")
        seconds = found.seconds
        get_console().note(f"{base}: {found.batch_size} clips in {seconds:.3g} s, the time of an update from here on")
    sizes: dict[BucketPair, int] = {}
    for pair in chosen:
        result = _search(measure, pair, most, seconds)
        sizes[pair] = result.batch_size
        shown = f"{result.batch_size} clips in {result.seconds:.3g} s" if result.batch_size else "nothing fits"
        get_console().note(f"{pair.resolution}, {pair.num_frames} frames: {shown}")
    get_console().text(_yaml(buckets, sizes), _table(buckets, sizes))


def _pair(buckets: BucketTable, name: str) -> BucketPair:
    for pair in buckets.pairs:
        if f"{pair.resolution}:{pair.num_frames}" == name:
            return pair
    known = ", ".join(f"{pair.resolution}:{pair.num_frames}" for pair in buckets.pairs)
    raise UsageError(f"there is no bucket {name!r}", hint=f"there are {known}")


def _search(measure: _Measure, pair: BucketPair, most: int | None, seconds: float | None) -> FoundBatch:
    size = file_size(table_size(pair.resolution, closest_aspect(pair.resolution, 9, 16)))
    upper = most or 4 * (pair.batch_size or 1)
    shape = (pair.num_frames, size.height, size.width)
    return search_batch_size(lambda batch: measure(shape, batch), 1, upper, seconds)


class _Measure:
    """Seconds of an update with clips of noise, everything included that an update of a run has."""

    def __init__(self, plan: TrainPlan, updates: int) -> None:
        from sora_cli.launch.mesh import Team
        from sora_cli.tasks.components import prepare_torch
        from sora_cli.training import start
        from sora_cli.training.loop import Stop

        prepare_torch(plan.config.hardware)
        self.updates = updates
        # A number is a word, and a class for models of classes.
        self.words = "1 " * plan.components.text_encoder.max_tokens
        self.loop = start.make_loop(plan, get_plugins(), Team(), Stop())

    def __call__(self, size: tuple[int, int, int], batch_size: int) -> float | None:
        """None when there is not enough memory."""
        import torch

        from sora_cli.tasks.components import is_out_of_memory
        from sora_cli.training.dataset import Batch

        loop, (frames, height, width) = self.loop, size
        device = loop.encoders.device
        pixels = torch.rand(batch_size, 3, frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        batch = Batch(0, pixels, [self.words] * batch_size, torch.full((batch_size,), 24.0), [0] * batch_size, [])
        begin = 0.0
        try:
            for index in range(2 * self.updates):
                if index == self.updates:
                    _wait(device)
                    begin = time.perf_counter()
                encoded = loop.encoders.encode(batch, 0)
                loop.engine.backward(loop.objective.losses(loop.engine.model, encoded, 0).mean())
                loop.engine.update(0.0, 1.0)
            _wait(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            for parameter in loop.engine.network.parameters():
                parameter.grad = None
            if device.type == "cuda":
                torch.cuda.empty_cache()
            return None
        return (time.perf_counter() - begin) / self.updates


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _table(buckets: BucketTable, sizes: Mapping[BucketPair, int]) -> dict[str, dict[int, list[Any]]]:
    """The bucket configuration with the sizes that were found; where nothing fits clips are sent on."""
    table: dict[str, dict[int, list[Any]]] = {}
    for pair in buckets.pairs:
        chance: Any = pair.keep if pair.length is None else [pair.keep, pair.length]
        size = sizes.get(pair, pair.batch_size)
        table.setdefault(pair.resolution, {})[pair.num_frames] = [chance, size] if size else [0.0, None]
    return table


def _yaml(buckets: BucketTable, sizes: Mapping[BucketPair, int]) -> str:
    lines = ["data:", "  bucket_config:"]
    for name, lengths in _table(buckets, sizes).items():
        lines.append(f'    "{name}":')
        lines += [f"      {frames}: [{chance}, {size or 'null'}]" for frames, (chance, size) in lengths.items()]
    return "\n".join(lines)
