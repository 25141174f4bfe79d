"""Long videos for real: parts, texts, pictures, interruption, several processes, memory."""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executable import SHAPE, Executable, files_in, frames_of, image_of, psnr, stop_when
from PIL import Image

from sora_cli.tasks.continuation import Continuation

#: Parts of 17 frames, of which 16 are whole pieces; each later part adds 8, the last one 9.
LONG = ("--segments", "3", "--overlap", "8")
TOTAL = 16 + 8 + 9
RUN = ("generate", "a cat", *SHAPE, *LONG, "-o", "x.mp4")
KEPT = [f"x.mp4{part}.partial.safetensors" for part in ("", ".part2", ".part3")]
NANO = ("-m", "nano", "--steps", "4", "--frames", "25", "--overlap", "9")


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture
def long(executable: Executable) -> Executable:
    """With a tiny model that can go on."""
    return replace(executable, environment={**executable.environment, "TINY_GIVEN": "1"})


def test_parts(long: Executable) -> None:
    done = long(*RUN)
    assert done.stdout == "x.mp4\n"
    assert f"each from the last 8 of the one before: {TOTAL} frames, 1.38 s" in done.stderr
    assert files_in(long.folder) == ["x.mp4", "x.mp4.json"]
    found = frames_of(long.folder / "x.mp4")
    assert len(found) == TOTAL
    long("generate", "a cat", *SHAPE, "-o", "alone.mp4")
    alone = frames_of(long.folder / "alone.mp4")
    assert psnr(found[:16], alone[:16]) > 40, "the first part is the clip without parts"
    record = json.loads(long("show", "x.mp4", "--json").stdout)
    assert record["segments"] == {
        "count": 3,
        "frames": 17,
        "overlap": 8,
        "overlap_strength": 0.0,
        "overlap_from": "latents",
        "total_frames": TOTAL,
    }
    assert long(*RUN).stderr.count("already there, made with the same settings") == 1
    refused = long(*RUN[:-2], "--overlap-strength", "0.5", "-o", "x.mp4", code=2)
    assert "made with other settings" in refused.stderr
    content = (long.folder / "x.mp4").read_bytes()
    long("generate", "--from", "x.mp4", "-o", "again.mp4")
    assert (long.folder / "again.mp4").read_bytes() == content
    long("generate", "a cat", "a dog", *SHAPE, *LONG, "--batch-size", "2", "-o", "both")
    assert (long.folder / "both" / "a-cat-42.mp4").read_bytes() == content, "a batch changes nothing"


def test_a_dry_run_says_how_long_it_is(long: Executable) -> None:
    record = json.loads(long(*RUN, "-n", "--json").stdout)
    assert record["segments"]["total_frames"] == TOTAL
    assert record["segments"]["count"] == 3
    assert record["shape"]["num_frames"] == 17


def test_each_part_has_its_text(long: Executable) -> None:
    run = ("generate", *SHAPE, *LONG, "--aes", "6")
    long(*run, "|0|a cat|2|something else entirely", "-o", "both.mp4")
    long(*run, "a cat", "-o", "cat.mp4")
    both, cat = (frames_of(long.folder / f"{name}.mp4") for name in ("both", "cat"))
    assert psnr(both[:24], cat[:24]) > 40
    assert psnr(both[24:], cat[24:]) < 30
    record = json.loads(long("show", "both.mp4", "--json").stdout)
    assert record["text"] == "a cat aesthetic score: 6.0."
    assert record["later_texts"] == ["a cat aesthetic score: 6.0.", "something else entirely aesthetic score: 6.0."]
    done = long(*run, "|0|a cat|3|a dog", "-o", "unused.mp4")
    assert "so |3| of the prompt" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_second_part(long: Executable, stop: signal.Signals) -> None:
    long(*RUN)
    expected = (long.folder / "x.mp4").read_bytes()
    for path in long.folder.iterdir():
        path.unlink()
    second = long.folder / KEPT[1]
    stopped = stop_when(long, second.exists, stop, *RUN, TINY_STEP_SECONDS="0.35")
    assert [name for name in files_in(long.folder) if not name.endswith(".partial.mp4")] != []
    assert not (long.folder / "x.mp4").exists()
    if stop is not signal.SIGKILL:
        assert stopped.returncode == 130
        assert f"of 6 steps, part 2 of 3, in {KEPT[1]}; the same command goes on there" in stopped.stderr
        assert files_in(long.folder) == sorted(KEPT[:2])
    done = long(*RUN)
    assert "sampling x.mp4, part 1" not in done.stderr, "it is sampled"
    assert "sampling x.mp4, part 2 of 3 from step" in done.stderr
    assert (long.folder / "x.mp4").read_bytes() == expected
    assert files_in(long.folder) == ["x.mp4", "x.mp4.json"]


