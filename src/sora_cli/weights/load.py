"""Loading weights into a network that was built without any: no memory spent twice, nothing missing unnoticed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sora_cli.console import get_console
from sora_cli.errors import SoraError

if TYPE_CHECKING:
    from sora_cli.plugin.specs import StartWeights

    from .locate import LocatedWeights

Network = TypeVar("Network", bound=nn.Module)
#: How many names a report lists before it only counts.
MAX_NAMES = 10
#: Where files of image models keep their tensors, beside what training left there.
WRAPPERS = ("ema", "state_dict")
NOT_TENSORS = "it is not a file of PyTorch, or not one of tensors"


class _ShapesOnly(TorchFunctionMode):
    """Beside `torch.device("meta")`: what draws initial values, and scales them, leaves tensors without values alone.

    torch computes the shapes of these operations in Python, for which it imports its compiler: a second of every start.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn and not {"generator", "device"} & kwargs.keys():
            return torch.empty(*args, **kwargs)
        if func is nn.init.normal_ and kwargs["tensor"].is_meta:
            return kwargs["tensor"]
        if func is Tensor.div and args[0].is_meta and args[0].is_floating_point() and isinstance(args[-1], float):
            return torch.empty(args[0].shape, dtype=args[0].dtype, device="meta")
        return func(*args, **kwargs)


def load_network(
    build: Callable[[], nn.Module],
    weights: LocatedWeights,
    *,
    what: str,
    device: torch.device,
    dtype: torch.dtype,
    map_keys: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    strict: bool = True,
    start: Callable[[dict[str, Tensor]], StartWeights] | None = None,
) -> nn.Module:
    """The network of `build`, with these weights, on `device`, in evaluation mode, needing no gradients.

    build: makes the network; called on the meta device, so it allocates nothing. map_keys: from the file's names to
    the network's. Parameters get `dtype`; buffers keep the file's number format, since tables of positions and the
    like are not to be rounded. start: what to make of the file for training, instead of map_keys; what it allows to be
    missing keeps the network's initial values, and is said. Raises SoraError naming missing, unexpected and mis-shaped
    tensors; strict=False only warns of them, and what is missing keeps the network's initial values.
    """
    with torch.device("meta"), _ShapesOnly():
        network = build()
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}

    tensors = read_tensors(weights.files)
    if start is not None:
        tensors = _started(build, network, start(tensors))
    elif map_keys is not None:
        tensors = map_keys(tensors)
    if strict:
        check_tensors(network, tensors, what=what, source=weights.folder)
    elif problems := tensor_problems(network, tensors):
        get_console().warn("\n  ".join([f"the weights in {weights.folder} do not fit {what}", *problems]))
        tensors = _fitting(build, network, tensors)
    # One tensor after the other, so that a second copy exists of no more than one. A tensor with two names, such as a
    # table of embeddings that two parts use, stays one tensor.
    seen: dict[tuple[object, ...], str] = {}
    firsts = {name: seen.setdefault(_identity(tensor), name) for name, tensor in tensors.items()}
    for name, first in firsts.items():
        if name != first:
            tensors[name] = tensors[first]
            continue
        is_rounded = name in parameters and tensors[name].is_floating_point()
        tensors[name] = tensors[name].to(device, dtype if is_rounded else tensors[name].dtype)
    network.load_state_dict(tensors, strict=True, assign=True)
    network.requires_grad_(False).eval()
    left = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    if left:
        raise TypeError(f"{type(network).__name__} has buffers that are not in its state dict: {', '.join(left)}")
    return network.to(device)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two tensors that are the same bytes seen in the same way."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _started(build: Callable[[], nn.Module], network: nn.Module, given: StartWeights) -> dict[str, Tensor]:
    """The tensors that were given, and initial values where they may be missing."""
    missing = network.state_dict().keys() - given.tensors.keys()
    fresh = {name for name in missing if any(f".{part}" in f".{name}." for part in given.initial)}
    if not fresh:
        return dict(given.tensors)
    parts = sorted({part.strip(".") for part in given.initial if any(f".{part}" in f".{name}." for name in fresh)})
    get_console().note(f"not in the starting weights, so new: {', '.join(parts)}")
    initial = build().state_dict()
    return {**given.tensors, **{name: initial[name] for name in fresh}}


