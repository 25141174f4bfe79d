"""UniMatch, the form for optical flow: where the pixels of one picture are in another.

Source: Xu et al. 2023, "Unifying Flow, Stereo and Depth Estimation" (arXiv 2211.05783); without refinement it is their
GMFlow (2022). Modules have the names of the released files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .flow_layers import pixel_grid, residual_pair, sample_at, warp

CHANNELS = 128
BLOCKS = 6
#: ImageNet's, for colours in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: By scale, coarse first. A map is cut into so many windows a side for attention; matches are looked for everywhere
#: (None) or so many pixels around; flow is spread everywhere (None) or from so many pixels around.
SPLITS: tuple[int, ...] = (2, 8)
MATCH_RADII: tuple[int | None, ...] = (None, 4)
SPREAD_RADII: tuple[int | None, ...] = (None, 1)
#: Refinement looks so far around, and so often.
REFINE_RADIUS, REFINEMENTS = 4, 6
#: Sides of pictures are multiples of this: 1/8 of one is cut into 2 windows that are rolled by half their side.
MULTIPLE = 32
FAR = -1e9


class Backbone(nn.Module):
    """Features (B, 128, h, w) of pictures (B, 3, H, W), finest first: at 1/4 and 1/8, or only at 1/8."""

    def __init__(self, num_scales: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.layer1 = residual_pair(64, 64)
        self.layer2 = residual_pair(64, 96, 2)
        self.layer3 = residual_pair(96, CHANNELS, 1 if num_scales == 2 else 2)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)
        if num_scales == 2:
            # One kernel for both scales.
            self.trident_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.num_scales = num_scales

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class."""
        x = F.relu(F.instance_norm(self.conv1(x)))
        x = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        if self.num_scales == 1:
            return [x]
        return [F.conv2d(x, self.trident_conv.weight, stride=stride, padding=1) for stride in (1, 2)]


class AttentionLayer(nn.Module):
    """Attention of tokens (B, h, w, C) to others of the same shape; has_mlp: with the feed-forward part behind it."""

    def __init__(self, *, has_mlp: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.v_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.merge = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.mlp: nn.Module | None = None
        if has_mlp:
            wide = 2 * CHANNELS * 4
            first = nn.Linear(2 * CHANNELS, wide, bias=False)
            self.mlp = nn.Sequential(first, nn.GELU(), nn.Linear(wide, CHANNELS, bias=False))
            self.norm2 = nn.LayerNorm(CHANNELS)

    def forward(self, source: Tensor, target: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        """Source with what it took from target. windows: a side; mask: of `shifted_mask` to roll them, or None."""
        q, k, v = self.q_proj(source), self.k_proj(target), self.v_proj(target)
        message = self.norm1(self.merge(window_attention(q, k, v, windows, mask)))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat([source, message], dim=-1)))
        return source + message


