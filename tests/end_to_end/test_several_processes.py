"""One run on several processes: the same clips, one message when it fails, nothing left when it is stopped."""

from __future__ import annotations

import json
import signal

from executable import Executable, files_in, frames_of, psnr, stop_when, workers_in

#: 7 x 11 positions after patching: they divide by neither 2 nor 4.
NANO = ("-m", "nano", "--size", "112x176", "--frames", "5", "--steps", "2", "--device", "cpu")
TINY = ("-m", "tiny", "--size", "64x96", "--frames", "17", "--device", "cpu", "--gpus", "2", "--sequence-parallel", "1")


def test_processes_that_share_a_clip(executable: Executable) -> None:
    executable("generate", "a waterfall", *NANO, "-o", "1.mp4")
    alone = frames_of(executable.folder / "1.mp4")
    for count in ("2", "4"):
        done = executable("generate", "a waterfall", *NANO, "--gpus", count, "-o", f"{count}.mp4")
        assert done.stdout == f"{count}.mp4\n"
        assert done.stderr.count("running on cpu") == 1, "one process speaks for all"
        assert psnr(alone, frames_of(executable.folder / f"{count}.mp4")) >= 50


def test_processes_that_make_different_clips(executable: Executable) -> None:
    prompts = ("a", "b", "c")
    executable("generate", *prompts, *TINY[:-4], "--steps", "4", "-o", "alone")
    done = executable("generate", *prompts, *TINY, "--steps", "4", "-o", "together", "--json")
    records = json.loads(done.stdout)
    assert [record["path"] for record in records] == [f"together/{prompt}-42.mp4" for prompt in prompts]
    for prompt in prompts:
        first, second = (frames_of(executable.folder / f"{name}/{prompt}-42.mp4") for name in ("alone", "together"))
        assert psnr(first, second) >= 50
    again = executable("generate", *prompts, *TINY, "--steps", "4", "-o", "together", "--json")
    assert {record["status"] for record in json.loads(again.stdout)} == {"skipped"}


def test_prompts_from_standard_input(executable: Executable) -> None:
    run = " ".join([str(executable.program), "generate", "-", *TINY, "--steps", "4", "-o", "out"])
    done = executable.shell(f"printf 'a\\nb\\n' | {run}")
    assert done.stdout == "out/a-42.mp4\nout/b-42.mp4\n", done.stderr


def test_an_interrupt_ends_all_of_them_and_they_go_on(executable: Executable) -> None:
    run = ("generate", "a", *TINY, "--steps", "30", "-o", "x.mp4")
    kept = executable.folder / "x.mp4.partial.safetensors"
    stopped = stop_when(executable, kept.exists, signal.SIGINT, *run, TINY_STEP_SECONDS="0.2")
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.count("the same command goes on there") == 1
    assert files_in(executable.folder) == [kept.name]
    assert not workers_in(executable.folder)
    done = executable(*run)
    assert "from step" in done.stderr
    assert done.stdout == "x.mp4\n"


def test_one_message_when_a_process_fails(executable: Executable) -> None:
    done = executable("generate", "a", "b", *TINY, "--steps", "4", "-o", "out", code=1, TINY_FAIL="out of luck")
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert "out of luck" in done.stderr
    assert "Traceback" not in done.stderr
    assert not workers_in(executable.folder)


def test_out_of_memory_on_processes_that_share_a_clip(executable: Executable) -> None:
    """They are started once more with one row at a time, then it is an error with advice."""
    shared = ("generate", "a", "b", *TINY[:-1], "2", "--steps", "4")
    executable(*shared, "-o", "all", TINY_SHARED="1")
    done = executable(*shared, "-o", "out", TINY_SHARED="1", TINY_ROWS="1")
    assert done.stderr.count("out of memory; once more with one row of the batch at a time") == 1
    assert done.stdout == "out/a-42.mp4\nout/b-42.mp4\n"
    for prompt in "ab":
        first, second = (frames_of(executable.folder / f"{name}/{prompt}-42.mp4") for name in ("all", "out"))
        assert psnr(first, second) >= 50
    done = executable(*shared, "-o", "none", code=1, TINY_SHARED="1", TINY_ROWS="0")
    assert done.stderr.count("error:") == 1
    assert "not enough memory on cpu for 64x96, 17 frames" in done.stderr
    assert not workers_in(executable.folder)


def test_a_model_that_cannot_be_split(executable: Executable) -> None:
    done = executable("generate", "a", *TINY[:-2], "--steps", "4", "-o", "x.mp4", code=2)
    assert "this model cannot be split over processes that share a clip" in done.stderr
