"""Training of autoencoders in parts: lengths, terms, the discriminator's own training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sora_cli.config.vae_schema import DiscriminatorSection, LossSection, VaeDataSection
from sora_cli.plugin.protocols import Reconstruction
from sora_cli.training.adversary import Adversary
from sora_cli.training.autoencoder import AutoencoderObjective, ClipMixer, parts_tensor
from sora_cli.training.autoencoder_losses import clip_of_length, reconstruction_loss
from sora_cli.training.autoencoder_validation import psnr
from sora_cli.training.dataset import Batch
from sora_cli.training.engine import Engine, EngineOptions
from sora_plugins.discriminators.config import PatchOptions, StyleOptions
from sora_plugins.discriminators.patch import build_2d, build_3d, least_sides
from sora_plugins.discriminators.stylegan import build as build_style
from sora_plugins.sd_vae.config import SpatialConfig
from sora_plugins.sd_vae.model import FrameAutoencoder, SpatialAutoencoder

CPU = torch.device("cpu")


def batch(frames=9):
    pixels = torch.rand(2, 3, frames, 8, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(3, pixels, ["", ""], torch.full((2,), 24.0), [0, 1], [])


def lengths(mixing, **more):
    mixer = ClipMixer(VaeDataSection(mixing=mixing, **more), 0, CPU, lambda *size: 7)
    return [mixer.encode(batch(), 1, update=update).pixels.shape[2] for update in range(400)]


def test_lengths_are_mixed():
    assert set(lengths("none")) == {9}
    found = lengths("image", image_share=0.25)
    assert set(found) == {1, 9}
    assert 70 <= found.count(1) <= 130
    found = lengths("length")
    assert set(found) == set(range(1, 10))
    assert lengths("length") == found, "drawn from the update"


def test_first_frames_are_kept_and_positions_counted():
    mixer = ClipMixer(VaeDataSection(mixing="length"), 0, CPU, lambda frames, height, width: frames * height)
    clips = mixer.encode(batch(), 5)
    count = clips.pixels.shape[2]
    assert torch.equal(clips.pixels, batch().pixels[:, :, :count])
    assert clips.num_positions == 2 * count * 8


def test_distances():
    a, b = torch.zeros(1, 3, 2, 4, 4), torch.full((1, 3, 2, 4, 4), 0.5)
    for distance, each in (("l1", 0.5), ("l2", 0.25)):
        total, weighted = reconstruction_loss(a, b, distance=distance)
        assert float(total) == float(weighted) == pytest.approx(each * 3 * 4 * 4)
    total, _ = reconstruction_loss(a, b, perceptual=lambda x, y: torch.tensor([1.0, 3.0]), perceptual_weight=0.1)
    assert float(total) == pytest.approx((0.5 + 0.1 * 2) * 48, rel=1e-6), "the mean of both frames, for each number"


def test_sums_are_exact_in_bfloat16():
    a, b = torch.zeros(1, 3, 4, 64, 64, dtype=torch.bfloat16), torch.full((1, 3, 4, 64, 64), 0.1, dtype=torch.bfloat16)
    total, _ = reconstruction_loss(a, b)
    assert total.dtype == torch.float32
    assert float(total) == pytest.approx(float(b[0, 0, 0, 0, 0]) * 3 * 64 * 64, rel=1e-5)


def test_terms_that_do_not_apply_are_not_counted():
    objective = AutoencoderObjective(LossSection(pixels=False, frame_latents=True, identity=True), 0)
    assert objective.part_names == ("frame_latent_loss", "identity_loss")
    latents = torch.zeros(1, 4, 1, 2, 2)
    for frames, counts in ((1, [1.0, 1.0]), (5, [1.0, 0.0])):
        out = Reconstruction(None, latents, (), torch.ones(1, 4, frames, 2, 2), torch.zeros(1, 4, frames, 2, 2))
        total = objective.total(torch.zeros(1, 3, frames, 16, 16), out)
        found = parts_tensor(objective, CPU)
        assert found[:, 1].tolist() == counts
        assert float(total) == float(found[:, 0].sum()) == 16.0


def test_frame_latents_can_be_a_fixed_aim():
    encoded = torch.zeros(1, 4, 1, 2, 2, requires_grad=True)
    frames = torch.ones(1, 4, 1, 2, 2, requires_grad=True)
    for detach in (False, True):
        options = LossSection(pixels=False, frame_latents=True, detach_frame_latents=detach)
        out = Reconstruction(None, encoded, (), frames, encoded)
        total = AutoencoderObjective(options, 0).total(torch.zeros(1, 3, 1, 16, 16), out)
        pull = torch.autograd.grad(total, encoded, allow_unused=True)[0]
        assert (pull is None) == detach


def test_the_divergence_is_of_all_pieces():
    class Known:
        def __init__(self, value):
            self.value = value

        def kl(self):
            return torch.full((2,), self.value)

    objective = AutoencoderObjective(LossSection(perceptual=None, kl_weight=0.5), 0)
    pixels = torch.zeros(2, 3, 1, 4, 4)
    objective.total(pixels, Reconstruction(pixels, pixels, (Known(1.0), Known(2.0))))
    assert float(objective.parts["kl_loss"]) == 0.5 * 3.0


# -- the discriminator ---------------------------------------------------------------------------------------------


def adversary(network, takes="frames", frames=4, **options):
    section = DiscriminatorSection(name="x", **options)
    return Adversary(Engine(network, EngineOptions()), section, takes=takes, num_frames=frames)


def test_it_learns_to_tell_and_pulls_without_learning():
    torch.manual_seed(0)
    network = build_2d(PatchOptions(filters=4, num_layers=1), num_frames=1, height=16, width=16)
    made = adversary(network, adaptive=False)
    real, fake = torch.ones(1, 3, 2, 16, 16), -torch.ones(1, 3, 2, 16, 16)
    decoded = nn.Parameter(fake.clone())
    losses = []
    for step in range(20):
        made.step = step
        pull = made.pull(real, decoded * 1.0, torch.zeros(()), decoded)
        pull.backward()
        assert all(parameter.grad is None for parameter in network.parameters()), "the pull teaches it nothing"
        losses.append(float(made.learn(is_last=True, share=1.0)))
        assert made.update(0.02, 1.0, is_wanted=True).is_applied
    assert losses[-1] < 0.5 * losses[0]
    assert decoded.grad.abs().sum() > 0


def test_it_waits_for_its_start():
    network = build_2d(PatchOptions(filters=4, num_layers=1), num_frames=1, height=16, width=16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = adversary(network, start=5)
    made.step = 4
    clip = torch.zeros(1, 3, 2, 16, 16)
    assert float(made.pull(clip, clip, torch.zeros(()), clip)) == 0.0
    assert made.learn(is_last=True, share=1.0) is None
    assert made.update(0.1, 1.0, is_wanted=True) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def teach(made, real, fake, *, is_wanted=True):
    """One update of a discriminator on a real and a decoded clip."""
    decoded = fake.clone().requires_grad_()
    made.pull(real, decoded * 1.0, (decoded * 1.0).abs().sum(), decoded) if not made.options.adaptive else None
    made._seen = real, fake
    made.learn(is_last=True, share=1.0)
    return made.update(1e-3, 1.0, is_wanted=is_wanted)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_bad_batch_changes_nothing(is_wanted):
    """Not finite itself, or thrown away because the autoencoder's gradient was not finite."""
    torch.manual_seed(0)
    network = build_2d(PatchOptions(filters=4, num_layers=2), num_frames=1, height=16, width=16)
    made = adversary(network, lecam_weight=0.1)
    clip = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert teach(made, clip, -clip).is_applied
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    averages = made.record()["lecam"]
    result = teach(made, clip, clip * float("inf") if is_wanted else -clip, is_wanted=is_wanted)
    assert result is None or not result.is_applied
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert made.record()["lecam"] == averages
    assert all(parameter.grad is None for parameter in network.parameters())
    assert teach(made, clip, -clip).is_applied, "and it goes on"


