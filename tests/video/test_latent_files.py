"""Files of latents: written and read in pieces, whole or not there; and frames without loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sora_cli.errors import SoraError
from sora_cli.video.latent_file import open_latents, write_latents
from sora_cli.video.lossless import LosslessFiles

SHAPE = (4, 7, 3, 5)
ABOUT = {"vae": "x", "num_frames": 7, "fps": 12.0, "height": 24, "width": 40}


@pytest.fixture
def place(tmp_path):
    """An empty folder."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pieces_make_the_whole(place, dtype):
    whole = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    path = place / "latents.safetensors"
    with write_latents(path, SHAPE, ABOUT, dtype) as writer:
        for piece in whole[None].split([3, 1, 3], dim=2):
            writer.add(piece)
    assert torch.equal(load_file(path)["latents"], whole.to(dtype)), "any reader of safetensors reads it"
    with open_latents(path) as latents:
        assert latents.shape == SHAPE
        assert latents.about == ABOUT
        assert torch.equal(latents.read(2, 5), whole.to(dtype)[None, :, 2:5].float())
    assert [each.name for each in place.iterdir()] == ["latents.safetensors"]


def test_what_is_not_whole_leaves_the_file_of_before(place):
    path = place / "latents.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(SoraError, match="2 of 7 latent frames"), write_latents(path, SHAPE, ABOUT) as writer:
        writer.add(torch.zeros(1, 4, 2, 3, 5))
    with pytest.raises(KeyboardInterrupt), write_latents(path, SHAPE, ABOUT):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert [each.name for each in place.iterdir()] == ["latents.safetensors"]


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"latents": torch.zeros(2, 2)}, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    reasons = {
        "weights.safetensors": "it does not say what it codes",
        "text.safetensors": "",
        "absent.safetensors": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(SoraError, match=f"is no file of latents: .*{reason}"), open_latents(tmp_path / name):
            pass


def test_frames_without_loss(place):
    import av

    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    with LosslessFiles({"a": place / "clip-a", "b": place / "clip-b"}, 12.0, 5) as files:
        files.add({"a": frames[:2], "b": frames[:2] // 2})
        files.add({"a": frames[2:], "b": frames[2:] // 2})
    for path, wanted in zip(files.paths.values(), (frames, frames // 2), strict=True):
        with av.open(str(path)) as container:
            found = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert (found == wanted).all()
    with pytest.raises(KeyboardInterrupt):
        write_some_and_stop(place, frames)
    assert sorted(path.name for path in place.iterdir()) == ["clip-a.mkv", "clip-b.mkv"]


def write_some_and_stop(place, frames):
    with LosslessFiles({"c": place / "clip-c"}, 12.0, 5) as files:
        files.add({"c": frames})
        raise KeyboardInterrupt