class Block(nn.Module):
    """Each picture attends to itself, then to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = AttentionLayer(has_mlp=False)
        self.cross_attn_ffn = AttentionLayer(has_mlp=True)

    def forward(self, first: Tensor, second: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        """First after the block; second is as it was before."""
        first = self.self_attn(first, first, windows, mask)
        updated: Tensor = self.cross_attn_ffn(first, second, windows, mask)
        return updated


class Transformer(nn.Module):
    """Makes the features of two pictures comparable; every second block rolls its windows by half their side."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(BLOCKS))

    def forward(self, f0: Tensor, f1: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """f0, f1: (B, C, h, w), positions added."""
        size = f0.shape[-2:]
        rolled = shifted_mask(size[0] // windows, size[1] // windows, windows, f0) if windows > 1 else None
        both = torch.cat([f0, f1]).permute(0, 2, 3, 1)
        for index, block in enumerate(self.layers):
            # The other picture's features of before this block, not after its attention to itself.
            other = torch.cat(both.chunk(2)[::-1])
            both = block(both, other, windows, rolled if index % 2 else None)
        f0, f1 = both.permute(0, 3, 1, 2).contiguous().chunk(2)
        return f0, f1


class FlowAttention(nn.Module):
    """Spreads flow from where it was matched to places that look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, features: Tensor, flow: Tensor, radius: int | None) -> Tensor:
        """Flow (B, 2, h, w). radius: of the neighbourhood that is looked at, None for all places."""
        batch, channels, height, width = features.shape
        tokens = features.flatten(2).transpose(1, 2)
        q = self.q_proj(tokens)
        if radius is None:
            # The weights were trained with a key that is a projection of the projected query.
            spread = F.scaled_dot_product_attention(q, self.k_proj(q), flow.flatten(2).transpose(1, 2))
            return spread.transpose(1, 2).reshape(flow.shape)
        side = 2 * radius + 1
        k = self.k_proj(tokens).transpose(1, 2).reshape(features.shape)
        # Places outside take part with a key of zeros and no flow, as in training.
        keys = F.unfold(k, side, padding=radius).reshape(batch, channels, side**2, height * width)
        flows = F.unfold(flow, side, padding=radius).reshape(batch, 2, side**2, height * width)
        scores = torch.einsum("bpc,bcnp->bnp", q, keys) / math.sqrt(channels)
        return torch.einsum("bnp,bcnp->bcp", scores.softmax(dim=1), flows).reshape(flow.shape)


class MotionEncoder(nn.Module):
    """Correlation (B, 81, h, w) and flow (B, 2, h, w) as 128 channels, of which the last two are the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d((2 * REFINE_RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, CHANNELS - 2, 3, padding=1)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        """See the class."""
        c = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        f = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([c, f], dim=1))), flow], dim=1)


class SeparableGru(nn.Module):
    """A gated recurrent unit whose convolutions go along rows (1), then along columns (2)."""

    def __init__(self) -> None:
        super().__init__()
        for direction, kernel, padding in ((1, (1, 5), (0, 2)), (2, (5, 1), (2, 0))):
            for gate in "zrq":
                layer = nn.Conv2d(3 * CHANNELS, CHANNELS, kernel, padding=padding)
                self.add_module(f"conv{gate}{direction}", layer)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """The new hidden state. h: (B, 128, h, w); x: (B, 256, h, w)."""
        for direction in (1, 2):
            z, r, q = (self.get_submodule(f"conv{gate}{direction}") for gate in "zrq")
            hx = torch.cat([h, x], dim=1)
            candidate = torch.tanh(q(torch.cat([torch.sigmoid(r(hx)) * h, x], dim=1)))
            share = torch.sigmoid(z(hx))
            h = (1 - share) * h + share * candidate
        return h


class FlowHead(nn.Module):
    """A change of flow (B, 2, h, w) from a hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        change: Tensor = self.conv2(F.relu(self.conv1(h)))
        return change


class Refiner(nn.Module):
    """One step of refinement."""

    def __init__(self, upsample_factor: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = SeparableGru()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(
            nn.Conv2d(CHANNELS, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * upsample_factor**2, 1)
        )

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the flow, and the mask of the upsampling."""
        hidden = self.gru(hidden, torch.cat([context, self.encoder(correlation, flow)], dim=1))
        return self.flow_head(hidden), self.mask(hidden)


