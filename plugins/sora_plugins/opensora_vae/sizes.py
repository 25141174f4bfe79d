"""How many latent frames a clip has; pure Python, since planning needs it."""

from __future__ import annotations

MICRO_FRAME_SIZE = 17
TIME_FACTOR = 4


def latent_frames(
    num_frames: int, micro_frame_size: int | None = MICRO_FRAME_SIZE, time_factor: int = TIME_FACTOR
) -> int:
    """Latent frames of a clip: whole pieces of `micro_frame_size` frames, then the rest; each is rounded up."""
    if micro_frame_size is None:
        return -(-num_frames // time_factor)
    pieces, rest = divmod(num_frames, micro_frame_size)
    return pieces * -(-micro_frame_size // time_factor) + -(-rest // time_factor)
