"""The times of rectified flow: schedules, the size-aware shift, training draws."""

from __future__ import annotations

import pytest
import torch

from sora_plugins.rectified_flow.config import RectifiedFlowOptions
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow, transform_timesteps

SHIFTED = {"use_timestep_transform": True}


def one(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize(
    "size", [(144, 256, 1, 1), (240, 426, 51, 15), (720, 1280, 408, 120), (64, 64, 5, 2), (512, 512, 16, 5)]
)
@pytest.mark.parametrize("info_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_schedules_fall_from_noise_and_stay_positive(size, info_dtype, steps):
    height, width, num_frames, latent_frames = size
    flow = RectifiedFlow({**SHIFTED, "info_dtype": info_dtype})
    times = flow.schedule(steps, height=height, width=width, num_frames=num_frames, latent_frames=latent_frames)
    assert times.shape == (steps,)
    assert times.dtype == torch.float32
    assert times[0] == pytest.approx(1000, abs=8)  # bfloat16 rounds the ratio to 8 bits
    assert times.max() <= 1000
    assert (times.diff() < 0).all()
    assert times[-1] > 0


def test_shift_follows_the_published_formula():
    """u -> r u / (1 + (r - 1) u) with r = sqrt(area / 512^2) sqrt(latent frames) scale, in Python floats."""
    t = torch.tensor([0.0, 1.0, 250.0, 500.0, 999.0, 1000.0])
    out = transform_timesteps(t, one(720), one(1280), one(102), scale=0.7)
    ratio = (720 * 1280 / 512**2) ** 0.5 * 30**0.5 * 0.7
    expected = [1000 * ratio * u / (1 + (ratio - 1) * u) for u in (t / 1000).tolist()]
    assert out.tolist() == pytest.approx(expected, rel=2e-6, abs=2e-3)


def test_larger_and_longer_videos_are_shifted_towards_noise():
    flow = RectifiedFlow(SHIFTED)
    sizes = [(144, 256, 1), (512, 512, 1), (720, 1280, 1), (720, 1280, 51), (720, 1280, 102)]
    middle = [flow.schedule(2, height=h, width=w, num_frames=f)[1].item() for h, w, f in sizes]
    assert middle == sorted(middle)
    assert len(set(middle)) == len(middle)
    assert middle[1] == 500, "512 x 512 images keep their times"


def test_shift_below_17_frames_uses_the_latent_frames():
    flow = RectifiedFlow(SHIFTED)

    def middle(num_frames: int, latent_frames: int) -> float:
        return flow.schedule(2, height=512, width=512, num_frames=num_frames, latent_frames=latent_frames)[1].item()

    for latent_frames in (2, 4, 5):
        ratio = latent_frames**0.5
        assert middle(16, latent_frames) == pytest.approx(1000 * ratio / (1 + ratio), rel=1e-6)
    # 17 // 17 * 5: where the reference's formula is defined it stands, whatever the autoencoder made
    assert middle(17, 3) == middle(17, 9) == middle(33, 9) == pytest.approx(1000 * 5**0.5 / (1 + 5**0.5), rel=1e-6)
    assert middle(1, 7) == 500


def test_shift_below_17_frames_without_latent_frames_is_refused():
    with pytest.raises(ValueError, match="number of latent frames"):
        RectifiedFlow(SHIFTED).schedule(3, height=512, width=512, num_frames=8)


def test_each_sample_of_a_batch_has_its_own_shift():
    sizes = [(512.0, 512.0, 1.0, 1.0), (512.0, 512.0, 51.0, 13.0), (256.0, 256.0, 8.0, 2.0)]
    height, width, frames, latents = torch.tensor(sizes).T
    t = torch.full((3,), 400.0)
    together = transform_timesteps(t, height, width, frames, latent_frames=latents)
    alone = [
        transform_timesteps(one(400.0), one(h), one(w), one(f), latent_frames=one(n)).item() for h, w, f, n in sizes
    ]
    assert together.tolist() == alone
    assert len(set(alone)) == 3


def test_first_time_never_exceeds_pure_noise():
    """Without the clamp bfloat16 gives 1004.1 here, and the first step would leave every frame alone."""
    for height, width in [(208, 288), (144, 256), (256, 256), (192, 320), (480, 854)]:
        t = torch.tensor([1000.0])
        bf16 = [one(value, torch.bfloat16) for value in (height, width, 1)]
        assert transform_timesteps(t, *bf16).item() <= 1000


def test_sizes_of_the_caller_are_left_alone():
    sizes = [one(value, torch.float16) for value in (480, 854, 51)]
    transform_timesteps(torch.tensor([500.0]), *sizes)
    assert [size.dtype for size in sizes] == [torch.float16] * 3
    assert [size.item() for size in sizes] == [480, 854, 51]


def test_training_and_sampling_scale_are_separate():
    """The released presets train with a scale that sampling does not use."""
    size = {"height": 512, "width": 512, "num_frames": 1}
    assert RectifiedFlow({**SHIFTED, "transform_scale": 3.0}).schedule(2, **size)[1] == 500
    assert RectifiedFlow({**SHIFTED, "sampling_scale": 3.0}).schedule(2, **size)[1].item() == pytest.approx(750)
    sizes = {name: torch.full((1,), float(value)) for name, value in size.items()}
    draws = []
    for options in (SHIFTED, {**SHIFTED, "transform_scale": 3.0}, {**SHIFTED, "sampling_scale": 3.0}):
        generator = torch.Generator().manual_seed(0)
        draws.append(RectifiedFlow(options).draw_times(1, **sizes, generator=generator).item())
    assert draws[0] == draws[2] < draws[1]


# --- training draws ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "median"),
    [
        ({}, 500.0),
        ({"sample_method": "logit-normal"}, 500.0),
        ({"sample_method": "logit-normal", "loc": 1.0, "scale": 0.5}, 731.06),  # 1000 sigmoid(1)
        ({"use_discrete_timesteps": True}, 500.0),
    ],
)
def test_training_times(options, median):
    flow = RectifiedFlow(options)
    t = flow.draw_times(4001, generator=torch.Generator().manual_seed(0))
    assert torch.equal(t, flow.draw_times(4001, generator=torch.Generator().manual_seed(0)))
    assert t.min() >= 0
    assert t.max() < 1000
    # standard deviation of a sample median: 1 / (2 density sqrt(4001)), at most 8 here
    assert t.median().item() == pytest.approx(median, abs=32)
    assert bool((t == t.round()).all()) is options.get("use_discrete_timesteps", False)


def test_training_times_are_shifted_in_the_number_format_asked_for():
    """The reference trains with sizes in bfloat16 (schedulers.md): 854 counts as 856."""
    size = {"height": one(854), "width": one(480), "num_frames": one(102)}
    rough = {name: value.bfloat16() for name, value in size.items()}
    flow = RectifiedFlow({**SHIFTED, "info_dtype": "bfloat16"})
    plain = RectifiedFlow().draw_times(50, generator=torch.Generator().manual_seed(0))
    shifted = flow.draw_times(50, **size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted, transform_timesteps(plain, *rough.values()), rtol=0, atol=0)
    exact = RectifiedFlow(SHIFTED).draw_times(50, **size, generator=torch.Generator().manual_seed(0))
    assert (shifted - exact).abs().max() > 0.1


def test_training_times_follow_the_size():
    flow = RectifiedFlow(SHIFTED)
    size = {"height": one(720), "width": one(1280), "num_frames": one(102)}
    plain = RectifiedFlow().draw_times(50, generator=torch.Generator().manual_seed(0))
    shifted = flow.draw_times(50, **size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted, transform_timesteps(plain, *size.values()), rtol=0, atol=0)
    assert (shifted > plain).all()
    with pytest.raises(ValueError, match="needs height, width and num_frames"):
        flow.draw_times(2)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_discrete_timesteps": True, "sample_method": "logit-normal"}, "sample_method uniform only"),
        ({"sample_method": "gauss"}, "logit-normal"),
        ({"transform_scal": 1.0}, "transform_scal"),
        ({"num_timesteps": 0}, "greater than or equal to 1"),
        ({"scale": 0.0}, "greater than 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RectifiedFlow(options)


def test_every_option_is_described():
    assert all(field.description for field in RectifiedFlowOptions.model_fields.values())