class UniMatch(nn.Module):
    """The network. num_scales: 1 or 2; has_refinement: only with 2 scales."""

    def __init__(self, num_scales: int = 2, *, has_refinement: bool = True) -> None:
        super().__init__()
        self.num_scales, self.has_refinement = num_scales, has_refinement
        self.upsample_factor = 4 if num_scales == 2 else 8
        self.backbone = Backbone(num_scales)
        self.transformer = Transformer()
        self.feature_flow_attn = FlowAttention()
        if has_refinement:
            self.refine_proj = nn.Conv2d(CHANNELS, 256, 1)
            self.refine = Refiner(self.upsample_factor)
        else:
            self.upsampler = nn.Sequential(
                nn.Conv2d(2 + CHANNELS, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * self.upsample_factor**2, 1)
            )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow (B, 2, H, W), x then y in pixels, from pictures (B, 3, H, W) in 0..255 to others of the same size.

        Raises ValueError for sides that are no multiples of 32.
        """
        if any(side % MULTIPLE for side in first.shape[-2:]):
            raise ValueError(f"pictures are {tuple(first.shape[-2:])}; both sides need to be multiples of {MULTIPLE}")
        pictures = torch.cat([first, second]) / 255
        mean, std = pictures.new_tensor([MEAN, STD])[:, :, None, None]
        scales = [features.chunk(2) for features in self.backbone((pictures - mean) / std)]
        flow: Tensor | None = None
        for scale, (o0, o1) in enumerate(reversed(scales)):
            f1 = o1
            if flow is None:
                flow = o0.new_zeros(len(o0), 2, *o0.shape[-2:])
            else:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
                f1 = warp(o1, flow)
            code = position_code(o0, SPLITS[scale])
            f0, f1 = self.transformer(o0 + code, f1 + code, SPLITS[scale])
            flow = flow + match(f0, f1, MATCH_RADII[scale])
            flow = self.feature_flow_attn(f0, flow, SPREAD_RADII[scale])
        assert flow is not None  # there are scales
        return self._refined(o0, o1, f0, flow) if self.has_refinement else self._upsampled(f0, flow)

    def _upsampled(self, f0: Tensor, flow: Tensor) -> Tensor:
        return upsample_convex(flow, self.upsampler(torch.cat([flow, f0], dim=1)), self.upsample_factor)

    def _refined(self, o0: Tensor, o1: Tensor, f0: Tensor, flow: Tensor) -> Tensor:
        """o0, o1: features before the transformer, which are what correlation is of; f0: after it."""
        hidden, context = self.refine_proj(f0).chunk(2, dim=1)
        hidden, context = torch.tanh(hidden), F.relu(context)
        for _ in range(REFINEMENTS):
            # Every step starts from the same hidden state: the weights were trained so.
            correlation = local_correlation(o0, o1, pixel_grid(flow) + flow, REFINE_RADIUS)
            change, mask = self.refine(hidden, context, correlation, flow)
            flow = flow + change
        return upsample_convex(flow, mask, self.upsample_factor)


def form_of(tensors: Mapping[str, Tensor]) -> UniMatch:
    """The network that a file's tensors are of, without their values: two scales or one, with refinement or without."""
    return UniMatch(
        2 if "backbone.trident_conv.weight" in tensors else 1, has_refinement="refine_proj.weight" in tensors
    )


