"""Training through ColossalAI's Booster (0.5.0): its DDP, and its ZeRO stage 2, which the released models were trained
with. Where processes share a clip the network is split as with every other engine, and gradients are averaged over all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sora_cli.errors import UsageError
from sora_cli.launch.mesh import Team
from sora_cli.training.ema import Ema
from sora_cli.training.engine import AVERAGE, MODEL, OPTIMIZER, Engine, EngineOptions, Shard, Update

#: Millions of elements that are reduced together, as the released models were trained.
REDUCED_AT_ONCE = 20
PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def make_engine(network: nn.Module, options: EngineOptions, team: Team, shard: Shard | None) -> Engine:
    """The engine for `options.sharding`: none is ColossalAI's DDP, zero2 its ZeRO.

    Raises UsageError for zero3, and for a network that cannot be split over processes that share a clip.
    """
    if team.mesh is None:
        raise UsageError("the parallelism 'colossal' needs several processes", hint="give --gpus, or leave it out")
    if options.sharding == "zero3":
        raise UsageError(
            "the parallelism 'colossal' has no zero3 here", hint="use --sharding zero2, or --parallel torch"
        )
    if team.sequence_size > 1:
        if shard is None:
            raise UsageError(
                "this model cannot be split over processes that share a clip", hint="--sequence-parallel 1"
            )
        shard(network, team.mesh["sequence"].get_group())
    if options.sharding == "none":
        return BoostedEngine(network, options, team)
    return ZeroEngine(network, options)


class BoostedEngine(Engine):
    """Every process has all of the weights; ColossalAI's wrapper of DDP averages the gradients."""

    def __init__(self, network: nn.Module, options: EngineOptions, team: Team) -> None:
        from colossalai.booster import Booster
        from colossalai.booster.plugin import TorchDDPPlugin

        super().__init__(network, options, team)
        self.booster = Booster(plugin=TorchDDPPlugin(broadcast_buffers=False, gradient_as_bucket_view=True))
        self.boosted, *_ = self.booster.boost(network)
        self.model = self.boosted

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Exchange gradients with the last micro-batch only."""
        with contextlib.nullcontext() if is_last else self.booster.no_sync(self.boosted):
            yield


class ZeroEngine(Engine):
    """Gradients, float32 masters and moments are cut over the processes; the weights are whole on each (ZeRO stage 2).

    ColossalAI flattens every parameter, fills it up to a multiple of the processes and gives each an equal slice. The
    average of the weights is cut in the same way.
    """

    def __init__(self, network: nn.Module, options: EngineOptions) -> None:
        from colossalai.booster import Booster
        from colossalai.booster.plugin import LowLevelZeroPlugin
        from colossalai.nn.optimizer import HybridAdam

        if options.dtype not in PRECISIONS:
            raise UsageError("ColossalAI's ZeRO trains in bf16 or fp16", hint="use --dtype bf16")
        self.network, self.options = network, options
        self.loss_scale = None  # ColossalAI keeps its own
        self.trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        state = network.state_dict()
        self.whole = {name: state[name].float().cpu() for name in state if options.keeps_all or name in self.trainable}
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        adam = HybridAdam(
            parameters, lr=0.0, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay, adamw_mode=True
        )
        plugin = LowLevelZeroPlugin(
            stage=2,
            precision=PRECISIONS[options.dtype],
            max_norm=1.0,  # replaced at each update
            reduce_bucket_size_in_m=REDUCED_AT_ONCE,
            initial_scale=2**16,
            cast_inputs=False,
        )
        self.booster = Booster(plugin=plugin)
        self.boosted, self.zero, *_ = self.booster.boost(network, adam)
        self.model = self.boosted
        own = dict(self.boosted.unwrap().named_parameters())
        masters = self.zero.get_working_to_master_map()
        self.slices: dict[str, Tensor] = {name: masters[id(own[name])] for name in self.trainable}
        for name, piece in self.slices.items():  # from float32, not from what rounding left
            piece.data.copy_(self._slice(self.whole[name]))
        self.ema = Ema(self.slices, self.trainable, decay=options.ema_decay)

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Exchange gradients with the last micro-batch only."""
        with contextlib.nullcontext() if is_last else self.booster.no_sync(self.boosted, self.zero):
            yield

    def backward(self, loss: Tensor) -> None:
        """Through the booster, which scales the loss for fp16."""
        self.booster.backward(loss, self.zero)

    def update(self, learning_rate: float, max_norm: float) -> Update:
        """As the base class; ColossalAI clips and leaves an overflow out by itself."""
        self.zero._clip_grad_norm = max_norm
        for group in self.zero.optim.param_groups:
            group["lr"] = learning_rate
        before = next(iter(self.slices.values())).clone()
        self.zero.step()
        self.zero.zero_grad()
        norm = float(self.zero.get_grad_norm() or 0.0)
        is_applied = norm < float("inf") and not (norm == 0.0 and torch.equal(before, next(iter(self.slices.values()))))
        if is_applied:
            self.ema.update(self.slices)
        return Update(norm, is_applied)

    def discard(self) -> None:
        """As the base class, through ColossalAI, which keeps gradients of its own."""
        self.zero.zero_grad()

    def files(self) -> dict[str, dict[str, Tensor]]:
        """As the base class, put together from the slices of all processes."""
        moments: dict[str, Tensor] = {}
        for name, piece in self.slices.items():
            for kind, value in self.zero.optim.state.get(piece, {}).items():
                is_slice = isinstance(value, Tensor) and value.shape == piece.shape
                moments[f"{kind}.{name}"] = self._gather(name, value) if is_slice else torch.as_tensor(float(value))
        weights = {name: self._gather(name, piece) for name, piece in self.slices.items()}
        averages = {name: self._gather(name, piece) for name, piece in self.ema.average.items()}
        return {MODEL: {**self.whole, **weights}, AVERAGE: {**self.whole, **averages}, OPTIMIZER: moments}

    def load(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """As the base class: every process takes its slices."""
        if set(files[AVERAGE]) != set(self.whole):
            odd = sorted(set(files[AVERAGE]) ^ set(self.whole))
            raise ValueError(f"the checkpoint is of another network: {', '.join(odd[:5])}")
        working = dict(self.boosted.unwrap().named_parameters())
        with torch.no_grad():
            for name, piece in self.slices.items():
                piece.copy_(self._slice(files[MODEL][name]))
                working[name].copy_(files[MODEL][name])
                self.ema.average[name].copy_(self._slice(files[AVERAGE][name]))
        for key, value in files.get(OPTIMIZER, {}).items():
            kind, _, name = key.partition(".")
            piece = self.slices[name]
            kept: Any = int(value) if kind == "step" else self._slice(value).to(piece.device)
            self.zero.optim.state[piece][kind] = kept

    def _slice(self, whole: Tensor) -> Tensor:
        """This process's part of a tensor."""
        flat = whole.flatten()
        count, rank = dist.get_world_size(), dist.get_rank()
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % count))
        return flat.view(count, -1)[rank].float()

    def _gather(self, name: str, piece: Tensor) -> Tensor:
        """A tensor like a parameter from the slices of all processes, in main memory."""
        parts = [torch.empty_like(piece) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, piece.detach().contiguous())
        like = self.whole[name]
        return torch.cat([part.flatten() for part in parts])[: like.numel()].view(like.shape).cpu()
