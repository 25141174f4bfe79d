"""How an autoencoder trades speed, memory and exactness; pure Python, since planning needs the names."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_MODES = ("plain", "low", "tiled")
#: Sides in pixels. A tile of 256 x 256 takes a fourteenth of a 720p frame; eight latents are blended at each border.
TILE, OVERLAP = 256, 64
#: Most bytes of a slab in the network's number format; but it has at least one row, and where a convolution needs them
#: its neighbours. The second: how many slabs exist at a time, counted.
SLAB_BYTES, SLABS_AT_ONCE = 16 * 2**20, 6
#: Frames that the temporal decoder decodes together: all of a clip that Open-Sora 1.0 or Latte makes in 16 frames.
CHUNK = 16


@dataclass(frozen=True)
class MemoryMode:
    """One of three ways to compute the same network; all but "plain" work only where no gradient is needed.

    "plain": layer by layer. "low": exact up to rounding, in slabs of rows. "tiled": not exact, tiles of the picture
    that know nothing of each other, blended where they overlap.
    tile, overlap: pixels, used by "tiled" only. ValueError for a name, tile or overlap that is not possible.
    """

    name: str = "plain"
    tile: int = TILE
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        if self.name not in MEMORY_MODES:
            raise ValueError(f"memory mode {self.name!r} must be one of {', '.join(MEMORY_MODES)}")
        if self.overlap < 0 or self.tile < max(1, 3 * self.overlap):
            # With less than three overlaps the blended borders of a tile could meet.
            raise ValueError(f"a tile of {self.tile} must be at least three overlaps of {self.overlap}, which are >= 0")

    def check_stride(self, stride: int) -> None:
        """ValueError where tiles are no whole latents of `stride` pixels."""
        if self.tile % stride or self.overlap % stride:
            raise ValueError(f"tile {self.tile} and overlap {self.overlap} must be multiples of {stride} pixels")