def test_its_state_is_restored_with_its_statistics():
    def fresh(seed):
        torch.manual_seed(seed)
        return build_2d(PatchOptions(filters=4, num_layers=2), num_frames=1, height=16, width=16)

    first, second = adversary(fresh(0), lecam_weight=0.1), adversary(fresh(1), lecam_weight=0.1)
    clip = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    teach(first, clip, -clip)
    files = {name: {key: each.clone() for key, each in part.items()} for name, part in first.files().items()}
    second.load(files)
    second.load_record(first.record())
    assert (second.lecam.real, second.lecam.fake) == (first.lecam.real, first.lecam.fake)
    for name, tensor in first.engine.network.state_dict().items():
        assert torch.equal(tensor, second.engine.network.state_dict()[name]), name
    with pytest.raises(ValueError, match="no discriminator"):
        second.load({"model": {}})


def test_short_clips_are_lengthened_for_those_that_judge_clips():
    clip = torch.arange(3.0)[None, None, :, None, None].expand(1, 3, 3, 2, 2)
    assert clip_of_length(clip, 5)[0, 0, :, 0, 0].tolist() == [0, 1, 2, 2, 2]
    assert clip_of_length(clip, 2) is clip


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_least_clip_gives_one_number(layers):
    options = PatchOptions(filters=2, num_layers=layers)
    frames, side = least_sides(options, is_3d=True)
    network = build_3d(options, num_frames=frames, height=side, width=side)
    assert network(torch.zeros(1, 3, frames, side, side)).shape[2:] == (1, 1, 1)
    with pytest.raises(ValueError, match="needs"):
        build_3d(options, num_frames=frames - 1, height=side, width=side)
    with pytest.raises(ValueError, match="needs"):
        build_2d(options, num_frames=1, height=side - 1, width=side)


