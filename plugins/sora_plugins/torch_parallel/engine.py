"""Training on several devices with torch.distributed: whole copies (DDP), or everything cut into shards (FSDP2).

Gradients are averaged over all processes. Where processes share a clip, each computes the loss of all of it, and the
mean of their gradients is the gradient on one device, so the same average serves both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sora_cli.errors import UsageError
from sora_cli.launch.mesh import TIMEOUT, Team
from sora_cli.training.ema import Ema
from sora_cli.training.engine import AVERAGE, MODEL, OPTIMIZER, Engine, EngineOptions, LossScale, Shard, Update
from sora_cli.training.optimizer import MasterOptimizer


def make_engine(network: nn.Module, options: EngineOptions, team: Team, shard: Shard | None) -> Engine:
    """The engine for `options.sharding`: none is DDP; zero2 and zero3 are FSDP2.

    Raises UsageError for a network that cannot be split over processes that share a clip.
    """
    if team.mesh is None:  # one process
        return Engine(network, options)
    if team.sequence_size > 1:
        if shard is None:
            raise UsageError(
                "this model cannot be split over processes that share a clip", hint="--sequence-parallel 1"
            )
        shard(network, team.mesh["sequence"].get_group())
    return CopiedEngine(network, options, team) if options.sharding == "none" else ShardedEngine(network, options, team)


class CopiedEngine(Engine):
    """Every process has all of the weights; torch's DDP averages gradients while the backward pass runs."""

    def __init__(self, network: nn.Module, options: EngineOptions, team: Team) -> None:
        super().__init__(network, options, team)
        device = next(network.parameters()).device
        devices = [device.index] if device.type == "cuda" else None
        self.copies = nn.parallel.DistributedDataParallel(
            network, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        self.model = self.copies

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Exchange gradients with the last micro-batch only."""
        with contextlib.nullcontext() if is_last else self.copies.no_sync():
            yield


class _ShardedOptimizer(MasterOptimizer):
    """Parameters are this process's pieces; the norm is of all of them."""

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """The norm over all processes."""
        device = next(iter(self.masters.values())).device
        own = torch.tensor(super().norm(gradients), dtype=torch.float64, device=device).square()
        dist.all_reduce(own)
        return float(own.sqrt())


class ShardedEngine(Engine):
    """Every process keeps a piece of each float32 weight, of its moments and of its average (FSDP2).

    Weights are put together, in the training format, block by block while they are used: zero3 forgets them after the
    forward pass of a block, zero2 keeps them for the backward pass. For a checkpoint the first process receives the
    pieces of the others while training goes on: one file of each kind, wherever the processes run, for any engine.
    """

    has_pieces = True

    def __init__(self, network: nn.Module, options: EngineOptions, team: Team) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self.network, self.options = network, options
        self.model = network
        self.loss_scale = LossScale() if options.dtype == torch.float16 else None
        self.trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        self.buffers = dict(network.named_buffers()) if options.keeps_all else {}
        device = next(network.parameters()).device
        self.mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("world",))
        policy = MixedPrecisionPolicy(
            # Without a format of its own the network would be told that it needs none.
            param_dtype=None if options.dtype == torch.float32 else options.dtype,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # the network rounds what it wants rounded, times and sizes not among it
        )
        parts: Any = network
        for block in parts.blocks() if hasattr(network, "blocks") else []:
            fully_shard(block, mesh=self.mesh, mp_policy=policy, reshard_after_forward=options.sharding == "zero3")
        fully_shard(network, mesh=self.mesh, mp_policy=policy, reshard_after_forward=False)
        self.shards: dict[str, Any] = {
            name: parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad or options.keeps_all
        }
        pieces = {name: nn.Parameter(_own(whole), whole.requires_grad) for name, whole in self.shards.items()}
        self.optimizer = _ShardedOptimizer(
            pieces, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay
        )
        self.ema = Ema({**pieces, **self.buffers}, self.trainable, decay=options.ema_decay)
        # Of its own, because a thread uses it beside the exchange of gradients.
        self.writers = dist.new_group(backend="gloo", timeout=TIMEOUT)

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Exchange gradients with the last micro-batch only."""
        network: Any = self.network
        network.set_requires_gradient_sync(is_last)
        yield

    def update(self, learning_rate: float, max_norm: float) -> Update:
        """As the base class, on this process's pieces."""
        for name, piece in self.optimizer.parameters.items():
            whole = self.shards[name]
            piece.grad = None if whole.grad is None else _own(whole.grad)
            whole.grad = None
        return super().update(learning_rate, max_norm)

    def files(self) -> dict[str, dict[str, Tensor]]:
        """As the base class, this process's pieces."""
        weights = {name: _own(shard) for name, shard in self.shards.items()}
        buffers = {name: self.ema.average[name] for name in self.buffers}
        return {MODEL: {**weights, **buffers}, AVERAGE: self.ema.average, OPTIMIZER: self.optimizer.moments()}

    def assemble(self, files: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Mapping[str, Tensor]]:
        """As the base class; the other processes only send."""
        found: dict[str, dict[str, Tensor]] = {}
        for file, pieces in files.items():
            found[file] = {}
            for key, piece in pieces.items():
                kind, _, name = key.partition(".") if file == OPTIMIZER else ("", "", key)
                # Buffers and the count of updates are the same everywhere.
                is_cut = name in self.shards and kind != "step"
                found[file][key] = self._gather(piece, self.shards[name].shape) if is_cut else piece
        return found

    def load(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """As the base class: every process takes its pieces."""
        if set(files[AVERAGE]) != set(self.ema.average):
            odd = sorted(set(files[AVERAGE]) ^ set(self.ema.average))
            raise ValueError(f"the checkpoint is of another network: {', '.join(odd[:5])}")
        moments = {
            key: value if key.startswith("step.") else self._piece(value)
            for key, value in files.get(OPTIMIZER, {}).items()
        }
        self.optimizer.load({name: self._piece(files[MODEL][name]) for name in self.optimizer.masters}, moments)
        for name in set(self.ema.average) - set(self.optimizer.masters):
            saved = files[MODEL][name]
            if name in self.shards:
                _own(self.shards[name]).copy_(self._piece(saved))
            else:
                self.buffers[name].copy_(saved)
        for name, tensor in self.ema.average.items():
            saved = files[AVERAGE][name]
            tensor.copy_(self._piece(saved) if name in self.shards else saved)

    def _gather(self, piece: Tensor, shape: torch.Size) -> Tensor:
        """On the first process a whole tensor, from the rows that each process has, in main memory."""
        if dist.get_rank() != 0:
            if piece.numel():
                dist.send(piece, 0, group=self.writers)
            return piece
        whole = torch.empty(shape, dtype=piece.dtype)
        for rank, rows in enumerate(whole.chunk(dist.get_world_size())):
            if rank == 0:
                rows.copy_(piece)
            else:
                dist.recv(rows, rank, group=self.writers)
        return whole

    def _piece(self, whole: Tensor) -> Tensor:
        """This process's rows, as FSDP2 cuts them."""
        parts = whole.chunk(dist.get_world_size())
        rank = dist.get_rank()
        return parts[rank] if rank < len(parts) else whole[:0]


def _own(cut: Any) -> Tensor:
    """This process's piece of a distributed tensor, sharing its memory."""
    piece: Tensor = cut.to_local().detach()
    return piece
