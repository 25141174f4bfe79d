"""AMT-G: the picture between two pictures, from flow that is refined by all-pairs correlation at three scales.

Source: Li et al. 2023, "AMT: All-Pairs Multi-Field Transforms for Efficient Frame Interpolation" (arXiv 2304.09790).
Modules have the names of the released file.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_plugins.scorers.flow_layers import pixel_grid, residual_pair, sample_at, warp

#: Channels of the pyramid at 1/2, 1/4, 1/8 and 1/16.
CHANNELS = (84, 96, 112, 128)
#: The last channels of a decoder, which its residual block treats apart.
SIDE = 84
FIELDS = 5
CORRELATION_LEVELS, CORRELATION_RADIUS = 4, 3
CORRELATIONS = 2 * CORRELATION_LEVELS * (2 * CORRELATION_RADIUS + 1) ** 2
HIDDEN = 192
#: Padded sides need to be at least so long: the coarsest correlation has 1/64 of them, and needs 2 places.
MIN_SIDE = 128
MULTIPLE = 16


class Correlation(NamedTuple):
    """Correlation of all pairs of places, from picture 0 to 1 and back: levels (B h w, 1, h / 2^l, w / 2^l)."""

    forward: list[Tensor]
    backward: list[Tensor]


class Estimate(NamedTuple):
    """What a decoder gives: flows (B, 2, h, w) from the frame between to picture 0 and 1, and a feature of it."""

    flow0: Tensor
    flow1: Tensor
    feature: Tensor


def conv_prelu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution and a PReLU with a slope for each channel."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, nn.PReLU(outputs))


def resize(x: Tensor, factor: float) -> Tensor:
    """(B, C, h, w) larger by `factor`, bilinear."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class FeatureEncoder(nn.Module):
    """Features (B, 128, h / 8, w / 8) that correlation is of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1 = residual_pair(64, 64, bias=True)
        self.layer2 = residual_pair(64, 112, 2, bias=True)
        self.layer3 = residual_pair(112, 160, 2, bias=True)
        self.layer3_2 = residual_pair(160, 160, bias=True)
        self.conv2 = nn.Conv2d(160, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.layer1(F.relu(F.instance_norm(self.conv1(x))))
        features: Tensor = self.conv2(self.layer3_2(self.layer3(self.layer2(x))))
        return features


class Pyramid(nn.Module):
    """Features of a picture at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        for level, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False), start=1):
            first = conv_prelu(inputs, outputs, 7 if level == 1 else 3, 2)
            self.add_module(f"pyramid{level}", nn.Sequential(first, conv_prelu(outputs, outputs)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Finest first."""
        levels = []
        for level in self.children():
            x = level(x)
            levels.append(x)
        return levels


class SideBlock(nn.Module):
    """A residual block whose last 84 channels go through convolutions of their own between the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_prelu(channels, channels)
        self.conv2 = conv_prelu(SIDE, SIDE)
        self.conv3 = conv_prelu(channels, channels)
        self.conv4 = conv_prelu(SIDE, SIDE)
        self.conv5 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        out = self._side(self.conv1(x), self.conv2)
        out = self._side(self.conv3(out), self.conv4)
        added: Tensor = self.prelu(x + self.conv5(out))
        return added

    @staticmethod
    def _side(x: Tensor, layer: nn.Module) -> Tensor:
        return torch.cat([x[:, :-SIDE], layer(x[:, -SIDE:])], dim=1)


class Decoder(nn.Module):
    """From features at one scale to `outputs` channels at twice the size."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            conv_prelu(inputs, width), SideBlock(width), nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        )

    def forward(self, *parts: Tensor) -> Tensor:
        """parts: (B, C, h, w) each."""
        out: Tensor = self.convblock(torch.cat(parts, dim=1))
        return out


class Update(nn.Module):
    """Corrections of feature and flows from correlation; factor: works at 1 / factor of their size."""

    def __init__(self, channels: int, factor: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.convc1 = nn.Conv2d(CORRELATIONS, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(4, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, 188, 3, padding=1)
        self.gru = self._pair(188 + 4 + channels, HIDDEN)
        self.feat_head = self._pair(HIDDEN, channels)
        self.flow_head = self._pair(HIDDEN, 4)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Sequential:
        layers = nn.Conv2d(inputs, HIDDEN, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(HIDDEN, outputs, 3, padding=1)
        return nn.Sequential(*layers)

    def forward(self, estimate: Estimate, flows: Tensor, correlation: Tensor) -> Estimate:
        """The corrected estimate. flows: (B, 4, h, w) and correlation: of the size that this works at."""
        c = leaky(self.convc2(leaky(self.convc1(correlation))))
        f = leaky(self.convf2(leaky(self.convf1(flows))))
        mixed = leaky(self.conv(torch.cat([c, f], dim=1)))
        feature = resize(estimate.feature, 1 / self.factor)
        state = self.gru(torch.cat([mixed, flows, feature], dim=1))
        change = resize(self.flow_head(state), self.factor) * self.factor
        return Estimate(
            estimate.flow0 + change[:, :2],
            estimate.flow1 + change[:, 2:],
            estimate.feature + resize(self.feat_head(state), self.factor),
        )


class AmtG(nn.Module):
    """The network. Pictures (B, 3, H, W) in [0, 1] to the one at `time`."""

    def __init__(self) -> None:
        super().__init__()
        self.feat_encoder = FeatureEncoder()
        self.encoder = Pyramid()
        self.decoder4 = Decoder(2 * CHANNELS[3] + 1, 256, CHANNELS[2] + 4)
        self.decoder3 = Decoder(3 * CHANNELS[2] + 4, 3 * CHANNELS[2], CHANNELS[1] + 4)
        self.decoder2 = Decoder(3 * CHANNELS[1] + 4, 3 * CHANNELS[1], CHANNELS[0] + 4)
        self.decoder1 = Decoder(3 * CHANNELS[0] + 4, 3 * CHANNELS[0], 8 * FIELDS)
        self.update4 = Update(CHANNELS[2])
        self.update3_low = Update(CHANNELS[1], 2)
        self.update3_high = Update(CHANNELS[1])
        self.update2_low = Update(CHANNELS[0], 4)
        self.update2_high = Update(CHANNELS[0])
        colours = 3 * FIELDS
        layers = nn.Conv2d(colours, 2 * colours, 7, padding=3), nn.PReLU(2 * colours)
        self.comb_block = nn.Sequential(*layers, nn.Conv2d(2 * colours, 3, 7, padding=3))

    def forward(self, first: Tensor, second: Tensor, *, time: float = 0.5, scale: float = 1.0) -> Tensor:
        """(B, 3, H, W) in [0, 1]. scale: of the pictures that flow is found on, for less memory.

        Scaled sides are to be multiples of 16 and at least 128. Raises ValueError for others.
        """
        sides = [round(side * scale) for side in first.shape[-2:]]
        if any(side % MULTIPLE or side < MIN_SIDE for side in sides):
            raise ValueError(f"scaled pictures are {tuple(sides)}; sides are multiples of {MULTIPLE} from {MIN_SIDE}")
        mean = torch.stack([first, second]).mean(dim=(0, 2, 3, 4)).view(-1, 1, 1, 1)
        first, second = first - mean, second - mean
        flow0, flow1, mask, residual = self._fields(resize(first, scale), resize(second, scale), time)
        flow0, flow1 = (resize(flow, 1 / scale) / scale for flow in (flow0, flow1))
        mask, residual = resize(mask, 1 / scale), resize(residual, 1 / scale)
        return self._combined(first, second, mean, (flow0, flow1, mask, residual))

    def _fields(self, first: Tensor, second: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of all fields: flows (B, 10, h, w) to both pictures, masks (B, 5, h, w), residuals (B, 15, h, w)."""
        correlation = correlate(*self.feat_encoder(torch.cat([first, second])).chunk(2))
        pyramid0, pyramid1 = self.encoder(first), self.encoder(second)
        plane = torch.full_like(pyramid0[3][:, :1], time)
        out = self.decoder4(pyramid0[3], pyramid1[3], plane)
        estimate = Estimate(out[:, :2], out[:, 2:4], out[:, 4:])
        flows, values = look_up(correlation, estimate, time, 1)
        estimate = self.update4(estimate, flows, values)
        for level, low, high in ((3, self.update3_low, self.update3_high), (2, self.update2_low, self.update2_high)):
            estimate = decoded(
                self.get_submodule(f"decoder{level}"), pyramid0[level - 1], pyramid1[level - 1], estimate
            )
            flows, values = look_up(correlation, estimate, time, low.factor)
            estimate = low(estimate, flows, values)
            full = torch.cat([estimate.flow0, estimate.flow1], dim=1)
            estimate = high(estimate, full, resize(values, low.factor))
        out = self.decoder1(*decoder_inputs(pyramid0[0], pyramid1[0], estimate))
        change0, change1, mask, residual = out.split([2 * FIELDS, 2 * FIELDS, FIELDS, 3 * FIELDS], dim=1)
        flow0 = change0 + 2 * resize(estimate.flow0, 2).repeat(1, FIELDS, 1, 1)
        flow1 = change1 + 2 * resize(estimate.flow1, 2).repeat(1, FIELDS, 1, 1)
        return flow0, flow1, torch.sigmoid(mask), residual

    def _combined(self, first: Tensor, second: Tensor, mean: Tensor, fields: tuple[Tensor, ...]) -> Tensor:
        """The average of what the fields give, and what the last convolutions make of all of them."""
        parts = []
        for flow0, flow1, mask, residual in zip(*(one.chunk(FIELDS, dim=1) for one in fields), strict=True):
            mixed = mask * warp(first, flow0, padding="border") + (1 - mask) * warp(second, flow1, padding="border")
            parts.append(mixed + mean + residual)
        out: Tensor = torch.stack(parts).mean(dim=0) + self.comb_block(torch.cat(parts, dim=1))
        return out.clamp(0, 1)


def leaky(x: Tensor) -> Tensor:
    """The activation of the updates."""
    return F.leaky_relu(x, 0.1)


def decoder_inputs(features0: Tensor, features1: Tensor, estimate: Estimate) -> tuple[Tensor, ...]:
    """What a decoder is given: the feature between, those of both pictures fetched to it, and the flows."""
    flow0, flow1, feature = estimate
    warped = (warp(features0, flow0, padding="border"), warp(features1, flow1, padding="border"))
    return feature, *warped, flow0, flow1


def decoded(decoder: nn.Module, features0: Tensor, features1: Tensor, estimate: Estimate) -> Estimate:
    """The estimate at twice the size."""
    out = decoder(*decoder_inputs(features0, features1, estimate))
    flow0, flow1 = (2 * resize(flow, 2) for flow in estimate[:2])
    return Estimate(flow0 + out[:, :2], flow1 + out[:, 2:4], out[:, 4:])


def correlate(features0: Tensor, features1: Tensor) -> Correlation:
    """Correlation of features (B, C, h, w) at all pairs of places, averaged to four levels on the other picture."""
    batch, channels, height, width = features0.shape
    values = features0.flatten(2).transpose(1, 2) @ features1.flatten(2) / math.sqrt(channels)

    def levels(volume: Tensor) -> list[Tensor]:
        found = [volume.reshape(batch * height * width, 1, height, width)]
        for _ in range(CORRELATION_LEVELS - 1):
            found.append(F.avg_pool2d(found[-1], 2, stride=2))
        return found

    return Correlation(levels(values), levels(values.transpose(1, 2)))


def look_up(correlation: Correlation, estimate: Estimate, time: float, factor: int) -> tuple[Tensor, Tensor]:
    """Flows (B, 4, h, w) at 1/8 of the pictures, and the correlation (B, 392, h, w) around where they point.

    factor: how much larger the flows of the estimate are.
    """
    flow0, flow1 = (resize(flow, 1 / factor) / factor for flow in (estimate.flow0, estimate.flow1))
    grid = pixel_grid(flow0)
    # Motion from one picture to the other is that from the frame between, over the share of time it takes.
    forward = _values_around(correlation.forward, grid + flow1 / time)
    backward = _values_around(correlation.backward, grid + flow0 / (1 - time))
    return torch.cat([flow0, flow1], dim=1), torch.cat([forward, backward], dim=1)


def _values_around(levels: list[Tensor], places: Tensor) -> Tensor:
    """(B, 196, h, w) of all levels around places (B, 2, h, w)."""
    batch, _, height, width = places.shape
    steps = torch.arange(-CORRELATION_RADIUS, CORRELATION_RADIUS + 1, device=places.device, dtype=places.dtype)
    # The outer step is along x and the inner one along y, as the weights were trained.
    x, y = torch.meshgrid(steps, steps, indexing="ij")
    offsets = torch.stack([x, y])  # (2, 7, 7)
    centres = places.permute(0, 2, 3, 1).reshape(-1, 2, 1, 1)
    found = [sample_at(level, centres / 2**index + offsets) for index, level in enumerate(levels)]
    stacked = torch.cat(found, dim=1)  # (B h w, levels, 7, 7)
    return stacked.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
