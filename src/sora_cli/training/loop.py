"""The training loop: batches in, updates and checkpoints out, from wherever an earlier run stopped."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sora_cli.console import Progress, get_console
from sora_cli.errors import SoraError
from sora_cli.video.latents import key_seed

from .autoencoder import parts_tensor
from .checkpoint import Checkpointer
from .dataset import Batch, KeptWorkers
from .engine import Engine, Update
from .features import FeatureSource
from .learning_rate import decay_of, learning_rate
from .metrics import Metrics
from .profiling import Profiling, peak_tflops
from .run_folder import remove_leftovers

if TYPE_CHECKING:
    from sora_cli.config.train_schema import TrainConfig
    from sora_cli.config.vae_schema import VaeTrainConfig
    from sora_cli.launch.mesh import Team

    from .adversary import Adversary
    from .source import ClipSource

BAD_FILES = "bad_files.jsonl"
#: Clips that are read before the share of bad ones can stop a run.
FEWEST_CLIPS = 100
#: Epochs in a row that chance may leave without an update, where clips are few.
MOST_EMPTY_EPOCHS = 10


class Encoded(Protocol):
    """A batch as an objective takes it."""

    @property
    def num_positions(self) -> int:
        """Latent positions of all clips."""
        ...


class Objective(Protocol):
    """What is learned. One with several terms has `part_names` and `parts`, see `autoencoder`."""

    def note(self, name: str, value: Tensor | None) -> None:
        """Count a term that is known only after the loss; only with an adversary."""
        ...

    def losses(self, model: Any, encoded: Any, epoch: int) -> Tensor:
        """The loss of each clip, or of all of them."""
        ...


class Validation(Protocol):
    """What is measured between updates."""

    def run(self, network: Any) -> dict[str, float]:
        """Numbers by name, the loss of all clips as "all"."""
        ...


class Previews(Protocol):
    """What is made to be looked at between updates."""

    def run(self, network: Any, step: int, *, writes: bool) -> list[Path]:
        """Make it on every process, write it on one; the paths."""
        ...


class Encoder(Protocol):
    """Makes of a batch of its source what the network takes."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    def encode(self, batch: Any, seed: int, *, update: int = 0) -> Encoded:
        """seed: of what is sampled on the way; update: number of the update, the same on all ranks."""
        ...


@dataclass
class Position:
    """How far a run is. step: updates; consumed: micro-batches of this epoch, over all ranks.

    skipped: updates that were left out.
    """

    step: int = 0
    epoch: int = 0
    consumed: int = 0
    skipped: int = 0


@dataclass
class Stop:
    """Whether to stop after the running update, and why: "terminated" or "interrupted".

    file: where the command that started this process asks for it, by writing the reason.
    """

    reason: str | None = None
    file: Path | None = None

    def poll(self) -> str | None:
        """The reason so far."""
        if self.reason is None and self.file is not None and self.file.is_file():
            self.reason = self.file.read_text(encoding="utf-8") or None
        return self.reason


@dataclass
class _Update:
    """What is measured of one update on this rank."""

    loss: Tensor
    rate: float
    result: Update
    seconds: float
    data_seconds: float
    samples: int
    tokens: int
    epoch: int
    sizes: list[tuple[int, ...]]
    parts: Tensor


