"""Clips that close a loop: how long they are, and in which order a network sees them."""

from __future__ import annotations

import pytest
import torch

from sora_cli.conditioning.loops import Loop, Ring, loop_of, order_of
from sora_cli.config.schema import ConditioningSection
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins

SEAMLESS = ConditioningSection(seamless=True)
#: Of each kind of autoencoder: single frames, pieces, and pieces after a lead.
LOOPS = [Loop(7, 7, 0, 1), Loop(51, 51, 0, 5), Loop(24, 25, 1, 1)]
FRAMES = [7, 15, 7]


@pytest.mark.parametrize(
    ("name", "asked", "found"),
    [
        ("nano", 51, Loop(48, 49, 1, 1)),
        ("nano", 5, Loop(8, 9, 1, 1)),
        ("opensora-vae-v1.2", 51, Loop(51, 51, 0, 5)),
        ("opensora-vae-v1.2", 24, Loop(34, 34, 0, 5)),
        ("sd-vae-ft-ema", 16, Loop(16, 16, 0, 1)),
    ],
)
def test_lengths_are_whole_pieces(name, asked, found):
    vae = get_plugins().get("vae", name)
    assert loop_of(SEAMLESS, vae, asked, lambda frames: True) == found
    assert loop_of(ConditioningSection(), vae, asked, lambda frames: True) is None


def test_lengths_are_those_of_the_model():
    vae = get_plugins().get("vae", "nano")
    assert loop_of(SEAMLESS, vae, 51, lambda frames: frames % 8 == 1 and frames < 42) == Loop(40, 41, 1, 1)
    with pytest.raises(UsageError, match="no loop of about 51 frames"):
        loop_of(SEAMLESS, vae, 51, lambda frames: False)


@pytest.mark.parametrize("more", [{"last": "a.png"}, {"extend": "a.mp4"}, {"edit": "a.mp4"}, {"connect": ("a", "b")}])
def test_what_has_an_end_is_no_loop(more):
    with pytest.raises(UsageError, match=f"--seamless and --{next(iter(more))}"):
        loop_of(ConditioningSection(seamless=True, **more), get_plugins().get("vae", "nano"), 51, lambda frames: True)


def test_a_picture_is_no_loop():
    with pytest.raises(UsageError, match="a picture is no loop"):
        loop_of(SEAMLESS, get_plugins().get("vae", "nano"), 1, lambda frames: True)


@pytest.mark.parametrize(("loop", "frames"), list(zip(LOOPS, FRAMES, strict=True)))
def test_the_ring_is_cut_everywhere_between_pieces(loop, frames):
    starts = set()
    for step in range(30):
        seen, places = order_of(loop, frames, step, is_lead_given=False)
        ring = seen[loop.lead :]
        assert sorted(ring) == list(range(loop.lead, frames)), "each once"
        assert [seen[place] for place in places[loop.lead :]] == list(range(loop.lead, frames))
        after = {frame: ring[place + 1] for place, frame in enumerate(ring[:-1])}
        assert all(b == a + 1 or (a, b) == (frames - 1, loop.lead) for a, b in after.items()), (
            "in the order of the ring"
        )
        assert seen[: loop.lead] == ring[len(ring) - loop.lead :], "its end is before its beginning"
        starts.add(ring[0])
    assert starts == set(range(loop.lead, frames, loop.piece))


def test_a_clip_that_starts_with_a_picture_is_not_cut():
    assert order_of(LOOPS[2], 7, 5, is_lead_given=True) == (list(range(7)), list(range(7)))


@pytest.mark.parametrize(("loop", "frames"), list(zip(LOOPS, FRAMES, strict=True)))
def test_a_network_sees_the_end_before_the_beginning(loop, frames):
    """Of a network that gives each frame what is before it, every frame gets its neighbour in the ring at some step."""
    calls = []

    def network(x, timestep, y, *, x_mask=None, **conditioning):
        calls.append(x_mask)
        return torch.cat([torch.full_like(x[:, :, :1], -1), x[:, :, :-1]], dim=2)

    x = torch.arange(frames, dtype=torch.float32).view(1, 1, frames, 1, 1)
    ring, before_first = Ring(network, loop), set()
    for step in range(20):
        ring.step = step
        out = ring(x, torch.zeros(1), torch.zeros(1), x_mask=None).flatten().tolist()
        before_first.add(out[loop.lead])
        assert all(out[frame] in (frame - 1, -1) for frame in range(loop.lead + 1, frames))
    assert frames - 1 in before_first
    assert set(calls) == {None}
    if loop.lead:
        mask = torch.ones(1, frames, dtype=torch.bool)
        mask[0, 0] = False
        ring(x, torch.zeros(1), torch.zeros(1), x_mask=mask)
        assert calls[-1].tolist() == [[False, *[True] * (frames - 1)]]
