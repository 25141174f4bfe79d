"""PWC-Net: optical flow between two frames, in plain tensor operations.

Source: Sun et al. 2018, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", in the form whose
weights were published as `network-default.pytorch`. Names of modules are those of that file with `net` for `module`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Frames are resized to multiples of this, since the pyramid halves them six times.
MULTIPLE = 64
#: How far correlation looks in each direction, in pixels of its level; (2 * 4 + 1)^2 = 81 places.
REACH = 4
VOLUME = (2 * REACH + 1) ** 2
NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
#: Channels of the pyramid's levels 1 to 6.
CHANNELS = (16, 32, 64, 96, 128, 196)
DENSE = (128, 128, 96, 64, 32)
REFINER = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))
#: Flow is in units of 20 pixels of the resized frame, so at level l it is 20 / 2^l pixels of that level.
FLOW_UNIT = 20.0
#: A warped pixel counts when the part of it that came from inside the frame is above this.
INSIDE = 0.999


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1, inplace=True)


def _conv(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation)


def _upsample(inputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, 2, 4, stride=2, padding=1)


class Extractor(nn.Module):
    """The pyramid: six levels, each of half the size of the one before."""

    def __init__(self) -> None:
        super().__init__()
        for number, inputs, outputs in zip(NUMBERS, (3, *CHANNELS), CHANNELS, strict=False):
            convolutions = (_conv(inputs, outputs, stride=2), _conv(outputs, outputs), _conv(outputs, outputs))
            layers = [layer for convolution in convolutions for layer in (convolution, _leaky())]
            self.add_module(f"net{number}", nn.Sequential(*layers))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Features of levels 1 to 6, (N, CHANNELS[l - 1], H / 2^l, W / 2^l)."""
        levels = []
        for level in self.children():
            frames = level(frames)
            levels.append(frames)
        return levels


class Decoder(nn.Module):
    """Flow at one level (2 to 6) from the correlation there and the flow of the coarser level."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level
        inputs = VOLUME
        if level < len(CHANNELS):
            coarser = VOLUME if level + 1 == len(CHANNELS) else VOLUME + CHANNELS[level] + 4
            self.netUpflow = _upsample(2)
            self.netUpfeat = _upsample(coarser + sum(DENSE))
            inputs += CHANNELS[level - 1] + 4
        for number, outputs in zip(NUMBERS, DENSE, strict=False):
            self.add_module(f"net{number}", nn.Sequential(_conv(inputs, outputs), _leaky()))
            inputs += outputs
        self.netSix = nn.Sequential(_conv(inputs, 2))

    def forward(self, first: Tensor, second: Tensor, coarser: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Flow (N, 2, h, w) and features. first, second: of this level; coarser: what the level above gave."""
        if coarser is None:
            features = F.leaky_relu(correlation(first, second), 0.1)
        else:
            flow, features = self.netUpflow(coarser[0]), self.netUpfeat(coarser[1])
            second = backwarp(second, flow * (FLOW_UNIT / 2**self.level))
            volume = F.leaky_relu(correlation(first, second), 0.1)
            features = torch.cat([volume, first, flow, features], dim=1)
        for number in NUMBERS[: len(DENSE)]:
            features = torch.cat([self.get_submodule(f"net{number}")(features), features], dim=1)
        return self.netSix(features), features


class Refiner(nn.Module):
    """A correction of the finest flow from a wide surrounding."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = VOLUME + CHANNELS[1] + 4 + sum(DENSE)
        for outputs, dilation in REFINER:
            layers += [_conv(inputs, outputs, dilation=dilation), _leaky()]
            inputs = outputs
        self.netMain = nn.Sequential(*layers, _conv(inputs, 2))

    def forward(self, features: Tensor) -> Tensor:
        """(N, 2, h, w) to add to the flow of level 2."""
        correction: Tensor = self.netMain(features)
        return correction


class PwcNet(nn.Module):
    """Where the pixels of one frame are in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.netExtractor = Extractor()
        for level in range(len(CHANNELS), 1, -1):
            self.add_module(f"net{NUMBERS[level - 1]}", Decoder(level))
        self.netRefiner = Refiner()
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow (N, 2, H, W) in pixels, x then y, from frames (N, 3, H, W) in [0, 1] to others of the same size."""
        return self._flow(self._pyramid(first), self._pyramid(second), first.shape[-2], first.shape[-1])

    def along(self, frames: Tensor) -> Tensor:
        """Flow (n - 1, 2, H, W) from each of n frames to the next; the pyramid of each is made once."""
        levels = self._pyramid(frames)
        firsts, seconds = [level[:-1] for level in levels], [level[1:] for level in levels]
        return self._flow(firsts, seconds, frames.shape[-2], frames.shape[-1])

    def _pyramid(self, frames: Tensor) -> list[Tensor]:
        size = [-(-side // MULTIPLE) * MULTIPLE for side in frames.shape[-2:]]
        levels: list[Tensor] = self.netExtractor(F.interpolate(frames, size, mode="bilinear"))
        return levels

    def _flow(self, firsts: list[Tensor], seconds: list[Tensor], height: int, width: int) -> Tensor:
        found: tuple[Tensor, Tensor] | None = None
        for level in range(len(CHANNELS), 1, -1):
            decoder = self.get_submodule(f"net{NUMBERS[level - 1]}")
            found = decoder(firsts[level - 1], seconds[level - 1], found)
        assert found is not None  # there are levels
        flow, features = found
        flow = (flow + self.netRefiner(features)) * FLOW_UNIT
        # Level 2 is a quarter of the resized frame; flow counts pixels of the frame as it was given.
        ratios = flow.new_tensor([width / (4 * flow.shape[-1]), height / (4 * flow.shape[-2])])
        return F.interpolate(flow, (height, width), mode="bilinear") * ratios[:, None, None]


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """How alike each place is to those around it in the other features: (N, 81, h, w) of two (N, C, h, w).

    Channel (dy + 4) * 9 + (dx + 4) is the mean over channels of first(y, x) * second(y + dy, x + dx), 0 outside.
    """
    height, width = first.shape[-2:]
    padded = F.pad(second, (REACH,) * 4)
    steps = range(2 * REACH + 1)
    rows = [(first * padded[..., y : y + height, x : x + width]).mean(dim=1) for y in steps for x in steps]
    return torch.stack(rows, dim=1)


def backwarp(features: Tensor, flow: Tensor) -> Tensor:
    """Features (N, C, h, w) fetched from where the flow (N, 2, h, w), in pixels, points to; 0 where that is outside.

    The grid is one of pixel centres, while flow is scaled as if from edge to edge: the weights were trained with it.
    """
    height, width = features.shape[-2:]
    x = (2 * torch.arange(width, device=flow.device, dtype=flow.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=flow.device, dtype=flow.dtype) + 1) / height - 1
    grid = torch.stack(
        [x + flow[:, 0] * (2 / max(width - 1, 1)), y[:, None] + flow[:, 1] * (2 / max(height - 1, 1))], dim=-1
    )
    carried = torch.cat([features, features.new_ones(len(features), 1, height, width)], dim=1)
    warped = F.grid_sample(carried, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped[:, :-1] * (warped[:, -1:] > INSIDE)
