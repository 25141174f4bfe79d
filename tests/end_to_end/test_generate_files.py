"""What `sora generate` does with prompts, names and files that are there already; in this process, to be quick."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from executable import SHAPE, files_in, psnr
from PIL import Image

from sora_cli.errors import SoraError


class TinyRun(Protocol):
    """`sora generate PROMPTS` with the tiny model at a tiny size; the exit code must be `code`."""

    def __call__(self, prompts: Sequence[str], *arguments: str, code: int = 0) -> Any: ...


@pytest.fixture
def sora_tiny(sora: Callable[..., Any], tiny_site: Path, add_site: Callable[[Path], None]) -> TinyRun:
    add_site(tiny_site)

    def run(prompts: Sequence[str], *arguments: str, code: int = 0) -> Any:
        done = sora("generate", *prompts, *SHAPE, *arguments)
        assert done.code == code, done.err
        return done

    return run


def test_an_image(sora_tiny: TinyRun) -> None:
    done = sora_tiny(["a waterfall"], "--frames", "1", "-q")
    assert done.out == "outputs/a-waterfall-42.png\n"
    assert done.err == ""
    with Image.open("outputs/a-waterfall-42.png") as image:
        assert (image.width, image.height, image.mode) == (96, 64, "RGB")


def test_existing_files(sora_tiny: TinyRun) -> None:
    path = Path("x.mp4")
    sora_tiny(["a cat"], "-o", "x.mp4")
    made = path.stat().st_mtime_ns
    again = sora_tiny(["a cat"], "-o", "x.mp4")
    assert again.out == "x.mp4\n"
    assert "already there" in again.err
    assert "loading" not in again.err
    assert path.stat().st_mtime_ns == made
    refused = sora_tiny(["a cat"], "-o", "x.mp4", "--guidance", "3", code=2)
    assert "already there, made with other settings: x.mp4" in refused.err
    assert "--overwrite" in refused.err
    assert path.stat().st_mtime_ns == made
    sora_tiny(["a cat"], "-o", "x.mp4", "--guidance", "3", "--overwrite")
    assert json.loads(Path("x.mp4.json").read_text())["scheduler"]["guidance"] == 3


def test_a_foreign_file_is_not_replaced(sora_tiny: TinyRun) -> None:
    path = Path("x.mp4")
    path.write_bytes(b"holiday")
    sora_tiny(["a cat"], "-o", "x.mp4", code=2)
    assert path.read_bytes() == b"holiday"


def test_one_conflict_stops_the_run_before_any_clip(sora_tiny: TinyRun) -> None:
    Path("clips").mkdir()
    Path("clips/a-dog-42.mp4").write_bytes(b"holiday")
    refused = sora_tiny(["a cat", "a dog"], "-o", "clips", code=2)
    assert "loading" not in refused.err
    assert files_in(Path("clips")) == ["a-dog-42.mp4"]


def test_finished_clips_of_a_run_are_skipped_in_order(sora_tiny: TinyRun) -> None:
    sora_tiny(["a cat"], "-o", "clips")
    done = sora_tiny(["a dog", "a cat"], "-o", "clips", "--json")
    assert [(record["path"], record["status"]) for record in json.loads(done.out)] == [
        ("clips/a-dog-42.mp4", "made"),
        ("clips/a-cat-42.mp4", "skipped"),
    ]


def test_settings_travel_with_the_file(sora_tiny: TinyRun, sora: Callable[..., Any]) -> None:
    prompt = 'a "cat" in a {box}{"aes": 6, "camera": "pan left"}'
    sora_tiny([prompt], "--motion", "3", "--negative-prompt", "blur", "--seed", "7", "-o", "a.mp4")
    settings = json.loads(Path("a.mp4.json").read_text())
    assert settings["prompt"] == 'a "cat" in a {box}'
    expected = 'a "cat" in a {box} aesthetic score: 6.0. motion score: 3.0. camera motion: pan left.'
    assert settings["text"] == expected
    Path("a.mp4.json").unlink()
    assert sora("generate", "--from", "a.mp4", "-o", "b.mp4").code == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()


def test_a_file_of_another_command_is_nothing_to_start_from(sora: Callable[..., Any]) -> None:
    Path("scene.mp4.json").write_text('{"settings_hash": "1", "scene": "ocean"}')
    done = sora("generate", "--from", "scene.mp4.json")
    assert done.code == 2
    assert done.err.startswith("error: scene.mp4.json was not made by `sora generate`")


def test_only_the_first_part_of_a_prompt_is_used_and_said(sora_tiny: TinyRun) -> None:
    done = sora_tiny(["|0|a cat|2|a dog", "a cow"], "-n", "--json")
    assert done.err.count("a clip is one part, so only 'a cat' of the 2 parts of") == 1
    done = sora_tiny(["|0|a cat|2|a dog"], "--frames", "1", "-o", "x.png")
    assert json.loads(Path("x.png.json").read_text())["text"] == "a cat"


def test_a_prompt_that_is_not_read_to_its_end_is_named(sora_tiny: TinyRun) -> None:
    exact = "thirty-one letters are all read"
    assert len(exact) == 31
    done = sora_tiny([exact, "a cat " * 20], "--frames", "1", "--batch-size", "2", "--negative-prompt", "a dog " * 10)
    said = [line for line in done.err.splitlines() if "of a prompt are not read" in line]
    assert [line.split("only its start: ")[1][:5] for line in said] == ["a cat", "a dog"]
    assert "the last 89 tokens" in said[0]
    assert "the last 29 tokens" in said[1]


def test_a_dry_run_shows_the_launch_line(sora_tiny: TinyRun) -> None:
    done = sora_tiny(["a cat"], "--device", "cpu", "--gpus", "2", "-n", "--json")
    assert "--nproc-per-node=2" in json.loads(done.out)["launch"]


def test_a_complete_clip_leaves_no_latents_when_nobody_reads_its_path(
    sora_tiny: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise SoraError("cannot write to standard output")

    monkeypatch.setattr("sora_cli.tasks.sampling.report", broken)
    sora_tiny(["a cat", "a dog"], "--batch-size", "1", "-o", "clips", code=1)
    assert files_in(Path("clips")) == ["a-cat-42.mp4", "a-cat-42.mp4.json"]


def test_prompt_file(sora_tiny: TinyRun) -> None:
    Path("prompts.txt").write_text('one\n\nthree{"aes": 5}\nfour\n')
    done = sora_tiny([], "--prompt-file", "prompts.txt", "--end-index", "3", "-o", "clips")
    assert done.out.split() == ["clips/one-42.mp4", "clips/video-42.mp4", "clips/three-42.mp4"]
    assert "the prompt is empty, so its clip is made from no text, counted from 0: 1" in done.err
    done = sora_tiny(["  "], "-o", "blank")
    assert done.out.split() == ["blank/video-42.mp4"]
    assert "the prompt is empty, so its clip is made from no text\n" in done.err


def test_negative_prompt_changes_the_picture_and_needs_guidance(sora_tiny: TinyRun) -> None:
    for name, extra in (("a", ()), ("b", ("--negative-prompt", "blur")), ("c", ("--negative-prompt", "a dark sky"))):
        sora_tiny(["a cat"], *extra, "-o", f"{name}.mp4")
    contents = {Path(f"{name}.mp4").read_bytes() for name in "abc"}
    assert len(contents) == 3
    refused = sora_tiny(["a cat"], "--negative-prompt", "blur", "--guidance", "1", code=2)
    assert "a negative prompt has no effect with guidance 1" in refused.err


def test_dry_run_says_what_would_happen_and_touches_nothing(sora_tiny: TinyRun) -> None:
    sora_tiny(["a cat"], "-o", "clips")
    before = files_in(Path("clips"))
    plan = json.loads(sora_tiny(["a cat", "a dog"], "-o", "clips", "-n", "--json").out)
    assert plan["files"] == {
        "clips/a-cat-42.mp4": "is there already, would be skipped",
        "clips/a-dog-42.mp4": "would be made",
    }
    assert plan["latent"] == {"channels": 4, "frames": 5, "height": 8, "width": 12}
    assert {"key": "sampling.steps", "value": 6, "origin": "flag"} in plan["settings"]
    sora_tiny(["a cat"], "-o", "new/folder", "-n")
    assert files_in(Path("")) == ["clips"]
    assert files_in(Path("clips")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no prompt"),
        (("a cat", "-o", "file/x.mp4"), 2, "cannot write to the folder file"),
        (("a cat", "-o", "x.gif"), 2, "videos are written as .mp4"),
        (("a cat", "a dog", "-o", "x.mp4"), 2, "2 clips do not fit into the one file"),
        (('a cat{"aess": 5}',), 2, "unknown key 'aess'"),
        (('a cat{"reference_path": "a.png"}',), 2, "there is no picture or video a.png"),
        (("a cat", "--weights", "absent"), 2, "no weights for tiny"),
        (("a cat", "--weights", "broken.safetensors"), 1, "cannot read the weights file"),
        (("a cat", "--device", "cuda"), 2, "--device cuda is not available"),
        ((b"a \xff cat".decode(errors="surrogateescape"),), 2, "not valid Unicode text"),
        (('a cat{"camera": "\\ud800"}',), 2, "not valid Unicode text"),
        (("a cat", "--negative-prompt", "\udcff"), 2, "not valid Unicode text"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    sora_tiny: TinyRun, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("file").write_text("")
    Path("broken.safetensors").write_text("not weights")
    done = sora_tiny(arguments, code=code)
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    outputs = Path("outputs")
    assert not outputs.exists() or files_in(outputs) == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_clip_alone_and_in_a_batch(sora_tiny: TinyRun, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """At least 50 dB between the frames that go to the encoder; the prompts differ in length, so masks differ too."""
    decoded: dict[str, np.ndarray] = {}

    @contextlib.contextmanager
    def keep_frames(
        path: Path, fps: float, settings: dict[str, Any], **of_the_file: Any
    ) -> Iterator[Callable[[np.ndarray], None]]:
        pieces: list[np.ndarray] = []
        yield pieces.append
        decoded[str(path)] = np.concatenate(pieces)

    monkeypatch.setattr("sora_cli.tasks.clip_file.open_video", keep_frames)
    sora_tiny(["a cat", "a much longer prompt"], "--dtype", dtype, "--batch-size", "2", "-o", "batch")
    sora_tiny(["a much longer prompt"], "--dtype", dtype, "-o", "alone")
    name = "a-much-longer-prompt-42.mp4"
    assert decoded[f"alone/{name}"].shape == (17, 64, 96, 3)
    assert psnr(decoded[f"alone/{name}"], decoded[f"batch/{name}"]) >= 50
    assert psnr(decoded[f"alone/{name}"], decoded["batch/a-cat-42.mp4"]) < 40
