"""Clips whose end meets their beginning, to be played in a loop. Imports no deep-learning library.

While it is sampled such a clip is a ring: at each step the network sees it cut open at another place, so that nothing
but its own frames is ever before its first frame or after its last one ("latent shift", as in Mobius, Bi et al. 2025,
arXiv 2502.20307). This needs nothing that the network has not learned, and no more steps.

Pieces that an autoencoder codes by themselves stay whole. Where the first frames of a clip are coded in another way
(the lead), they belong to no ring: the network sees the end of the ring in their place, and they are not in the video.
A lead that is given, the picture that a clip starts with, stays where it is. Such a clip is not cut: the picture is
given once more as its last latent frame (`references.given_to`), of which the video shows all frames but the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from sora_cli.config.schema import ConditioningSection
    from sora_cli.plugin.specs import VAESpec

#: Cuts of successive steps are this share of the ring apart, which spreads any number of them evenly.
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Loop:
    """A loop. frames: of the video; sampled: of the clip that is sampled; lead, piece: in latent frames."""

    frames: int
    sampled: int
    lead: int
    piece: int


def loop_of(
    conditioning: ConditioningSection, vae: VAESpec, num_frames: int, is_accepted: Callable[[int], bool]
) -> Loop | None:
    """The longest loop of up to `num_frames`, or the shortest there is; None when none is asked for.

    is_accepted: whether the model makes so many frames.

    Raises UsageError for pictures, for autoencoders that code clips as a whole, and for what a loop cannot be given.
    """
    if not conditioning.seamless:
        return None
    for name, what in (
        ("extend", "goes on from a video"),
        ("connect", "leads from one picture or video to another"),
        ("edit", "is a video already"),
        ("last", "has a last frame"),
    ):
        if getattr(conditioning, name) is not None:
            raise UsageError(f"--seamless and --{name} do not go together: a clip that {what} does not close a loop")
    if num_frames == 1:
        raise UsageError("a picture is no loop", hint="leave out --seamless, or ask for more frames")
    piece = vae.piece_frames
    if piece is None:
        raise UsageError(f"the autoencoder {vae.name} codes clips as a whole, so their ends cannot meet")
    lengths = range(2 * piece, num_frames + 2 * piece + 1, piece)  # a ring of one piece has nothing to meet
    for frames in sorted(lengths, key=lambda frames: (frames > num_frames, abs(frames - num_frames))):
        sampled = vae.leading_frames + frames
        if is_accepted(sampled):
            lead = vae.latent_frames(vae.leading_frames) if vae.leading_frames else 0
            return Loop(frames, sampled, lead, vae.latent_frames(vae.leading_frames + piece) - lead)
    raise UsageError(
        f"the model makes no loop of about {num_frames} frames", hint=f"loops are whole pieces of {piece} frames"
    )


def order_of(loop: Loop, frames: int, step: int, *, is_lead_given: bool) -> tuple[list[int], list[int]]:
    """Which latent frames the network sees at a step, in order, and the places of its output for each latent frame."""
    lead, every = loop.lead, list(range(frames))
    if lead and is_lead_given:
        return every, every
    count = (frames - lead) // loop.piece
    cut = int(step * GOLDEN * count) % count * loop.piece
    ring = [*every[lead + cut :], *every[lead : lead + cut]]
    seen = [*ring[len(ring) - lead :], *ring]
    places = every.copy()
    for place, frame in enumerate(ring, start=lead):
        places[frame] = place
    return seen, places


class Ring:
    """Calls a network as `order_of` says. All rows of a call have a given lead, or none has. step: to be kept up."""

    def __init__(self, model: Any, loop: Loop, step: int = 0) -> None:
        self.model, self.loop, self.step = model, loop, step
        if hasattr(model, "encode_text"):
            self.encode_text = model.encode_text

    def __call__(
        self, x: Tensor, timestep: Tensor, y: Tensor, *, x_mask: Tensor | None = None, **conditioning: Any
    ) -> Tensor:
        """As the network."""
        is_given = x_mask is not None and self.loop.lead > 0 and not bool(x_mask[:, : self.loop.lead].any())
        seen, places = order_of(self.loop, x.shape[2], self.step, is_lead_given=is_given)
        active = None if x_mask is None else x_mask[:, seen]
        out: Tensor = self.model(x[:, :, seen], timestep, y, x_mask=active, **conditioning)
        return out[:, :, places]

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        """As the network."""
        found: Tensor = self.model.null_text(num_prompts, length)
        return found