@dataclass
class TrainingLoop:
    """One run on this rank. documents: JSON files that go into every checkpoint; identity: what must not change.

    adapter: settings of the adapters that are trained instead of the weights. adversary: what is trained against.
    sample_every: updates between previews.
    """

    config: TrainConfig | VaeTrainConfig
    source: ClipSource | FeatureSource
    engine: Engine
    encoders: Encoder
    objective: Objective
    team: Team
    folder: Path
    identity: Mapping[str, Any]
    documents: Mapping[str, Mapping[str, Any]]
    patch_volume: int = 1
    validation: Validation | None = None
    previews: Previews | None = None
    sample_every: int = 0
    adapter: Mapping[str, Any] | None = None
    adversary: Adversary | None = None
    position: Position = field(default_factory=Position)
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        run = self.config.run
        self.is_main = self.team.is_main
        self.checkpoints = Checkpointer(
            self.folder, keep=run.keep, is_writer=self.is_main, assemble=self.engine.assemble
        )
        self._num_weights = sum(parameter.numel() for parameter in self.engine.network.parameters())
        self._peak = peak_tflops(self.encoders.device)
        self._decay = decay_of(self.config)
        self._workers = KeptWorkers()
        self._waiting: list[_Update] = []
        self._metrics: Metrics | None = None
        self._bad: Counter[str] = Counter()
        self._clips = 0
        self._bad_in_a_row = self._bad_adversary = 0
        self._agreed: str | None = None
        self._saved_step = self._looked_step = self.position.step

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the steps or epochs asked for are done, or `stop` says so; the state is saved at the end.

        Raises SoraError when the gradient stays infinite, too many clips cannot be read, or a checkpoint fails.
        """
        try:
            self._run()
        finally:
            self._workers.close()
            self.checkpoints.wait()  # one that is being written is finished, whatever happened

    def _run(self) -> None:
        run = self.config.run
        if self.is_main:
            remove_leftovers(self.folder)
            self._metrics = Metrics(self.folder, self.position.step, tensorboard=run.tensorboard, wandb=run.wandb)
        if self._is_done():
            return
        self._profiling = Profiling(self.folder, run.profile if self.is_main else 0)
        plan = self._next_plan()
        total = run.steps or self._updates(plan) + self.position.step + self._updates_of_other_epochs(plan)
        self._should_stop()
        with get_console().progress("training", total, self.position.step) as progress:
            while not self._is_done():
                self._epoch(plan, progress)
                if self._updates(plan) == 0:
                    self.position.epoch += 1
                    self.position.consumed = 0
                if not self._is_done():
                    plan = self._next_plan()
                    self._should_stop()
        self._profiling.close()
        self._log(force=True)
        if self._saved_step != self.position.step:
            self.save()
        if self._metrics is not None:
            self._metrics.close()

    def _epoch(self, plan: Any, progress: Progress) -> None:
        """The rest of an epoch, or as much of it as is asked for."""
        position, run, ranks = self.position, self.config.run, self.team.data_size
        accumulation = self.config.optimizer.accumulation
        updates = self._updates(plan)
        if run.steps is not None:
            updates = min(updates, run.steps - position.step)
        first = position.consumed + self.team.data_rank
        numbers = range(first, first + updates * accumulation * ranks, ranks)
        device = self.encoders.device
        batches = self.source.load(
            plan,
            numbers,
            position.epoch,
            dtype=torch.bfloat16 if self.engine.options.dtype == torch.bfloat16 else torch.float32,
            pin_memory=self.config.data.pin_memory and device.type == "cuda",
            kept=self._workers,
        )
        with contextlib.closing(batches) as stream:
            self._updates_from(stream, updates, progress)

    def _updates_from(self, stream: Iterator[Batch], updates: int, progress: Progress) -> None:
        position, run = self.position, self.config.run
        step = self.team.data_size * self.config.optimizer.accumulation
        for _ in range(updates):
            self._update(stream)
            self._profiling.step()
            position.consumed += step
            progress.update(position.step)
            self._log()
            self._look()
            is_time = run.checkpoint_every > 0 and position.step % run.checkpoint_every == 0
            if is_time and position.step != self._saved_step:
                self.save()
            if self._should_stop():
                return

    def _update(self, stream: Iterator[Batch]) -> None:
        """One update from the next micro-batches."""
        settings, position = self.config.optimizer, self.position
        start = time.perf_counter()
        waited, samples, tokens, loss = 0.0, 0, 0, torch.zeros((), device=self.encoders.device)
        sizes: list[tuple[int, ...]] = []
        parts = parts_tensor(None, self.encoders.device)
        if self.adversary is not None:
            self.adversary.step = position.step
        for index in range(settings.accumulation):
            is_last = index + 1 == settings.accumulation
            before = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - before
            self._note_bad(batch)
            seed = key_seed(self.config.run.seed, position.epoch, batch.number, "autoencoder")
            encoded = self.encoders.encode(batch, seed, update=position.step)
            with self.engine.accumulating(is_last):
                own = self.objective.losses(self.engine.model, encoded, position.epoch).mean()
                self.engine.backward(own / settings.accumulation)
            if self.adversary is not None:
                of_adversary = self.adversary.learn(is_last=is_last, share=1 / settings.accumulation)
                self.objective.note("discriminator_loss", of_adversary)
            loss += own.detach() / settings.accumulation
            now = parts_tensor(self.objective, self.encoders.device)
            parts = parts + now if index else now
            samples += len(batch.rows)
            tokens += encoded.num_positions // self.patch_volume
            sizes.append(batch.size)
        rate = learning_rate(settings.learning_rate, position.step, settings.warmup_steps, self._decay)
        result = self.engine.update(rate, settings.gradient_clip)
        if self.adversary is not None:
            theirs = self.adversary.update(rate, settings.gradient_clip, is_wanted=result.is_applied)
            self._check_adversary(theirs)
        if result.is_applied:
            position.step += 1
            self._bad_in_a_row = 0
        else:
            self._left_out(result, sizes)
        seconds = time.perf_counter() - start
        if result.is_applied:
            counts = (samples, tokens, position.epoch)
            self._waiting.append(_Update(loss, rate, result, seconds, waited, *counts, sizes, parts))

    def _left_out(self, result: Update, sizes: list[tuple[int, ...]]) -> None:
        """Count an update whose gradient is not finite; SoraError after several in a row."""
        self.position.skipped += 1
        self._bad_in_a_row += 1
        limit = self.config.optimizer.max_bad_updates
        if self.engine.loss_scale is None or self._bad_in_a_row > 2:
            shown = ", ".join(str(size) for size in sizes)
            get_console().warn(f"the gradient after update {self.position.step} is {result.norm}; left out ({shown})")
        if self._bad_in_a_row >= limit:
            raise SoraError(
                f"{limit} updates in a row had no finite gradient",
                hint="a lower --lr or --warmup-steps may help; earlier checkpoints are whole",
            )

    def _check_adversary(self, result: Update | None) -> None:
        """Say when the discriminator alone could not be updated; SoraError after several times in a row."""
        if result is None:
            return
        self._bad_adversary = 0 if result.is_applied else self._bad_adversary + 1
        if self._bad_adversary:
            get_console().warn(
                f"the discriminator's gradient after update {self.position.step} is {result.norm}; left out"
            )
        if self._bad_adversary >= self.config.optimizer.max_bad_updates:
            raise SoraError(
                f"{self._bad_adversary} updates of the discriminator in a row had no finite gradient",
                hint="a lower discriminator.learning_rate may help; earlier checkpoints are whole",
            )

    # -- lengths -----------------------------------------------------------------------------------------------------

    def _plan(self) -> Any:
        return self.source.plan(self.position.epoch, num_ranks=self.team.data_size, start=self.position.consumed)

    def _updates(self, plan: Any) -> int:
        return plan.num_steps(self.team.data_size, self.position.consumed) // self.config.optimizer.accumulation

    def _updates_of_other_epochs(self, plan: Any) -> int:
        """About as many as in this one."""
        whole = len(plan) // (self.team.data_size * self.config.optimizer.accumulation)
        return whole * (self.config.run.epochs - self.position.epoch - 1)

    def _next_plan(self) -> Any:
        """The plan of this epoch or, where chance leaves too few clips of it for an update, of the next that has one.

        Raises SoraError when none of the next ones has.
        """
        position, epochs = self.position, self.config.run.epochs
        last = min(position.epoch + (MOST_EMPTY_EPOCHS if self.source.has_chance else 1), epochs)
        while True:
            plan = self._plan()
            if position.consumed or self._updates(plan):
                return plan
            position.epoch += 1
            if position.step and position.epoch == epochs:
                return plan  # the run is done
            if position.epoch == last:
                raise SoraError(
                    f"there are {len(plan)} whole micro-batches in an epoch, fewer than one update needs",
                    hint="`sora train buckets` says where the clips go; use fewer GPUs or smaller batches",
                )
            get_console().note(f"chance leaves no update in epoch {position.epoch - 1}")

    def _is_done(self) -> bool:
        run, position = self.config.run, self.position
        has_steps = run.steps is not None and position.step >= run.steps
        # Only what all ranks agreed on: a signal reaches each of them at another moment.
        return self._agreed is not None or has_steps or position.epoch >= run.epochs

    def _should_stop(self) -> bool:
        """Whether any rank was told to stop. All ranks ask at the same places."""
        self._agreed = self.stop.reason = self.team.agree(self.stop.poll())
        return self._agreed is not None

    # -- saying ------------------------------------------------------------------------------------------------------

    def _log(self, *, force: bool = False) -> None:
        """Write what is waiting when it is time; the loss is the mean over the ranks."""
        waiting = self._waiting
        if not waiting or not (force or self.position.step % self.config.run.log_every == 0):
            return
        self._waiting = []
        losses = self.team.mean(torch.stack([update.loss for update in waiting])).tolist()
        parts = self.team.mean(torch.stack([update.parts for update in waiting])).tolist()
        if self._metrics is None:
            return
        last, names = self.position.step, getattr(self.objective, "part_names", ())
        rows = [
            {**self._row(last - len(waiting) + index + 1, loss, update), **_applying(names, terms)}
            for index, (loss, terms, update) in enumerate(zip(losses, parts, waiting, strict=True))
        ]
        self._metrics.write(rows)
        get_console().note(_summary(rows))

    def _row(self, step: int, loss: float, update: _Update) -> dict[str, Any]:
        # Forward and backward pass of the layers, six operations per weight and token; attention comes on top.
        tflops = 6e-12 * self._num_weights * update.tokens / update.seconds
        row = {
            "step": step,
            "epoch": update.epoch,
            "loss": loss,
            "learning_rate": update.rate,
            "gradient_norm": update.result.norm,
            "seconds": update.seconds,
            "data_seconds": update.data_seconds,
            "samples_per_second": update.samples * self.team.data_size / update.seconds,
            "tokens_per_second": update.tokens * self.team.data_size / update.seconds,
            "tflops": tflops,
            "sizes": update.sizes,
        }
        if self._peak is not None:
            row["mfu"] = tflops / self._peak
        if self.encoders.device.type == "cuda":
            row["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return row

    def _note_bad(self, batch: Batch) -> None:
        """Keep the names of clips that could not be read; SoraError when they are too many."""
        self._clips += len(batch.rows) + len(batch.bad)
        if not batch.bad:
            return
        with (self.folder / BAD_FILES).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(one._asdict()) + "\n" for one in batch.bad)
        for one in batch.bad:
            self._bad[one.reason] += 1
            get_console().warn(f"row {one.row + 1}, {one.path}: {one.detail}; another clip takes its place")
        share = sum(self._bad.values()) / self._clips
        if self._clips >= FEWEST_CLIPS and share > self.config.data.max_bad_share:
            counts = [f"{count} times: {reason}" for reason, count in self._bad.most_common()]
            raise SoraError(
                f"{share:.0%} of the clips cannot be read, more than data.max_bad_share allows",
                hint="\n".join([*counts, f"they are named in {self.folder / BAD_FILES}"]),
            )

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The validation loss and sample videos, when it is time."""
        settings, step = self.config.validation, self.position.step
        if self._looked_step == step:
            return
        self._looked_step = step
        if self.validation is not None and step % settings.every == 0:
            self._log(force=True)  # rows are in the order of their updates
            losses = self.validation.run(self.engine.network)
            if self._metrics is not None:
                self._metrics.write([{"step": step, **{f"validation_{name}": loss for name, loss in losses.items()}}])
                get_console().note(f"update {step}: validation loss {losses['all']:.4f}")
        if self.previews is not None and step % self.sample_every == 0:
            for path in self.previews.run(self.engine.network, step, writes=self.is_main):
                get_console().note(f"sample {path}")

    # -- keeping -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Start writing a checkpoint of the state as it is."""
        self._log(force=True)
        files: dict[str, dict[str, Tensor]] = self.engine.files()
        if self.adversary is not None:
            files |= self.adversary.files()
        self._saved_step = self.position.step
        if not self.is_main and not self.engine.has_pieces:
            return
        record = {
            **asdict(self.position),
            "identity": dict(self.identity),
            "engine": self.engine.record(),
            "lora": self.adapter,
            **({} if self.adversary is None else {"adversary": self.adversary.record()}),
            "buffers": [name for name, _ in self.engine.network.named_buffers()],
            "config": self.config.model_dump(mode="json"),
        }
        self.checkpoints.save(self.position.step, files, record, self.documents)

    def restore(self, files: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.engine.load(files)
        self.engine.load_record(record["engine"])
        if self.adversary is not None and "adversary" in record:  # a run to start from may have had none
            self.adversary.load(files)
            self.adversary.load_record(record["adversary"])
        self.position = Position(**{name: record[name] for name in ("step", "epoch", "consumed", "skipped")})
        self._saved_step = self._looked_step = self.position.step


def _applying(names: Sequence[str], terms: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean of each term over the batches that it applied to; terms that applied to none are left out."""
    return {name: total / count for name, (total, count) in zip(names, terms, strict=True) if count > 0}


def _summary(rows: list[dict[str, Any]]) -> str:
    """One line about the updates since the last one."""
    mean: Callable[[str], float] = lambda name: sum(row[name] for row in rows) / len(rows)  # noqa: E731
    last, seconds = rows[-1], sum(row["seconds"] for row in rows)
    memory = f", {last['memory_gib']:.1f} GiB" if "memory_gib" in last else ""
    used = f"MFU {mean('mfu'):.0%}" if "mfu" in last else f"{mean('tflops'):.3g} TFLOP/s"
    return (
        f"update {last['step']}: loss {mean('loss'):.4f}, gradient {mean('gradient_norm'):.3g}, "
        f"rate {last['learning_rate']:.3g}, {seconds / len(rows):.2f} s each, "
        f"{mean('samples_per_second'):.3g} clips/s, {mean('tokens_per_second'):.3g} tokens/s, {used}, "
        f"waiting for data {sum(row['data_seconds'] for row in rows) / seconds:.0%}{memory}"
    )