def test_sizes_that_cannot_be_halved_are_refused():
    options = StyleOptions(filters=32, channel_multipliers=(1, 1, 1))
    with pytest.raises(ValueError, match="multiples of 8"):
        build_style(options, num_frames=9, height=20, width=16)
    with pytest.raises(ValueError, match="one is too few"):
        build_style(options, num_frames=4, height=16, width=16)
    assert build_style(options, num_frames=5, height=16, width=16)(torch.zeros(1, 3, 5, 16, 16)).shape == (1, 1)


# -- networks ------------------------------------------------------------------------------------------------------


def test_a_spatial_autoencoder_is_trained_on_clips():
    torch.manual_seed(0)
    config = SpatialConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
    network = FrameAutoencoder(SpatialAutoencoder(config), 0.2)
    objective = AutoencoderObjective(LossSection(perceptual=None), 0, last_layer=network.last_layer)
    pixels = torch.tensor([0.8, -0.5, 0.1])[None, :, None, None, None].expand(1, 3, 3, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    values = []
    for step in range(15):
        out = network(pixels, generator=torch.Generator().manual_seed(step))
        loss = objective.total(pixels, out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.8 * values[0]
    assert "kl_loss" in objective.parts
    assert network(pixels, sample=False, decodes_pixels=False).pixels is None


def test_the_divergence_is_summed_in_float32():
    from sora_plugins.sd_vae.gaussian import DiagonalGaussian

    moments = torch.randn(1, 8, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 3
    wanted = DiagonalGaussian(moments.bfloat16().double()).kl()
    for dtype in (torch.bfloat16, torch.float16):
        exact = DiagonalGaussian(moments.to(dtype).double()).kl()
        assert float(DiagonalGaussian(moments.to(dtype)).kl()) == pytest.approx(float(exact), rel=1e-5)
    assert float(wanted) > 1e5


def test_quality_of_a_clip():
    clip = torch.zeros(1, 3, 1, 4, 4)
    assert psnr(clip, clip) == 100.0
    assert psnr(clip, clip + 0.2) == pytest.approx(20.0)
    assert psnr(clip + 1, clip + 5) == 100.0, "decoded values are clamped"
