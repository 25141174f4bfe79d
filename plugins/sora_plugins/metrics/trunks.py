"""The image networks that LPIPS looks with, cut into five slices, under the names of the published LPIPS files."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn


class Conv(NamedTuple):
    """A convolution with bias and the ReLU behind it."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Pool(NamedTuple):
    """The largest of each kernel x kernel pixels, at every second pixel."""

    kernel: int


class TrunkConfig(NamedTuple):
    """slices: layers up to each tap. min_side: the smallest frame, in pixels, of which something is left at the end."""

    title: str
    slices: tuple[tuple[Conv | Pool, ...], ...]
    min_side: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at the five taps."""
        return tuple(layers[-1].outputs for layers in self.slices if isinstance(layers[-1], Conv))


#: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", as torchvision trained it.
#: 31 pixels: (31 - 7) / 4 + 1 = 7, pooled to 3, pooled to 1.
ALEXNET = TrunkConfig(
    "AlexNet",
    (
        (Conv(3, 64, kernel=11, stride=4, padding=2),),
        (Pool(3), Conv(64, 192, kernel=5, padding=2)),
        (Pool(3), Conv(192, 384)),
        (Conv(384, 256),),
        (Conv(256, 256),),
    ),
    min_side=31,
)
#: Simonyan and Zisserman 2015, configuration D, as torchvision trained it. 16 pixels are halved four times.
VGG16 = TrunkConfig(
    "VGG-16",
    (
        (Conv(3, 64), Conv(64, 64)),
        (Pool(2), Conv(64, 128), Conv(128, 128)),
        (Pool(2), Conv(128, 256), Conv(256, 256), Conv(256, 256)),
        (Pool(2), Conv(256, 512), Conv(512, 512), Conv(512, 512)),
        (Pool(2), Conv(512, 512), Conv(512, 512), Conv(512, 512)),
    ),
    min_side=16,
)


class Trunk(nn.Module):
    """Five slices `slice1` .. `slice5`; their layers keep the numbers that they have in torchvision's `features`."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        number = 0
        for position, layers in enumerate(config.slices, start=1):
            modules: OrderedDict[str, nn.Module] = OrderedDict()
            for layer in layers:
                if isinstance(layer, Pool):
                    modules[str(number)] = nn.MaxPool2d(layer.kernel, stride=2)
                    number += 1
                    continue
                modules[str(number)] = nn.Conv2d(*layer)
                modules[str(number + 1)] = nn.ReLU(inplace=True)
                number += 2
            self.add_module(f"slice{position}", nn.Sequential(modules))

    def slices(self) -> list[nn.Module]:
        """The slices in order; each takes what the one before gives."""
        return list(self.children())

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at the five taps, of scaled images (N, 3, H, W)."""
        taps = []
        for part in self.slices():
            x = part(x)
            taps.append(x)
        return taps