def test_nothing_is_left_of_a_run_with_more_parts(long: Executable) -> None:
    stop_when(long, (long.folder / KEPT[2]).exists, signal.SIGINT, *RUN, TINY_DECODE_SECONDS="0.3")
    long(*RUN[:-6], "--segments", "2", "--overlap", "8", "-o", "x.mp4")
    assert files_in(long.folder) == ["x.mp4", "x.mp4.json"]


def test_stopped_while_the_last_part_is_decoded(long: Executable) -> None:
    long(*RUN)
    expected = (long.folder / "x.mp4").read_bytes()
    for path in long.folder.iterdir():
        path.unlink()
    stopped = stop_when(long, (long.folder / KEPT[2]).exists, signal.SIGINT, *RUN, TINY_DECODE_SECONDS="0.3")
    assert stopped.returncode == 130, stopped.stderr
    assert files_in(long.folder) == sorted(KEPT)
    done = long(*RUN, "--json")
    assert json.loads(done.stdout)[0]["status"] == "resumed"
    assert (long.folder / "x.mp4").read_bytes() == expected


def test_processes_that_share_a_long_video(long: Executable) -> None:
    long(*RUN, "--device", "cpu")
    alone = frames_of(long.folder / "x.mp4")
    run = (*RUN[:-1], "two.mp4", "--device", "cpu", "--gpus", "2")
    long(*run, TINY_SHARED="1")
    assert psnr(alone, frames_of(long.folder / "two.mp4")) >= 50
    long("generate", "a waterfall", *NANO, "--steps", "2", "--segments", "2", "--gpus", "2", "--device", "cpu",
         "-o", "nano.mp4")  # fmt: skip
    long("generate", "a waterfall", *NANO, "--steps", "2", "--segments", "2", "--device", "cpu", "-o", "one.mp4")
    assert psnr(frames_of(long.folder / "nano.mp4"), frames_of(long.folder / "one.mp4")) >= 50


def test_pictures_in_a_long_video(executable: Executable) -> None:
    """The first picture begins it, the last one ends it, and one in between is where its time is."""
    executable("generate", "clouds in a blue sky", *NANO, "-o", "clouds.mp4")
    executable("generate", "sunset over the mountains", *NANO, "-o", "sunset.mp4")
    for name in ("clouds", "sunset"):
        Image.fromarray(frames_of(executable.folder / f"{name}.mp4")[0]).save(executable.folder / f"{name}.png")
    pictures = ("--keyframe", "sunset.png@32", "--last", "clouds.png")
    executable("i2v", "clouds.png", "clouds", *pictures, *NANO, "--segments", "3", "-o", "long.mp4")
    found = frames_of(executable.folder / "long.mp4")
    assert len(found) == 25 + 16 + 16
    clouds, sunset = (image_of(executable.folder / f"{name}.png") for name in ("clouds", "sunset"))
    for frame, wanted, other in ((0, clouds, sunset), (32, sunset, clouds), (56, clouds, sunset)):
        assert psnr(found[frame], wanted) > psnr(found[frame], other) + 5, frame


