"""Coding a picture in tiles that overlap and fade into each other. Not exact: norms and attention see one tile only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A tile along one side: what it covers, and its weight at each position from `first` on.

    start, stop: what is computed. first: where it starts to count. weights: of positions first, first + 1, ..., in
    (0, 1]; at every position of the side the weights of all tiles sum to 1.
    """

    start: int
    stop: int
    first: int
    weights: Tensor


def spans(size: int, tile: int, overlap: int, scale: int = 1) -> list[Span]:
    """Tiles of a side of `size` latents: as few as possible, of one length, evenly spread; one where `tile` covers all.

    tile, overlap: in latents, tile >= 3 * overlap. Neighbours share at least `overlap`; in the middle of what they
    share, `overlap` long, one fades linearly into the other. scale: positions of `first` and `weights` per latent, so
    that fading happens in pixels.
    """
    count = 1 if size <= tile else -(-(size - overlap) // (tile - overlap))
    starts = [index * (size - tile) // (count - 1) for index in range(count)] if count > 1 else [0]
    stops = [min(start + tile, size) for start in starts]
    fades = [scale * ((start + stop - overlap) // 2) for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    length = scale * overlap
    ramp = (torch.arange(length, dtype=torch.float32) + 0.5) / max(length, 1)
    made = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        first = fades[index - 1] if index > 0 else 0
        end = fades[index] + length if index < count - 1 else scale * size
        weights = torch.ones(end - first)
        if index > 0:
            weights[:length] = ramp
        if index < count - 1:
            weights[len(weights) - length :] = 1 - ramp
        made.append(Span(start, stop, first, weights))
    return made


def decode(run: Callable[[Tensor], Tensor], z: Tensor, *, tile: int, overlap: int, stride: int) -> Tensor:
    """Pixels (N, C', stride h, stride w) of latents (N, C, h, w). tile, overlap: in latents. run: decodes one tile."""
    rows, columns = (spans(side, tile, overlap, stride) for side in z.shape[2:])
    if len(rows) == len(columns) == 1:
        return run(z)
    shape = (stride * z.shape[2], stride * z.shape[3])
    return _blend(lambda y, x: run(z[:, :, y.start : y.stop, x.start : x.stop]), rows, columns, shape, stride)


def encode(run: Callable[[Tensor], Tensor], x: Tensor, *, tile: int, overlap: int, stride: int) -> Tensor:
    """Moments (N, C', H // stride, W // stride) of pixels (N, C, H, W). tile, overlap: in latents.

    run: encodes one tile. The last tiles take the rows and columns that are no whole latent with them.
    """
    sizes = [side // stride for side in x.shape[2:]]
    rows, columns = (spans(size, tile, overlap) for size in sizes)
    if len(rows) == len(columns) == 1:
        return run(x)

    def pixels(span: Span, size: int) -> slice:
        return slice(stride * span.start, stride * span.stop if span.stop < size else None)

    def one(y: Span, across: Span) -> Tensor:
        return run(x[:, :, pixels(y, sizes[0]), pixels(across, sizes[1])])

    return _blend(one, rows, columns, (sizes[0], sizes[1]), 1)


def _blend(
    run: Callable[[Span, Span], Tensor], rows: list[Span], columns: list[Span], shape: tuple[int, int], scale: int
) -> Tensor:
    """The weighted sum of all tiles, (N, C', *shape). scale: output positions per position of `start`."""
    out: Tensor | None = None
    for y in rows:
        for x in columns:
            part = run(y, x)
            if out is None:
                out = part.new_zeros(*part.shape[:2], *shape)
            top, left = y.first - scale * y.start, x.first - scale * x.start
            height, width = len(y.weights), len(x.weights)
            part = part[:, :, top : top + height, left : left + width]
            weight = (y.weights[:, None] * x.weights).to(part.device)
            out[:, :, y.first : y.first + height, x.first : x.first + width] += (part * weight).to(out.dtype)
    assert out is not None
    return out
