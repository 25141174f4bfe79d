"""Measuring the validation loss on this process: its share of the batches of each bucket, at each time.

What is drawn for a clip comes from (seed, row of the table, place of the time) alone, so the loss does not depend on
batches, on processes that decode or measure, or on other clips. The reference draws everything from torch's generator
in the order of the work instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sora_cli.acceleration.attention import choose_attention, set_attention
from sora_cli.console import counted, get_console
from sora_cli.errors import NotEnoughMemoryError, SoraError
from sora_cli.tasks.components import DTYPES, choose_device, is_out_of_memory, load_model, prepare_torch
from sora_cli.training.dataset import KeptWorkers
from sora_cli.training.objective import Encoded, Objective
from sora_cli.training.source import ClipSource
from sora_cli.training.start import make_encoders, noise_shaper
from sora_cli.training.validation import time_grid
from sora_cli.video.latents import key_seed

from .loss_buckets import LossBatches, LossBucket, loss_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from sora_cli.launch.mesh import Team
    from sora_cli.plugin.manager import Plugins
    from sora_cli.tasks.train_plan import TrainPlan
    from sora_cli.training.dataset import Batch
    from sora_cli.training.objective import Encoders
    from sora_cli.weights.lora import LocatedLora

#: Files that an error names.
MAX_NAMED = 5


def loss_times(last_time: float, count: int, *, reference: bool = False) -> list[float]:
    """The times at which the loss is measured. reference: rounded to bfloat16."""
    times = time_grid(last_time, count)
    found: list[float] = (times.bfloat16().float() if reference else times).tolist()
    return found


class LossSums:
    """Sums of losses by time; means weigh every clip the same, however the batches were cut."""

    def __init__(self, num_times: int) -> None:
        self.sums, self.counts = [0.0] * num_times, [0] * num_times

    def add(self, place: int, losses: Tensor) -> None:
        """Losses (B,) at one time. place: of the time."""
        self.sums[place] += float(losses.double().sum())
        self.counts[place] += len(losses)

    def merge(self, other: LossSums) -> None:
        """Those of another process."""
        self.sums = [own + theirs for own, theirs in zip(self.sums, other.sums, strict=True)]
        self.counts = [own + theirs for own, theirs in zip(self.counts, other.counts, strict=True)]

    def means(self) -> list[float]:
        """The mean loss at each time."""
        return [total / count for total, count in zip(self.sums, self.counts, strict=True)]


@dataclass(frozen=True)
class LossMeter:
    """What measures. times: see `loss_times`; reference: draw as the reference does, which one process does alone.

    source: the table, without buckets; max_bad_share: of the clips of a bucket that cannot be read.
    """

    source: ClipSource
    objective: Objective
    network: Any
    encoders: Encoders
    team: Team
    times: Sequence[float]
    reference: bool
    max_bad_share: float
    workers: KeptWorkers

    def batches(self, bucket: LossBucket) -> LossBatches:
        """Those of all processes."""
        return loss_batches(self.source, bucket, num_ranks=self.team.data_size, wraps=self.reference)

    @torch.no_grad()
    def measure(self, bucket: LossBucket, advance: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        """The entry of a bucket in the result. advance: told the losses that are measured, one per clip and time.

        Raises SoraError when too many clips cannot be read, the same on every process.
        """
        plan = self.batches(bucket)
        numbers = range(self.team.data_rank, len(plan), self.team.data_size)
        sums, bad = LossSums(len(self.times)), {}
        every = range(len(self.times))
        # The reference encodes every clip anew for each time, which draws from the generator that noise comes from.
        for places in [[place] for place in every] if self.reference else [every]:
            for batch in self.source.load(
                plan, numbers, 0, dtype=torch.float32, pin_memory=False, kept=self.workers, skips_bad=True
            ):
                bad.update({one.row: one._asdict() for one in batch.bad})
                if batch.rows:
                    encoded = self._encoded(batch)
                    for place in places:
                        sums.add(place, self._losses(encoded, batch.rows, place))
                advance((len(batch.rows) + len(batch.bad)) * len(places))
        total, unreadable = LossSums(len(self.times)), {}
        for theirs, theirs_bad in self.team.gather((sums, bad)):
            total.merge(theirs)
            unreadable.update(theirs_bad)
        files = [unreadable[row] for row in sorted(unreadable)]
        self._check_readable(bucket, files, plan.num_rows, total.counts[0])
        losses = total.means()
        return {
            "resolution": bucket.resolution,
            "frames": bucket.num_frames,
            "loss": sum(losses) / len(losses),
            "losses": losses,
            "clips": total.counts[0],
            "unreadable": files,
            "left_out": dict(plan.left_out),
        }

    def _encoded(self, batch: Batch) -> Encoded:
        if not self.reference:
            seeds = [key_seed(self.objective.seed, "loss", row, "autoencoder") for row in batch.rows]
            return self.encoders.encode_each(batch, seeds)
        encoded = self.encoders.encode(batch, None)
        return encoded._replace(sizes={name: each.bfloat16().float() for name, each in encoded.sizes.items()})

    def _losses(self, encoded: Encoded, rows: Sequence[int], place: int) -> Tensor:
        """Of each clip of a batch, at one time."""
        keys = [(self.objective.seed, "loss", row, place) for row in rows]
        latents = encoded.latents
        if self.reference:
            noise = torch.randn_like(latents)
        else:
            noise = torch.stack([_normal(latents.shape[1:], key_seed(*key, "noise")) for key in keys])
        noise = self.objective.shaped(noise, encoded, [(*key, "shared") for key in keys]).to(latents.device)
        mask = None
        if self.objective.masks is not None:
            draws = [np.random.default_rng(key_seed(*key, "mask")) for key in keys]
            drawn = np.stack([self.objective.masks.draw(latents.shape[2], draw) for draw in draws])
            mask = None if drawn.all() else torch.from_numpy(drawn).to(latents.device)
        return self.objective.losses_at(self.network, encoded, self.times[place], noise=noise, frame_mask=mask)

    def _check_readable(self, bucket: LossBucket, files: Sequence[Any], num_rows: int, measured: int) -> None:
        lines = [f"row {one['row'] + 1}, {one['path']}: {one['detail']}" for one in files[:MAX_NAMED]]
        if len(files) > len(lines):
            lines.append(f"and {len(files) - len(lines)} more")
        if not measured:
            raise SoraError(f"of {counted(num_rows, 'clip')} of {bucket} none can be read", hint="\n".join(lines))
        if len(files) > self.max_bad_share * num_rows:
            raise SoraError(
                f"{len(files)} of the {num_rows} clips of {bucket} cannot be read",
                hint="\n".join([*lines, "--set data.max_bad_share=0.5 would allow half of them"]),
            )
        for line in lines:
            get_console().warn(f"{line}; left out")


def _normal(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def make_meter(
    plan: TrainPlan, plugins: Plugins, team: Team, loras: Sequence[LocatedLora], num_times: int, *, reference: bool
) -> LossMeter:
    """What measures for this process. Raises SoraError for weights that do not fit."""
    config, source = plan.config, plan.source
    assert isinstance(source, ClipSource)  # checked before
    prepare_torch(config.hardware)
    device, dtype = choose_device(config.hardware.device), DTYPES[config.model.dtype]
    network = load_model(plan, plugins, loras, device=device, dtype=dtype)
    attention = choose_attention(config.model.attention, device, dtype)
    set_attention(network, attention.function)
    scheduler = plugins.load_target(plan.components.scheduler)(plan.scheduler_options)
    get_console().note(f"measuring on {device.type} in {config.model.dtype}; attention {attention.name}")
    return LossMeter(
        source=source,
        objective=Objective(scheduler, config.run.seed, plan.masks, shaper=noise_shaper(plan)),
        network=network,
        encoders=make_encoders(plan, plugins, device),
        team=team,
        times=loss_times(scheduler.last_time, num_times, reference=reference),
        reference=reference,
        max_bad_share=config.data.max_bad_share,
        workers=KeptWorkers(),
    )


def measure_buckets(meter: LossMeter, buckets: Sequence[LossBucket], keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure all of them in order. keep: on the first process, told each entry as soon as it is known."""
    if meter.reference:
        torch.manual_seed(meter.objective.seed)
    own = [sum(len(batch.rows) for batch in _own(meter, bucket)) * len(meter.times) for bucket in buckets]
    try:
        with get_console().progress("measuring", sum(own)) as progress:
            for bucket in buckets:
                entry = meter.measure(bucket, progress.advance)
                if meter.team.is_main:
                    keep(entry)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        device = meter.encoders.device.type
        hint = "give a smaller --batch-size; what is measured already is kept"
        raise NotEnoughMemoryError(f"not enough memory on {device} for {bucket}", hint=hint) from error
    finally:
        meter.workers.close()


def _own(meter: LossMeter, bucket: LossBucket) -> Any:
    return meter.batches(bucket).batches[meter.team.data_rank :: meter.team.data_size]
