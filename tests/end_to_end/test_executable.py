"""`sora generate` as a user runs it: the executable, a plugin, files on disk."""

from __future__ import annotations

import json
import subprocess
import sys

import av
from executable import SHAPE, Executable, files_in, frames_of, image_of, psnr


def test_a_video(executable: Executable) -> None:
    done = executable.tiny(["a waterfall"], "--fps", "12")
    assert done.stdout == "outputs/a-waterfall-42.mp4\n"
    path = executable.folder / "outputs" / "a-waterfall-42.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12
    assert frames_of(path).shape == (17, 64, 96, 3)
    assert "tiny makes coloured noise" in done.stderr
    assert files_in(path.parent) == ["a-waterfall-42.mp4", "a-waterfall-42.mp4.json"]


def test_same_command_same_bytes_and_other_seed_other_bytes(executable: Executable) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        executable.tiny(["a cat"], "--seed", seed, "-o", f"{name}.mp4")
    first, second, third = ((executable.folder / f"{name}.mp4").read_bytes() for name in "abc")
    assert first == second
    assert first != third


def test_samples_use_consecutive_seeds_and_batches_do_not_matter(executable: Executable) -> None:
    # Pictures, because PNG keeps what was decoded: H.264 makes more of a difference of one level in one pixel.
    prompts = ["a cat", "a long prompt about a dog"]
    image = ("--frames", "1")
    batched = executable.tiny(prompts, *image, "--num-samples", "2", "--batch-size", "4", "-o", "batched", "--json")
    names = ["a-cat-42", "a-cat-43", "a-long-prompt-about-a-dog-42", "a-long-prompt-about-a-dog-43"]
    records = json.loads(batched.stdout)
    assert [record["path"] for record in records] == [f"batched/{name}.png" for name in names]
    assert [record["seed"] for record in records] == [42, 43, 42, 43]
    executable.tiny(prompts[1:], *image, "--seed", "43", "-o", "single")
    alone = image_of(executable.folder / "single" / f"{names[3]}.png")
    assert psnr(alone, image_of(executable.folder / "batched" / f"{names[3]}.png")) >= 50
    assert psnr(alone, image_of(executable.folder / "batched" / f"{names[2]}.png")) < 40


def test_dry_run_imports_nothing_heavy(executable: Executable) -> None:
    script = (
        "import sys; from sora_cli.__main__ import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'av', 'transformers', 'safetensors', 'PIL'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "generate", "a cat", *SHAPE, "-n", "--json"],
        cwd=executable.folder,
        env=executable.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_full_disk_is_one_message_and_leaves_nothing(executable: Executable) -> None:
    # No file may grow at all: how a full disk looks to a process that may not fill one.
    limit = f"ulimit -f 0; exec {executable.program} generate 'a cat' {' '.join(SHAPE)}"
    done = executable.shell(limit)
    assert done.returncode == 1, done.stderr
    assert "error: no space left to write outputs/a-cat-42.mp4" in done.stderr
    assert files_in(executable.folder / "outputs") == []
    executable.tiny(["a cat"])


def test_closed_streams(executable: Executable) -> None:
    for name, redirection in (("a", ">&-"), ("b", "2>&-"), ("c", ">&- 2>&-")):
        command = f"exec {executable.program} generate 'a cat' {' '.join(SHAPE)} -o {name} {redirection}"
        done = executable.shell(command)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert files_in(executable.folder / name) == ["a-cat-42.mp4", "a-cat-42.mp4.json"]


def test_prompts_from_standard_input(executable: Executable) -> None:
    done = subprocess.run(
        [executable.program, "generate", "-", *SHAPE, "-q"],
        input="one\ntwo\n",
        cwd=executable.folder,
        env=executable.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "outputs/one-42.mp4\noutputs/two-42.mp4\n"
    assert done.stderr == ""
