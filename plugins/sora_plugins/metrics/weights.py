"""From files of weights to measures: names in published files, and the channel weights that come with the package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.weights.load import Network, fill_network, read_tensors

from .flolpips import FloLpips
from .frames import FrameMetric
from .i3d import I3D
from .inception import CLASSES, Inception
from .lpips import Lpips, ScalingLayer
from .pwc import PwcNet
from .trunks import ALEXNET, VGG16

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

TRUNKS = {"alexnet": ALEXNET, "vgg16": VGG16}
_FEATURES = re.compile(r"features\.(\d+\.(?:weight|bias))$")


def load_lpips(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """LPIPS with AlexNet: the mean over all pixels of the map of distances. weights: "alexnet"."""
    network = read_lpips("alexnet", weights["alexnet"], device)
    return FrameMetric(
        lambda reference, frames: network.spatial(2 * reference - 1, 2 * frames - 1).mean(dim=(1, 2, 3)),
        device,
        min_side=network.config.min_side,
    )


def load_lpips_vgg(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """LPIPS with VGG-16: the mean of each tap's map by itself, as in training. weights: "vgg16"."""
    network = read_lpips("vgg16", weights["vgg16"], device)
    return FrameMetric(
        lambda reference, frames: network(2 * reference - 1, 2 * frames - 1), device, min_side=network.config.min_side
    )


def lpips_vgg_loss(weights: Mapping[str, LocatedWeights], device: torch.device, dtype: torch.dtype) -> Lpips:
    """LPIPS with VGG-16 to train for, its trunk in `dtype`. weights: "vgg16"."""
    return read_lpips("vgg16", weights["vgg16"], device, dtype)


def load_flolpips(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """FloLPIPS with AlexNet and PWC-Net. weights: "alexnet" and "pwc"."""
    network = FloLpips(read_lpips("alexnet", weights["alexnet"], device), read_pwc(weights["pwc"], device))
    return FrameMetric(network, device, overlap=1, min_side=network.lpips.config.min_side)


def read_lpips(part: str, weights: LocatedWeights, device: torch.device, dtype: torch.dtype = torch.float32) -> Lpips:
    """LPIPS with the trunk "alexnet" or "vgg16", frozen, on `device`; dtype: of the trunk.

    weights: torchvision's file of the trunk, or one of a whole LPIPS network with its own channel weights.
    Raises SoraError for a file of something else.
    """
    with torch.device("meta"):
        network = Lpips(TRUNKS[part])
    given = lpips_names(read_tensors(weights.files), network.state_dict())
    tensors = {**lpips_constants(part), **given}
    network = _filled(network, tensors, weights, part=part, title=network.config.title).to(device)
    network.net.to(dtype)
    return network


def read_pwc(weights: LocatedWeights, device: torch.device) -> PwcNet:
    """PWC-Net, frozen, on `device`. Raises SoraError for a file of something else."""
    with torch.device("meta"):
        network = PwcNet()
    tensors = {name.replace("module", "net"): tensor for name, tensor in read_tensors(weights.files).items()}
    return _filled(network, tensors, weights, part="pwc", title="PWC-Net").to(device)


def read_inception(weights: LocatedWeights, device: torch.device) -> Inception:
    """Inception v3 of FID, frozen, on `device`. Raises SoraError for a file of something else, also torchvision's."""
    tensors = read_tensors(weights.files)
    if "fc.weight" in tensors and len(tensors["fc.weight"]) != CLASSES:
        raise SoraError(
            f"{weights.files[0]} holds another Inception than the one that FID is defined with",
            hint="give pt_inception-2015-12-05-6726825d.pth with --metric-weights inception=FILE",
        )
    with torch.device("meta"):
        network = Inception()
    return _filled(network, _without(tensors, "fc.", "AuxLogits."), weights, part="inception", title="Inception").to(
        device
    )


def read_i3d(weights: LocatedWeights, device: torch.device) -> I3D:
    """I3D of FVD, frozen, on `device`. Raises SoraError for a file of something else."""
    with torch.device("meta"):
        network = I3D()
    return _filled(network, _without(read_tensors(weights.files)), weights, part="i3d", title="I3D").to(device)


def _without(tensors: Mapping[str, Tensor], *starts: str) -> dict[str, Tensor]:
    """The tensors but those whose names start so, and without counts of batches, which training alone needs."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(starts) and not name.endswith("num_batches_tracked")
    }


def lpips_constants(part: str) -> dict[str, Tensor]:
    """The published channel weights for a trunk, and the scaling of colours, by the names of `Lpips`."""
    from safetensors.torch import load

    published = load((files(__package__) / "linear" / f"{part}.safetensors").read_bytes())
    return {**published, **ScalingLayer().state_dict(prefix="scaling_layer.")}


def lpips_names(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of torchvision's classifier, or of a whole LPIPS network, by the names of `Lpips`, which are `names`."""
    numbered = {name.split(".", 2)[2]: name for name in names if name.startswith("net.")}
    renamed = {}
    for name, tensor in tensors.items():
        # The layers behind the features are not used; `lins` are the same tensors as `lin0` .. `lin4`.
        if not name.startswith(("classifier.", "lins.")):
            match = _FEATURES.match(name)
            renamed[numbered.get(match[1], name) if match else name] = tensor
    return renamed


def _filled(
    network: Network, tensors: Mapping[str, Tensor], weights: LocatedWeights, *, part: str, title: str
) -> Network:
    """The network, built on the meta device, with exactly these tensors in float32. Raises SoraError."""
    hint = f"give the right file with --metric-weights {part}=FILE"
    return fill_network(network, tensors, source=weights.files[0], title=title, hint=hint)
