"""Decoding part by part, and what the next part goes on from, with nano's autoencoder and with stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from live_tensors import LiveBytes

from sora_cli.conditioning.long_video import Segments
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import VAESpec
from sora_cli.tasks.continuation import Continuation
from sora_cli.tasks.given import GivenLatents
from sora_cli.video.latents import to_frames
from sora_cli.weights.locate import locate_weights


class PieceVAE:
    """Each piece of 17 frames, five latents, by itself: a frame is the mean of its piece."""

    def encode(self, pixels):
        pieces = [piece.mean(dim=2, keepdim=True).expand(-1, -1, 5, -1, -1) for piece in pixels.split(17, dim=2)]
        return torch.nn.functional.avg_pool3d(torch.cat(pieces, dim=2), (1, 8, 8))

    def decode(self, latents, num_frames, *, frames_at_once=None):
        for start in range(0, num_frames, 17):
            mean = latents[:, :, start // 17 * 5 :][:, :, :5].mean(dim=2, keepdim=True)
            frames = mean.expand(-1, -1, min(17, num_frames - start), -1, -1)
            yield frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)


PIECES = VAESpec(
    name="pieces",
    summary="",
    target="",
    latent_channels=3,
    spatial_stride=8,
    temporal_stride=4,
    latent_frames=lambda frames: frames // 17 * 5 + -(-(frames % 17) // 4),
    piece_frames=17,
    is_sampled=False,
)


def run_of(spec, vae, segments, height=32, width=48):
    """A plan and parts with no more than decoding needs."""
    shape = SimpleNamespace(height=height, width=width, asked_height=height, asked_width=width)
    plan = SimpleNamespace(segments=segments, components=SimpleNamespace(vae=spec), shape=shape)
    parts = SimpleNamespace(vae=vae, decode_frames=None, device=torch.device("cpu"))
    parts.enter = lambda name: None
    parts.free_memory = lambda: None
    return plan, parts


@pytest.fixture
def nano():
    plugins = get_plugins()
    spec = plugins.get("vae", "nano")
    weights = locate_weights(spec.weights, what="nano")
    return spec, plugins.load_target(spec)(weights, torch.device("cpu"), torch.float32)


def random_latents(count, seed):
    return torch.randn(32, count, 2, 3, generator=torch.Generator().manual_seed(seed))


def decoded(end, latents, index):
    return np.concatenate(list(end.decode(latents, index, "decoding")))


def test_parts_of_a_causal_autoencoder_meet_without_a_trace(nano):
    """Decoded part by part, the frames are those of all latents decoded as one clip."""
    spec, vae = nano
    segments = Segments(4, 51, 49, 17, 5)
    end = Continuation(*run_of(spec, vae, segments))
    parts = [random_latents(14, seed) for seed in range(4)]
    found = np.concatenate([decoded(end, part, index) for index, part in enumerate(parts)])
    joined = torch.cat([parts[0][:, :13], parts[1][:, 5:13], parts[2][:, 5:13], parts[3][:, 5:]], dim=1)
    whole = np.concatenate([to_frames(piece[0]) for piece in vae.decode(joined[None], segments.total)])
    assert found.shape == (segments.total, 32, 48, 3)
    assert np.abs(found.astype(int) - whole).max() <= 1, "no more than rounding"
    alone = np.concatenate([to_frames(piece[0]) for piece in vae.decode(parts[1][None, :, 5:13], 29)])
    assert np.abs(alone[-1].astype(int) - whole[80]).max() <= 1, "far from its start, a part needs no context"
    assert np.abs(alone[0].astype(int) - whole[52]).max() > 1, "and at its start it does"


def test_a_loop_is_decoded_as_it_is_played_again(nano):
    """What is before its beginning is its end: played twice, both times are the same."""
    spec, vae = nano
    latents = random_latents(13, 0)
    found = decoded(Continuation(*run_of(spec, vae, Segments(1, 48, 48)), lead=1), latents, 0)
    ring = latents[:, 1:]
    twice = torch.cat([ring, ring], dim=1)
    whole = np.concatenate([to_frames(piece[0]) for piece in vae.decode(twice[None], 1 + 23 * 4)])
    assert found.shape == (48, 32, 48, 3)
    assert np.abs(found.astype(int) - whole[-48:]).max() <= 1, "no more than rounding"


def test_what_goes_on_is_what_was_sampled(nano):
    spec, vae = nano
    segments = Segments(3, 51, 49, 17, 5)
    plan, parts = run_of(spec, vae, segments)
    end = Continuation(plan, parts)
    part = random_latents(14, 0)
    frames = decoded(end, part, 0)
    given = end.overlap(GivenLatents(plan, parts))
    assert torch.equal(given[:, 1:], part[:, 9:13]), "latents as they are"
    # The first latent frame of a clip codes one frame: the one before those of the other four.
    anchor = vae.encode(torch.from_numpy(frames[32]).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1)
    torch.testing.assert_close(given[:, :1], anchor[0], atol=0.05, rtol=0)  # frames are rounded to 8 bits here
    plan.segments = Segments(3, 51, 49, 17, 5, source="frames")
    end = Continuation(plan, parts)
    frames = decoded(end, part, 0)
    again = vae.encode(torch.from_numpy(frames[32:]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1)
    torch.testing.assert_close(end.overlap(GivenLatents(plan, parts)), again[0], atol=0.05, rtol=0)


@pytest.mark.parametrize("frames", [51, 60])
def test_parts_of_pieces(frames):
    """Also where a part ends within a piece: the next one starts where a piece ends."""
    segments = Segments(3, frames, 51, 17, 5)
    plan, parts = run_of(PIECES, PieceVAE(), segments)
    end = Continuation(plan, parts)
    count = PIECES.latent_frames(frames)
    found = []
    for index in range(3):
        part = torch.rand(3, count, 4, 6, generator=torch.Generator().manual_seed(index)) - 0.5
        if index:
            part[:, :5] = end.overlap(GivenLatents(plan, parts))
        found.append(decoded(end, part, index))
        if index < 2:
            assert torch.equal(end.overlap(GivenLatents(plan, parts)), part[:, 10:15])
            own = next(PieceVAE().decode(part[None, :, 10:15], 17))
            assert (to_frames(own[0]) == found[-1][-17:]).all(), "the last frames are those of the latents that go on"
    assert [len(each) for each in found] == [51, 34, frames - 17]


def test_memory_does_not_grow_with_the_number_of_parts(nano):
    spec, vae = nano

    def peak_of(count):
        segments = Segments(count, 49, 49, 17, 5)
        plan, parts = run_of(spec, vae, segments)
        with LiveBytes(vae) as live:
            end = Continuation(plan, parts)
            for index in range(count):
                part = random_latents(13, index)
                if index:
                    part[:, :5] = end.overlap(GivenLatents(plan, parts))
                for _ in end.decode(part, index, ""):
                    pass
            assert end.latents.shape[1] == 8
            assert end.frames.shape[2] == 17
        return live.peak

    assert peak_of(12) <= 1.02 * peak_of(3)


def test_out_of_memory_while_decoding_a_part():
    """What was written stays, and the rest comes one frame at a time."""

    class Short(PieceVAE):
        calls = 0

        def decode(self, latents, num_frames, *, frames_at_once=None):
            Short.calls += 1
            for index, piece in enumerate(super().decode(latents, num_frames)):
                if index == 1 and frames_at_once != 1:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
                yield piece

    segments = Segments(2, 51, 51, 17, 5)
    part = torch.rand(3, 15, 4, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    expected = decoded(Continuation(*run_of(PIECES, PieceVAE(), segments)), part, 0)
    found = decoded(Continuation(*run_of(PIECES, Short(), segments)), part, 0)
    assert Short.calls == 2
    assert (found == expected).all()
