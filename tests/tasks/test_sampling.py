"""How the network is called, and what a run does when sampling fails."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sora_cli.launch.mesh import Team
from sora_cli.tasks import sampling
from sora_cli.tasks.sampling import OneByOne, _share, is_out_of_memory


def test_no_memory_on_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as caught_numpy:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(caught_numpy.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_other_errors_are_not_about_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_network_sees_the_copies_of_one_clip_at_a_time() -> None:
    """Two clips with guidance: four rows of x and text, two of mask and size; a call gets what one clip has alone."""
    calls = []

    def network(x, t, y, *, mask, fps, x_mask):
        calls.append((x.flatten().tolist(), t.tolist(), y.tolist(), mask.tolist(), fps.tolist(), x_mask))
        return torch.cat([x, -x], dim=1)

    x = torch.tensor([10.0, 20.0, 11.0, 21.0]).view(4, 1, 1, 1, 1)  # clips 1 and 2: text, then without
    out = OneByOne(network, 2)(
        x,
        torch.tensor([7.0, 8.0, 7.0, 8.0]),
        torch.tensor([1, 2, 3, 4]),
        mask=torch.tensor([5, 6]),
        fps=torch.tensor([24.0, 12.0]),
        x_mask=None,
    )
    assert calls == [
        ([10.0, 11.0], [7.0, 7.0], [1, 3], [5], [24.0], None),
        ([20.0, 21.0], [8.0, 8.0], [2, 4], [6], [12.0], None),
    ]
    assert torch.equal(out, torch.cat([x, -x], dim=1))


def test_processes_share_what_is_still_to_make() -> None:
    clips = [SimpleNamespace(path=Path(f"{number}.mp4")) for number in range(6)]
    plan = SimpleNamespace(batches=[(clip,) for clip in clips])
    done = frozenset(Path(f"{number}.mp4") for number in (0, 2, 4))
    shares = [_share(plan, Team(data_rank=rank, data_size=2), done) for rank in (0, 1)]
    numbers = [[int(batch[0].path.stem) for batch in share] for share in shares]
    assert sorted(numbers[0] + numbers[1]) == list(range(6))
    assert [len([number for number in share if number % 2]) for share in numbers] == [2, 1], "not three and none"
    assert all(share == sorted(share) for share in numbers)


class Noisy(NamedTuple):
    """Of a request, what is looked at here."""

    noise: torch.Tensor
    frame_mask: torch.Tensor | None = None


def test_what_a_sampler_looks_back_at_is_no_place_for_given_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of an interrupted run may have more channels, which the sampler gets back; given frames do not."""
    kept = torch.randn(1, 8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    seen = []

    def into(noise, clips, part, before):
        seen.append(noise)
        return noise + 1, torch.tensor([[0.0, 1.0, 1.0]])

    plan = SimpleNamespace(
        steps=4,
        segments=SimpleNamespace(count=1),
        loop=None,
        components=SimpleNamespace(vae=SimpleNamespace(latent_channels=4)),
    )
    parts = SimpleNamespace(
        team=SimpleNamespace(is_leader=True, share=lambda found, step: (found, step)),
        given=SimpleNamespace(into=into),
        device=torch.device("cpu"),
        model=None,
        is_tight=False,
        enter=lambda name: None,
    )
    keeper = SimpleNamespace(find=lambda: kept, resumed_from=2)
    clip = SimpleNamespace(given=True, path=Path("x.mp4"))
    monkeypatch.setattr(sampling, "_request", lambda plan, parts, texts, clips, noise, part: Noisy(noise))
    monkeypatch.setattr(sampling, "_run_sampler", lambda plan, parts, model, request, *rest: request)
    request = sampling._sample(plan, parts, None, [clip], keeper, 0, [])
    assert torch.equal(seen[0], kept[:, :4])
    assert torch.equal(request.noise, kept)
    assert request.frame_mask.tolist() == [[0.0, 1.0, 1.0]]
