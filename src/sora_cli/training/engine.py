"""How a network is updated: on one device. Parallelism plugins build on this for several.

The network computes in the training format; float32 masters are updated and written back. An update whose
gradient is not finite is left out: it changes no weight, no moment and no average.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sora_cli.console import get_console

from .ema import Ema
from .optimizer import MasterOptimizer, blocks_of

if TYPE_CHECKING:
    from sora_cli.launch.mesh import Team

Shard = Callable[[Any, Any], None]
MODEL, AVERAGE, OPTIMIZER = "model", "ema", "optimizer"


@dataclass(frozen=True)
class EngineOptions:
    """How a network is trained. dtype: of its parameters while it computes; sharding: none, zero2 or zero3.

    keeps_all: checkpoints hold all weights, not only those that are trained. matrices, matrix_rate: see
    `MasterOptimizer`.
    """

    dtype: torch.dtype = torch.float32
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    sharding: str = "none"
    keeps_all: bool = True
    matrices: frozenset[str] = frozenset()
    matrix_rate: float = 1.0


class Update(NamedTuple):
    """What an update did. norm: of the gradient before clipping; is_applied: False when it was left out."""

    norm: float
    is_applied: bool


class LossScale:
    """Dynamic scale of the loss for float16 gradients (Micikevicius et al. 2018, arXiv 1710.03740)."""

    FIRST, LARGEST, PATIENCE, HYSTERESIS = 2.0**16, 2.0**32, 1000, 2

    def __init__(self) -> None:
        self.value, self.good, self.hysteresis = self.FIRST, 0, self.HYSTERESIS

    def update(self, is_finite: bool) -> None:
        """After an update: double after 1000 good ones, halve on the second overflow in a row and further ones."""
        if is_finite:
            self.good, self.hysteresis = self.good + 1, self.HYSTERESIS
            if self.good == self.PATIENCE:
                self.value, self.good = min(self.value * 2, self.LARGEST), 0
            return
        self.good, self.hysteresis = 0, self.hysteresis - 1
        if self.hysteresis <= 0:
            self.value = max(self.value / 2, 1.0)

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"value": self.value, "good": self.good, "hysteresis": self.hysteresis}

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.value, self.good, self.hysteresis = float(state["value"]), int(state["good"]), int(state["hysteresis"])


class Engine:
    """One device. model: what is called in training."""

    #: Whether each process has pieces of the state, which `assemble` puts together.
    has_pieces = False

    def __init__(
        self, network: nn.Module, options: EngineOptions, team: Team | None = None, shard: Shard | None = None
    ) -> None:
        """network: on its device, all floating-point parameters in float32, those not to be trained without gradients.

        shard: splits a call of the network over processes (`ModelSpec.shard`), which one device does not need.
        """
        self.network, self.options = network, options
        self.model: Callable[..., Any] = network
        self.loss_scale = LossScale() if options.dtype == torch.float16 else None
        self.trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        state = network.state_dict()
        kept = state if options.keeps_all else {name: state[name] for name in self.trainable}
        self.ema = Ema(kept, self.trainable, decay=options.ema_decay)
        sources = {name: parameter.detach() for name, parameter in network.named_parameters()}
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(options.dtype)
        self.optimizer = MasterOptimizer(
            dict(network.named_parameters()),
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
            sources=sources,
            matrices=options.matrices,
            matrix_rate=options.matrix_rate,
        )

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Around the forward and backward pass of each micro-batch of an update."""
        yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of this update."""
        (loss if self.loss_scale is None else loss * self.loss_scale.value).backward()

    def update(self, learning_rate: float, max_norm: float) -> Update:
        """Update the weights and their average from the gradients so far, and clear these."""
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        norm = self.optimizer.step(learning_rate, max_norm, scale=scale)
        is_applied = norm < float("inf")  # False for nan too
        if is_applied:
            self.ema.update(self.optimizer.masters)
        if self.loss_scale is not None:
            self.loss_scale.update(is_applied)
        return Update(norm, is_applied)

    def discard(self) -> None:
        """Forget the gradients so far."""
        for parameter in self.network.parameters():
            parameter.grad = None

    # -- state -------------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, dict[str, Tensor]]:
        """All tensors to go on from in float32: weights, their averages, and the optimizer's moments.

        Every process calls it; what it returns on the first one counts, unless the engine `has_pieces`.
        """
        masters = {name: master.detach() for name, master in self.optimizer.masters.items()}
        # Frozen weights and buffers are in the averages as they were given, before rounding.
        return {
            MODEL: {**self.ema.average, **masters},
            AVERAGE: self.ema.average,
            OPTIMIZER: self.optimizer.moments(),
        }

    def assemble(self, files: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Mapping[str, Tensor]]:
        """The whole tensors, on the first process, from what `files` gave to each, copied to main memory.

        Every process of an engine that `has_pieces` calls it, from a thread beside the training.
        """
        return files

    def load(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from whole tensors. Raises ValueError when they are of another network."""
        if set(files[AVERAGE]) != set(self.ema.average):
            odd = sorted(set(files[AVERAGE]) ^ set(self.ema.average))
            raise ValueError(f"the checkpoint is of another network: {', '.join(odd[:5])}")
        self.optimizer.load(files[MODEL], files.get(OPTIMIZER, {}))
        for name, tensor in self.network.state_dict().items():
            if name in files[MODEL] and name not in self.optimizer.masters:
                tensor.copy_(files[MODEL][name])
        for name, tensor in self.ema.average.items():
            tensor.copy_(files[AVERAGE][name])

    def record(self) -> dict[str, Any]:
        """The rest of the state, for JSON."""
        return {} if self.loss_scale is None else {"loss_scale": self.loss_scale.state()}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Go on from `record`."""
        if self.loss_scale is not None and "loss_scale" in record:
            self.loss_scale.load(record["loss_scale"])


def use_gradient_checkpointing(network: Any, share: float = 1.0) -> None:
    """Compute blocks of a network again in the backward pass instead of keeping what they computed.

    Chen et al. 2016, arXiv 1604.06174. A network without `blocks()`, its large parts, is left as it is, and that is
    said. share: of the blocks, evenly spread; the others keep what they computed, for memory that is left.
    """
    from torch.utils.checkpoint import checkpoint

    if not hasattr(network, "blocks"):
        get_console().note(f"{type(network).__name__} names no blocks(): nothing is computed again to save memory")
        return
    for index, block in enumerate(network.blocks()):
        if int((index + 1) * share) > int(index * share):
            block.forward = _checkpointed(block.forward, checkpoint)


def _checkpointed(forward: Callable[..., Any], checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    def call(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return call


def compile_blocks(network: Any) -> None:
    """Compile each block of a network with torch.compile; sizes may vary."""
    for block in blocks_of(network, "compile"):
        block.compile(dynamic=True)
