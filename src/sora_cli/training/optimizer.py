"""AdamW or Muon on float32 master weights, with the gradient clipped by its global norm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sora_cli.errors import MissingError, UsageError

#: Added to the norm before it is compared with the limit.
NORM_EPSILON = 1e-6
#: What Muon keeps of a parameter, which AdamW does not.
MUON_STATE = "momentum_buffer"


class MasterOptimizer:
    """Updates float32 copies of the trainable parameters and writes them back in the parameters' own format.

    A parameter in float32 is its own master. Masters start from the float32 weights where those are given, not from
    what rounding to bf16 left of them.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        sources: Mapping[str, Tensor] | None = None,
        matrices: Collection[str] = (),
        matrix_rate: float = 1.0,
    ) -> None:
        """parameters: the network's by name; frozen ones are left alone. sources: their weights in float32.

        matrices: names of those that Muon updates, at `matrix_rate` times the learning rate of the others. Raises
        MissingError when torch has no Muon.
        """
        sources = sources or {}
        self.parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        self.masters: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            if parameter.dtype == torch.float32:
                if name in sources:
                    parameter.data.copy_(sources[name])
                self.masters[name] = parameter
            else:
                source = sources.get(name, parameter.detach()).to(parameter.device)
                self.masters[name] = source.to(torch.float32, copy=True).requires_grad_()
        #: Optimizers, each with the factor of the learning rate for its parameters.
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = []
        if rest := [master for name, master in self.masters.items() if name not in matrices]:
            adam = torch.optim.AdamW(rest, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
            self.optimizers.append((adam, 1.0))
        if wide := [master for name, master in self.masters.items() if name in matrices]:
            self.optimizers.append((_muon(wide, weight_decay), matrix_rate))
        self._of = {
            parameter: optimizer
            for optimizer, _ in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    @torch.no_grad()
    def step(self, learning_rate: float, max_norm: float = 0.0, *, scale: float = 1.0) -> float:
        """One update from the gradients in the parameters, which are cleared. Returns their norm before clipping.

        max_norm: limit of the global L2 norm, 0 for none. scale: what the loss was multiplied by. A norm that is not
        finite changes nothing.
        """
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        if scale != 1.0 and gradients:
            torch._foreach_div_(gradients, scale)
        norm = self.norm(gradients)
        if torch.isfinite(torch.tensor(norm)):
            divisor = (norm + NORM_EPSILON) / max_norm if max_norm > 0 else 1.0
            if divisor > 1:
                torch._foreach_div_(gradients, divisor)
            for optimizer, factor in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * factor
                optimizer.step()
            for name, parameter in self.parameters.items():
                if self.masters[name] is not parameter:
                    parameter.copy_(self.masters[name])
        for optimizer, _ in self.optimizers:
            optimizer.zero_grad()
        return norm

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """The norm that is limited."""
        return global_norm(gradients)

    def moments(self) -> dict[str, Tensor]:
        """The optimizers' own state by name: `exp_avg.<parameter>` and so on; empty before the first update."""
        return {
            f"{kind}.{name}": value
            for name, master in self.masters.items()
            for kind, value in self._of[master].state.get(master, {}).items()
        }

    @torch.no_grad()
    def load(self, masters: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Go on from saved masters and moments. Raises ValueError when they are of other parameters or optimizers."""
        saved = {name.partition(".")[2] for name in moments}
        if odd := sorted((set(self.masters) - set(masters)) | (saved - set(self.masters))):
            raise ValueError(f"the optimizer state is of other parameters: {', '.join(odd[:5])}")
        for key in moments:
            kind, _, name = key.partition(".")
            if (kind == MUON_STATE) != isinstance(self._of[self.masters[name]], _muon_class()):
                raise ValueError(f"the optimizer state of {name} is another optimizer's, see optimizer.name")
        for name, master in self.masters.items():
            master.copy_(masters[name])
            self.parameters[name].copy_(master)
        for optimizer, _ in self.optimizers:
            optimizer.state.clear()
        for key, value in moments.items():
            kind, _, name = key.partition(".")
            master = self.masters[name]
            self._of[master].state[master][kind] = value.to(master.device, copy=True)


def _muon_class() -> tuple[Any, ...]:
    return (torch.optim.Muon,) if hasattr(torch.optim, "Muon") else ()


def _muon(parameters: Sequence[Tensor], weight_decay: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) with steps as large as AdamW's (Liu et al. 2025, arXiv 2502.16982)."""
    if not _muon_class():
        raise MissingError(
            f"optimizer.name muon needs torch 2.9 or newer, and this is {torch.__version__}",
            hint="pip install -U torch, or use optimizer.name adamw",
        )
    return torch.optim.Muon(parameters, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")


def blocks_of(network: Any, wanted_by: str) -> Sequence[nn.Module]:
    """The large parts of a network. Raises UsageError for one that does not name them."""
    if not hasattr(network, "blocks"):
        raise UsageError(
            f"{wanted_by} works on the blocks of a network, and {type(network).__name__} has no blocks()",
            hint="its plugin has to name them; see DiffusionModel in sora_cli.plugin.protocols",
        )
    blocks: Sequence[nn.Module] = network.blocks()
    return blocks


def matrix_names(network: Any) -> frozenset[str]:
    """Names of the weights of linear layers in the blocks of a network, as far as they are trained."""
    inside = {module for block in blocks_of(network, "optimizer.name muon") for module in block.modules()}
    return frozenset(
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module in inside and module.weight.requires_grad
    )


def global_norm(gradients: Sequence[Tensor]) -> float:
    """The L2 norm of all gradients together, summed in double."""
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
    return float(torch.stack(norms).square().sum().sqrt())