def position_code(features: Tensor, windows: int) -> Tensor:
    """Sines and cosines (1, 128, h, w) of places inside windows, `windows` a side; 64 channels of rows, 64 more."""
    rows, columns = (side // windows for side in features.shape[-2:])
    index = torch.arange(CHANNELS // 2, device=features.device)
    divisors = 10000 ** (2 * (index // 2) / (CHANNELS // 2))

    def waves(count: int) -> Tensor:
        places = torch.arange(1, count + 1, device=features.device) / (count + 1e-6) * 2 * math.pi
        angles = places[:, None] / divisors
        return torch.where(index % 2 == 0, angles.sin(), angles.cos())  # (count, 64)

    y, x = waves(rows), waves(columns)
    code = torch.cat([y[:, None].expand(-1, columns, -1), x[None].expand(rows, -1, -1)], dim=-1)
    return code.permute(2, 0, 1).repeat(1, windows, windows)[None].to(features.dtype)


def window_attention(q: Tensor, k: Tensor, v: Tensor, windows: int, mask: Tensor | None) -> Tensor:
    """Attention inside windows, `windows` a side, of tokens (B, h, w, C). mask: of `shifted_mask`, None: not rolled."""
    batch, height, width, channels = q.shape
    rows, columns = height // windows, width // windows
    shift = (rows // 2, columns // 2) if mask is not None else (0, 0)

    def cut(x: Tensor) -> Tensor:
        x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
        x = x.reshape(batch, windows, rows, windows, columns, channels).transpose(2, 3)
        return x.reshape(batch * windows**2, rows * columns, channels)

    if mask is not None:
        mask = mask.repeat(batch, 1, 1)
    out = F.scaled_dot_product_attention(cut(q), cut(k), cut(v), attn_mask=mask)
    out = out.reshape(batch, windows, windows, rows, columns, channels).transpose(2, 3)
    return torch.roll(out.reshape(q.shape), shift, dims=(1, 2))


def shifted_mask(rows: int, columns: int, windows: int, like: Tensor) -> Tensor:
    """What keeps places apart that only rolling brought into one window: (windows^2, n, n), 0 or -100, n places each.

    rows, columns: of a window, rolled by half of them.
    """

    def regions(size: int) -> Tensor:
        """0 for places in whole windows, 1 and 2 for the parts of the last window before and behind the seam."""
        place = torch.arange(size * windows, device=like.device)
        return (place >= size * (windows - 1)).long() + (place >= size * windows - size // 2).long()

    region = 3 * regions(rows)[:, None] + regions(columns)
    region = region.reshape(windows, rows, windows, columns).transpose(1, 2).reshape(windows**2, -1)
    return torch.where(region[:, :, None] == region[:, None], 0.0, -100.0).to(like.dtype)


def match(f0: Tensor, f1: Tensor, radius: int | None) -> Tensor:
    """Flow (B, 2, h, w) from each place of f0 to the mean of places of f1, weighted by how alike they are.

    radius: how far places are from the same place, None for all of them.
    """
    grid = pixel_grid(f0)
    if radius is None:
        places = grid.flatten(2).transpose(1, 2).expand(len(f0), -1, -1)
        q, k = (features.flatten(2).transpose(1, 2) for features in (f0, f1))
        found = F.scaled_dot_product_attention(q, k, places).transpose(1, 2)
        return found.reshape(len(f0), *grid.shape[1:]) - grid
    steps = window_offsets(radius, f0)
    places = grid + steps[:, :, None, None]  # (n, 2, h, w)
    limits = places.new_tensor([f0.shape[-1], f0.shape[-2]])[:, None, None]
    inside = ((places >= 0) & (places < limits)).all(dim=1)
    scores = local_correlation(f0, f1, grid.expand(len(f0), -1, -1, -1), radius)
    weights = scores.masked_fill(~inside[None], FAR).softmax(dim=1)
    return torch.einsum("bnhw,nc->bchw", weights, steps)


def window_offsets(radius: int, like: Tensor) -> Tensor:
    """Steps (n, 2), x then y, to the places of a square; rows are the outer loop."""
    y, x = torch.meshgrid(*[torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)] * 2, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def local_correlation(f0: Tensor, f1: Tensor, places: Tensor, radius: int) -> Tensor:
    """How alike f0 (B, C, h, w) is to f1 around `places` (B, 2, h, w): (B, (2 radius + 1)^2, h, w), 0 outside.

    One offset after the other: all of them at once are 81 copies of the features.
    """
    scores = [(f0 * sample_at(f1, places + step[:, None, None])).sum(dim=1) for step in window_offsets(radius, f0)]
    return torch.stack(scores, dim=1) / math.sqrt(f0.shape[1])


def upsample_convex(flow: Tensor, mask: Tensor, factor: int) -> Tensor:
    """Flow (B, 2, h, w) times `factor` larger; each pixel is a mixture of 3x3 neighbours.

    mask: (B, 9 * factor^2, h, w), the logits of the mixtures.
    """
    batch, _, height, width = flow.shape
    weights = mask.reshape(batch, 1, 9, factor, factor, height, width).softmax(dim=2)
    neighbours = F.unfold(factor * flow, 3, padding=1).reshape(batch, 2, 9, 1, 1, height, width)
    fine = (weights * neighbours).sum(dim=2)  # (B, 2, factor, factor, h, w)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, factor * height, factor * width)