def _fitting(build: Callable[[], nn.Module], network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that fit the network, and its initial values where none does."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    fitting = {name: tensor for name, tensor in tensors.items() if shapes.get(name) == tensor.shape}
    return {**build().state_dict(), **fitting}


def fill_network(network: Network, tensors: Mapping[str, Tensor], *, source: Path, title: str, hint: str) -> Network:
    """A network built on the meta device, with exactly these tensors in float32, frozen and for evaluation.

    source, title, hint: whose weights they are to be and how to give others, for the message of the SoraError.
    """
    problems = tensor_problems(network, tensors)
    if problems:
        raise SoraError(f"the weights in {source} are not those of {title}", hint="\n".join([*problems, hint]))
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def read_tensors(
    files: Sequence[Path], *, device: torch.device | str = "cpu", wrappers: Sequence[str] = WRAPPERS
) -> dict[str, Tensor]:
    """All tensors of one or several files (shards) by name; pickled ones are read with `weights_only=True`.

    wrappers: keys under which a pickled file may keep them.
    Raises SoraError for a damaged file, one that needs more than tensors to unpickle, or a name in two files.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read_file(file, device, wrappers).items():
            if name in tensors:
                raise SoraError(f"{name} is in more than one of {', '.join(path.name for path in files)}")
            tensors[name] = tensor
    return tensors


def _read_file(file: Path, device: torch.device | str, wrappers: Sequence[str]) -> Mapping[str, Tensor]:
    import pickle

    from safetensors import SafetensorError

    try:
        if file.suffix == ".safetensors":
            return _read_safetensors(file, device)
        if _is_program(file):
            raise SoraError(
                f"{file} is a program (TorchScript), which is not run", hint="give a file that holds tensors alone"
            )
        content = torch.load(file, map_location=device, weights_only=True, mmap=_can_map(file))
    except pickle.UnpicklingError as error:
        # torch says which of the objects it refused after a paragraph on how to load them all the same.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise _unreadable(file, NOT_TENSORS) from error
        raise SoraError(
            f"{file} holds more than tensors and is not loaded: {refused[1]}",
            hint="convert it to safetensors where you trust it",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise _unreadable(file, str(error)) from error
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:  # from reading other bytes as pickle
        raise _unreadable(file, NOT_TENSORS) from error
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = (
            ", ".join(map(str, list(content)[:MAX_NAMES])) if isinstance(content, Mapping) else type(content).__name__
        )
        raise SoraError(f"{file} is not a table of tensors (it holds: {keys})")
    return content


def _read_safetensors(file: Path, device: torch.device | str) -> dict[str, Tensor]:
    """All tensors, each with a mapping of the file of its own, so that what was read of one goes when it goes.

    In main memory nothing is read before it is used.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
    tensors = {}
    for name in names:
        with safe_open(file, framework="pt", device=str(device)) as opened:
            tensors[name] = opened.get_tensor(name)
    return tensors


def _is_program(file: Path) -> bool:
    """Whether it is an archive of TorchScript, which has a table of constants beside its code."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(Path(name).name == "constants.pkl" for name in archive.namelist())


def _can_map(file: Path) -> bool:
    """Whether torch can read the file piece by piece: only archives, not the oldest format."""
    return zipfile.is_zipfile(file)


def _unreadable(file: Path, reason: str) -> SoraError:
    return SoraError(f"cannot read the weights file {file}: {reason}", hint="it may be cut off; fetch it again")


def check_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, what: str, source: Path) -> None:
    """Raise SoraError unless `tensors` are exactly the state of `network`, by name and shape."""
    problems = tensor_problems(network, tensors)
    if problems:
        raise SoraError(
            f"the weights in {source} do not fit {what}",
            hint="\n".join(
                [*problems, "is this the right --variant, and the right file?", "--no-strict loads what does fit"]
            ),
        )


def tensor_problems(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Lines on what is missing, unexpected or of another shape in comparison with `network`; none when all fits."""
    wanted = network.state_dict()
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = {
        "missing": wanted.keys() - tensors.keys(),
        "unexpected": tensors.keys() - wanted.keys(),
        "of another shape": shapes,
    }
    return [f"{len(names)} {kind}: {_listed(sorted(names))}" for kind, names in problems.items() if names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
