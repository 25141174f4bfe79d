"""Classifier-free guidance, with a stand-in and with a small STDiT3."""

from __future__ import annotations

import pytest
import torch

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow
from sora_plugins.stdit.stdit3 import STDiT3, build

# Float32 sums in another order, through two blocks and a few steps.
ROUNDING = {"atol": 5e-5, "rtol": 1e-5}


def run(model, request, *, guidance: float, steps: int = 4) -> torch.Tensor:
    with torch.no_grad():
        return RectifiedFlow({"use_timestep_transform": True}).sample(model, request, steps=steps, guidance=guidance)


def test_guidance_one_runs_the_text_only(recorder, request_for):
    out = run(recorder, request_for(), guidance=1.0)
    assert {len(call["x"]) for call in recorder.calls} == {2}
    assert {len(call["y"]) for call in recorder.calls} == {2}
    unguided = run(recorder, request_for(null_embeddings=None), guidance=7.0)
    assert torch.equal(out, unguided)


def test_guidance_zero_is_the_null_half(recorder, request_for):
    request = request_for()
    null_as_text = request._replace(text=request.text._replace(embeddings=request.null_embeddings))
    zero, null = run(recorder, request, guidance=0.0), run(recorder, null_as_text, guidance=1.0)
    torch.testing.assert_close(zero, null, atol=1e-6, rtol=0)
    assert (zero - run(recorder, request, guidance=1.0)).abs().max() > 0.01


def test_frame_mask_covers_both_halves(recorder, request_for):
    mask = torch.tensor([[0.0, 1, 1, 1, 1], [1.0, 1, 1, 1, 0]])
    run(recorder, request_for(mask), guidance=4.0)
    assert all(torch.equal(call["x_mask"], (mask == 1).repeat(2, 1)) for call in recorder.calls)


# --- with the network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> STDiT3:
    torch.manual_seed(0)
    model = build({"hidden_size": 32, "depth": 2, "num_heads": 4, "caption_channels": 8, "model_max_length": 6})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_request(count: int = 2) -> SampleRequest:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 3, 4, 6, generator=generator)[:count]
    embeddings = torch.randn(2, 1, 6, 8, generator=generator)[:count]
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])[:count]
    null = torch.randn(2, 1, 6, 8, generator=generator)[:count]
    return SampleRequest(noise, TextEmbedding(embeddings, mask), null, 32, 48, 9, 3, 24.0)


def call(model: STDiT3, request: SampleRequest, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One unguided velocity at pure noise."""
    n = len(y)
    sizes = {"fps": torch.full((n,), 24.0), "height": torch.full((n,), 32.0), "width": torch.full((n,), 48.0)}
    with torch.no_grad():
        return model(request.noise, torch.full((n,), 1000.0), y, mask, **sizes)[:, :4]


@pytest.mark.parametrize("own_mask", [False, True], ids=["no text", "negative prompt"])
def test_one_guided_step_by_hand(network, own_mask):
    """One step has length 1: noise + null + g (text - null). A negative prompt brings its own number of tokens."""
    null_mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]]) if own_mask else None
    request = make_request()._replace(null_mask=null_mask)
    conditional = call(network, request, request.text.embeddings, request.text.mask)
    null = call(network, request, request.null_embeddings, request.text.mask if null_mask is None else null_mask)
    with torch.no_grad():
        out = RectifiedFlow().sample(network, request, steps=1, guidance=3.0)
    torch.testing.assert_close(out, request.noise + null + 3.0 * (conditional - null), **ROUNDING)


def test_own_mask_of_the_negative_prompt_matters(network):
    request = make_request()
    other = request._replace(null_mask=torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]))
    same = request._replace(null_mask=request.text.mask)
    plain = run(network, request, guidance=3.0)
    assert torch.equal(run(network, same, guidance=3.0), plain)
    assert (run(network, other, guidance=3.0) - plain).abs().max() > 0.01


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("mask", [None, torch.tensor([[0.0, 1, 1], [1, 0.5, 1]])], ids=["free", "masked"])
def test_batch_of_two_equals_two_singles(network, guidance, mask):
    """Each sample of the batch is the one made alone: its own text length, mask and noise."""
    fresh = torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(9))
    request = make_request()._replace(frame_mask=mask, draw_noise=lambda _step: fresh)
    together = run(network, request, guidance=guidance)
    for i in range(2):
        row = slice(i, i + 1)
        alone = request._replace(
            noise=request.noise[row],
            text=TextEmbedding(*(part[row] for part in request.text)),
            null_embeddings=request.null_embeddings[row],
            frame_mask=None if mask is None else mask[row],
            draw_noise=lambda _step, row=row: fresh[row],
        )
        torch.testing.assert_close(together[row], run(network, alone, guidance=guidance), **ROUNDING)


def test_null_text_is_the_start_of_the_table(network):
    null = network.null_text(3, 4)
    assert null.shape == (3, 1, 4, 8)
    table = network.y_embedder.y_embedding
    assert torch.equal(null[2, 0], table[:4])
    longer = network.null_text(1, len(table) + 2)[0, 0]
    assert torch.equal(longer, torch.cat([table, table[-1:], table[-1:]]))


def test_text_is_projected_once_for_all_steps(network):
    """The same video as when the network gets the text itself at each step, which it does behind another object."""
    generator = torch.Generator().manual_seed(4)
    text = TextEmbedding(torch.randn(2, 1, 6, 8, generator=generator), torch.tensor([[1] * 6, [1] * 3 + [0] * 3]))
    noise = torch.randn(2, 4, 3, 4, 6, generator=generator)
    request = SampleRequest(noise, text, network.null_text(2, 6), 32, 48, 9, 3, 24.0)
    calls: list[int] = []
    handle = network.y_embedder.register_forward_hook(lambda *_: calls.append(1))

    def only_callable(*args, **conditioning):
        return network(*args, **conditioning)

    once = run(network, request, guidance=3.0)
    assert len(calls) == 1
    each_step = run(only_callable, request, guidance=3.0)
    assert len(calls) == 1 + 4
    handle.remove()
    assert torch.equal(once, each_step)