def test_references_of_later_parts(executable: Executable) -> None:
    """A group of loop 1 is for the second part, and what that goes on from lies over it."""
    executable("generate", "sunset over the mountains", *NANO, "-o", "sunset.mp4")
    sunset = frames_of(executable.folder / "sunset.mp4")
    run = ("generate", "clouds", *NANO, "--segments", "2", "--reference", "sunset.mp4")
    executable(*run, "--mask-strategy", "1,0,0,0,7", "-o", "later.mp4")
    executable(*run[:-2], "-o", "plain.mp4")
    later, plain = (frames_of(executable.folder / f"{name}.mp4") for name in ("later", "plain"))
    assert psnr(later[:25], plain[:25]) > 40, "nothing of it is in the first part"
    assert psnr(later[-8:], sunset[-8:]) > 20
    failed = executable(*run, "--mask-strategy", "1,1", "-o", "bad.mp4", code=2)
    assert "names reference 1, and there are 1" in failed.stderr


def test_a_video_goes_on_in_several_parts(executable: Executable) -> None:
    executable("generate", "clouds in a blue sky", *NANO, "-o", "clouds.mp4")
    run = ("extend", "clouds.mp4", "clouds in a blue sky", "-m", "nano", "--steps", "4", "--by", "0.5s")
    executable(*run, "--overlap", "9", "--segments", "3", "-o", "longer.mp4")
    found = frames_of(executable.folder / "longer.mp4")
    assert len(found) == 25 + 3 * 12
    executable(*run, "--overlap", "9", "-o", "once.mp4")
    assert psnr(found[:37], frames_of(executable.folder / "once.mp4")) > 40


def test_the_way_of_the_reference(executable: Executable) -> None:
    """Frames encoded again give about the same video as latents, and not the same one."""
    run = ("generate", "a waterfall", *NANO, "--segments", "2")
    executable(*run, "-o", "latents.mp4")
    executable(*run, "--overlap-from", "frames", "-o", "frames.mp4")
    latents, frames = (frames_of(executable.folder / f"{name}.mp4") for name in ("latents", "frames"))
    assert psnr(latents[:25], frames[:25]) > 45
    assert 18 < psnr(latents[25:], frames[25:]) < 60
    assert not (latents[25:] == frames[25:]).all()


def test_what_cannot_be_long(executable: Executable) -> None:
    for arguments, message in (
        (("a cat", *SHAPE, *LONG), "tiny makes clips from text alone, so none can go on from another"),
        (("clouds", "-m", "nano", "--frames", "1", "--segments", "2"), "a picture has no parts"),
        (("clouds", "-m", "nano", "--segments", "2", "--overlap", "12"), "near it: 9 or 13"),
        (("clouds", "-m", "nano", "--len", "17", "--segments", "2"), "nothing new after an overlap of 17"),
    ):
        failed = executable("generate", *arguments, "-o", "out.mp4", code=2)
        assert message in failed.stderr, failed.stderr
    assert files_in(executable.folder) == []


def test_latents_of_earlier_parts_are_gone(
    sora: Callable[..., Any], tiny_site: Path, add_site: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in latents that are alive when a part is decoded are as many in the last of 8 parts as of 3."""
    add_site(tiny_site)
    monkeypatch.setenv("TINY_GIVEN", "1")
    living: list[int] = []
    decode = Continuation.decode

    def counting(self: Continuation, latents: torch.Tensor, index: int, title: str) -> Iterator[np.ndarray]:
        gc.collect()
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        living.append(sum(each.numel() for each in tensors if each.dim() > 3 and each.shape[-2:] == latents.shape[-2:]))
        yield from decode(self, latents, index, title)

    monkeypatch.setattr(Continuation, "decode", counting)
    for count in ("3", "8"):
        done = sora("generate", "a cat", *SHAPE, "--segments", count, "--overlap", "8", "-o", f"{count}.mp4")
        assert done.code == 0, done.err
    assert len(living) == 3 + 8
    assert living[2] == living[-1]


def test_memory_is_that_of_fewer_parts(long: Executable) -> None:
    """Peak of the whole process, with 6 parts, when all buffers have their size, and with 24."""
    program = (
        "import resource, sys; from sora_cli.__main__ import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    peaks = []
    for count in ("6", "24"):
        run = ("generate", "a waterfall", *NANO, "--steps", "1", "--segments", count, "-q", "-o", f"{count}.mp4")
        done = long.shell(f'"{sys.executable}" -c "{program}" ' + " ".join(f"'{text}'" for text in run))
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0]
