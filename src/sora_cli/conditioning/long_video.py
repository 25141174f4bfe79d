"""Videos of several parts, each of which goes on from the end of the one before: what is where. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError
from sora_cli.text.prompts import split_segments

if TYPE_CHECKING:
    from sora_cli.config.schema import GenerateConfig
    from sora_cli.plugin.specs import VAESpec

#: About how many frames a part goes on from: five latent frames of the released 1.2 and of nano; without pieces, four
#: frames, as with the released 1.1 (generation.md sections 12 and 16).
OVERLAP = 17
OVERLAP_OF_SINGLE_FRAMES = 4


@dataclass(frozen=True)
class Segments:
    """The parts of a video; a count of 1 is a clip as it is.

    frames: of a part, as sampled. whole: those up to the end of its last whole piece of the autoencoder; a part that
    another one goes on from ends there. overlap: frames at the start of a later part that are the last ones of the part
    before, and are in the video once; overlap_latents: their latent frames. strength: how much they are changed in the
    later part. source: "latents" takes what was sampled, "frames" encodes what was decoded.
    """

    count: int
    frames: int
    whole: int
    overlap: int = 0
    overlap_latents: int = 0
    strength: float = 0.0
    source: str = "latents"

    def span(self, index: int) -> tuple[int, int]:
        """First frame of a part that is new in the video, and the one after its last."""
        return self.overlap if index else 0, self.whole if index < self.count - 1 else self.frames

    @property
    def total(self) -> int:
        """Frames of the video."""
        return self.count * self.frames - (self.count - 1) * (self.overlap + self.frames - self.whole)

    def locate(self, frame: int) -> tuple[int, int]:
        """The part that a frame of the video is new in, and its number there."""
        index = min(max(0, frame - self.overlap) // (self.whole - self.overlap), self.count - 1)
        return index, frame - index * (self.whole - self.overlap)

    def record(self) -> dict[str, Any]:
        """For the settings of a video and for people; {} for a single part."""
        if self.count == 1:
            return {}
        return {
            "segments": {
                "count": self.count,
                "frames": self.frames,
                "overlap": self.overlap,
                "overlap_strength": self.strength,
                "overlap_from": self.source,
                "total_frames": self.total,
            }
        }


def segments_of(config: GenerateConfig, vae: VAESpec, num_frames: int) -> Segments:
    """The parts that a configuration asks for. num_frames: of a part.

    Raises UsageError for pictures, autoencoders without pieces, and overlaps that do not fit pieces or parts.
    """
    count, conditioning = config.shape.segments, config.conditioning
    if count == 1:
        return Segments(1, num_frames, num_frames)
    if num_frames == 1:
        raise UsageError("a picture has no parts", hint="leave out --segments, or ask for more frames")
    if conditioning.backward:
        raise UsageError("--segments go forward in time", hint="leave out --backward, or extend by one part at a time")
    if conditioning.connect is not None or conditioning.seamless:
        named = "connect" if conditioning.connect is not None else "seamless"
        raise UsageError(f"--segments and --{named} do not go together", hint="ask for a longer clip with --len")
    overlap, piece = overlap_of(vae, conditioning.overlap)
    whole = vae.leading_frames + (num_frames - vae.leading_frames) // piece * piece
    if whole <= overlap:
        raise UsageError(
            f"parts of {num_frames} frames have nothing new after an overlap of {overlap}",
            hint="choose a smaller --overlap or longer parts with --len",
        )
    return Segments(
        count=count,
        frames=num_frames,
        whole=whole,
        overlap=overlap,
        overlap_latents=vae.latent_frames(overlap),
        strength=conditioning.overlap_strength,
        source=conditioning.overlap_from,
    )


def overlap_of(vae: VAESpec, asked: int | None, *, is_backward: bool = False) -> tuple[int, int]:
    """Frames that what is new is made from, whole pieces of the autoencoder, and the frames of a piece.

    asked: None takes about `OVERLAP`. is_backward: they are the end of a clip, not its beginning. Raises UsageError.
    """
    piece, leading = vae.piece_frames, 0 if is_backward else vae.leading_frames
    if piece is None:
        raise UsageError(f"the autoencoder {vae.name} codes clips as a whole, so a video cannot go on")
    if asked is None:
        return OVERLAP_OF_SINGLE_FRAMES if piece == 1 else leading + (OVERLAP - leading) // piece * piece, piece
    if asked < leading or (asked - leading) % piece:
        near = [leading + count * piece for count in ((asked - leading) // piece, -(-(asked - leading) // piece))]
        raise UsageError(
            f"an overlap of {asked} frames is not whole pieces of {vae.name}",
            hint=f"near it: {' or '.join(str(frames) for frames in near if frames > 0)}",
        )
    return asked, piece


def notes_on(segments: Segments, prompts: Sequence[str], fps: float, known: int = 0) -> list[str]:
    """What the user should know of the parts: how long the video is, and texts that none of them uses.

    known: frames of a video that goes on, at the beginning of the first part.
    """
    count, notes = segments.count, []
    for prompt in prompts:
        parts = split_segments(prompt)
        unused = [part.start for part in parts if part.start >= count]
        if unused and count == 1:
            notes.append(
                f"a clip is one part, so only {parts[0].text!r} of the {len(parts)} parts of the prompt {prompt!r} is "
                "used; --segments makes more"
            )
        elif unused:
            notes.append(
                f"the video has the parts 0 to {count - 1}, so |{unused[0]}| of the prompt {prompt!r} is not used"
            )
    if count > 1:
        ends = f"; all but the last end at frame {segments.whole}" if segments.whole < segments.frames else ""
        notes.append(
            f"{count} parts of {segments.frames} frames{ends}, each from the last {segments.overlap} of the one "
            f"before: {segments.total - known} {'new ' * bool(known)}frames, {(segments.total - known) / fps:.3g} s"
        )
    return notes
