"""The sampling loop of rectified flow: steps, frame masks, resuming."""

from __future__ import annotations

import pytest
import torch

from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

STEPS = 7
# per sample: given, generated, edit ratios; 0.05 is below the last time and is never edited
EDIT_MASK = torch.tensor([[0.0, 1.0, 0.72, 0.3, 0.05], [1.0, 1.0, 0.5, 1.0, 0.0]])
I2V_MASK = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize(
    "options", [{}, {"use_timestep_transform": True}, {"use_discrete_timesteps": True}, {"solver": "adams-bashforth"}]
)
def test_straight_paths_are_followed_exactly(request_for, options, steps):
    """With the true velocity x0 - noise, steps end at x0 whatever the times: the step sizes add up to 1."""
    request = request_for()
    x0 = torch.randn(request.noise.shape, generator=torch.Generator().manual_seed(5))
    out = RectifiedFlow(options).sample(
        lambda x, *_, **__: (x0 - request.noise).repeat(len(x) // 2, 2, 1, 1, 1), request, steps=steps, guidance=7.0
    )
    torch.testing.assert_close(out, x0, atol=3e-6, rtol=0)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("adams-bashforth", 2)])
@pytest.mark.parametrize("shift", [False, True])
def test_error_falls_with_the_order_of_the_solver(request_for, solver, order, shift):
    """When the velocity is x itself, noise grows by e: twice the steps leave 1/2 or 1/4 of the error."""
    request = request_for()
    flow = RectifiedFlow({"solver": solver, "use_timestep_transform": shift})
    errors = []
    for steps in (64, 128):
        out = flow.sample(lambda x, *_, **__: torch.cat([x, x], dim=1), request, steps=steps, guidance=7.0)
        errors.append(float((out / request.noise / torch.e - 1).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_network_sees_times_sizes_and_text(recorder, request_for):
    flow = RectifiedFlow({"use_timestep_transform": True})
    request = request_for(text=request_for().text._replace(mask=torch.tensor([[1, 1, 0, 0, 0, 0], [1] * 6])))
    flow.sample(recorder, request, steps=STEPS, guidance=4.0)
    times = flow.schedule(STEPS, height=240, width=426, num_frames=51)
    assert len(recorder.calls) == STEPS
    for call, t in zip(recorder.calls, times, strict=True):
        assert torch.equal(call["timestep"], t.expand(4))
        assert torch.equal(call["x"][:2], call["x"][2:])
        assert torch.equal(call["y"], torch.cat([request.text.embeddings, request.null_embeddings]))
        assert torch.equal(call["mask"], request.text.mask), "one mask for both halves"
        assert call["x_mask"] is None
        sizes = {name: call[name].tolist() for name in ("height", "width", "num_frames", "fps", "ar")}
        assert sizes == {
            "height": [240, 240],
            "width": [426, 426],
            "num_frames": [51, 51],
            "fps": [24, 24],
            "ar": [pytest.approx(240 / 426)] * 2,
        }
    assert torch.equal(recorder.calls[0]["x"][:2], request.noise)


# --- frame masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [False, True])
def test_given_frames_come_out_bit_for_bit(recorder, request_for, shift):
    request = request_for(EDIT_MASK)
    flow = RectifiedFlow({"use_timestep_transform": shift})
    out = flow.sample(recorder, request, steps=STEPS, guidance=4.0)
    same = (out == request.noise).flatten(3).all(dim=-1).all(dim=1)
    last = flow.schedule(STEPS, height=240, width=426, num_frames=51)[-1].item()
    expected = [[ratio * 1000 < last for ratio in row] for row in EDIT_MASK.tolist()]
    assert same.tolist() == expected
    assert expected[0][0]
    assert not expected[0][1]


def test_edit_ratio_starts_when_the_time_reaches_it(recorder, request_for):
    request = request_for(EDIT_MASK)
    flow = RectifiedFlow()
    flow.sample(recorder, request, steps=STEPS, guidance=4.0)
    times = flow.schedule(STEPS, height=240, width=426, num_frames=51)
    began = set()
    for step, (call, t) in enumerate(zip(recorder.calls, times, strict=True)):
        active = t <= EDIT_MASK * 1000
        assert torch.equal(call["x_mask"], active.repeat(2, 1))
        for row, frame in active.nonzero().tolist():
            if EDIT_MASK[row, frame] == 1 or (row, frame) in began:
                continue
            began.add((row, frame))
            fresh = request.draw_noise(step)[row, :, frame]
            noisy = (1 - t / 1000) * request.noise[row, :, frame] + t / 1000 * fresh
            torch.testing.assert_close(call["x"][row, :, frame], noisy, atol=1e-6, rtol=0)
        for row, frame in (~active).nonzero().tolist():
            assert torch.equal(call["x"][row, :, frame], request.noise[row, :, frame]), "clean until its time"
    assert began == {(0, 2), (0, 3), (1, 2)}


def test_a_frame_has_no_step_to_look_back_at_where_its_editing_starts(recorder, request_for):
    """What the network said of a clean frame is no velocity of the noisy one: its first step is Euler's."""
    kept: dict[int, torch.Tensor] = {}
    RectifiedFlow({"solver": "adams-bashforth"}).sample(
        recorder, request_for(EDIT_MASK), steps=STEPS, guidance=1.0, on_step=lambda done, z: kept.update({done: z})
    )

    def is_straight(step: int, row: int, frame: int) -> bool:
        z, velocity = kept[step + 1][row, :, frame].chunk(2)
        return torch.allclose(z, recorder.calls[step]["x"][row, :, frame] + velocity / STEPS, atol=1e-6)

    # Frames of ratio 0.72 and 0.5 start at times 5/7 and 3/7, one that is generated at 1.
    for row, frame, start in ((0, 2, 2), (1, 2, 4), (0, 1, 0)):
        assert is_straight(start, row, frame)
        assert not is_straight(start + 1, row, frame)


def test_mask_of_ones_is_no_mask(recorder, request_for):
    flow = RectifiedFlow()
    masked = flow.sample(recorder, request_for(torch.ones(2, 5)), steps=3, guidance=4.0)
    assert all(call["x_mask"] is None for call in recorder.calls)
    assert torch.equal(masked, flow.sample(recorder, request_for(), steps=3, guidance=4.0))


def test_rows_without_a_condition_are_not_touched_by_the_mask(recorder, request_for):
    flow = RectifiedFlow()
    masked = flow.sample(recorder, request_for(I2V_MASK), steps=3, guidance=4.0)
    plain = flow.sample(recorder, request_for(), steps=3, guidance=4.0)
    torch.testing.assert_close(masked[1], plain[1], atol=1e-6, rtol=0)
    assert (masked[0] - plain[0]).abs().max() > 0.01


def test_edit_ratio_needs_noise(recorder, request_for):
    request = request_for(EDIT_MASK, draw_noise=None)
    with pytest.raises(ValueError, match="draw_noise"):
        RectifiedFlow().sample(recorder, request, steps=STEPS, guidance=4.0)
    RectifiedFlow().sample(recorder, request_for(I2V_MASK, draw_noise=None), steps=3, guidance=4.0)


# --- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, I2V_MASK, EDIT_MASK], ids=["free", "i2v", "edit"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("solver", ["euler", "adams-bashforth"])
def test_resuming_gives_the_same_bits(recorder, request_for, mask, shift, solver):
    flow = RectifiedFlow({"use_timestep_transform": shift, "solver": solver})
    request = request_for(mask)
    kept: dict[int, torch.Tensor] = {}
    whole = flow.sample(
        recorder, request, steps=STEPS, guidance=4.0, on_step=lambda done, z: kept.update({done: z.clone()})
    )
    assert list(kept) == list(range(1, STEPS + 1))
    assert torch.equal(kept[STEPS], whole)
    for done, latents in kept.items():
        steps_run: list[int] = []
        resumed = flow.sample(
            recorder,
            request._replace(noise=latents),
            steps=STEPS,
            guidance=4.0,
            start_step=done,
            on_step=lambda step, _z, steps_run=steps_run: steps_run.append(step),
        )
        assert torch.equal(resumed, whole), f"resumed after {done} steps"
        assert steps_run == list(range(done + 1, STEPS + 1))


def test_sampling_leaves_the_request_alone(recorder, request_for):
    request = request_for(EDIT_MASK)
    noise, mask = request.noise.clone(), EDIT_MASK.clone()
    RectifiedFlow().sample(recorder, request, steps=STEPS, guidance=4.0)
    assert torch.equal(request.noise, noise)
    assert torch.equal(request.frame_mask, mask)
