"""`sora train` for real: a tiny network on real small clips, stopped and killed, on one process and on two."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from executable import Executable, frames_of, stop_when
from opensora_tiny import SHAPE, make_tiny_opensora

from sora_cli.training.run_folder import complete_checkpoints

RUN = Path("run")
#: Two pairs of buckets, so that micro-batches of several shapes take turns.
BUCKETS = "data.bucket_config={144p: {5: [[1.0, 0.5], 2], 1: [1.0, 2], 3: [1.0, 2]}}"


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that name the three tiny checkpoints."""
    return make_tiny_opensora(tmp_path_factory.mktemp("opensora"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 20 rendered clips, 20 frames each."""
    from typer.testing import CliRunner

    from sora_plugins.nano.commands import app

    folder = tmp_path_factory.mktemp("clips")
    options = ("--count", "20", "--frames", "20", "--size", "144x256", "-o", str(folder), "-q")
    done = CliRunner().invoke(app, ["render", *options])
    assert done.exit_code == 0, done.output
    return folder / "clips.csv"


def arguments(weights: list[str], clips: Path, *more: str, steps: int = 8) -> list[str]:
    settings = ("--steps", str(steps), "--log-every", "1", "--checkpoint-every", "3", "--dtype", "fp32")
    places = ("-m", "opensora-v1.2", "--data", str(clips), "--run", str(RUN), "--device", "cpu", "--workers", "0")
    masks = "objective.mask_ratios={image_head: 0.5, random: 0.2}"
    return ["train", *places, *settings, "--set", BUCKETS, "--set", masks, "--lr", "1e-3", *weights, *more]


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def test_a_run_learns_and_its_result_makes_a_clip(executable: Executable, weights: list[str], clips: Path) -> None:
    done = executable(*arguments(weights, clips, "--ema-decay", "0.9", steps=24))
    assert done.stdout == "run\n"
    values = losses(executable.folder / RUN)
    assert len(values) == 24
    assert sum(values[-6:]) < 0.7 * sum(values[:6]), "the loss falls"
    assert "update 24: loss" in done.stderr
    kept = [path.name for path in complete_checkpoints(executable.folder / RUN)]
    assert kept == ["step-18", "step-21", "step-24"]
    again = executable(*arguments(weights, clips, "--ema-decay", "0.9", steps=24))
    assert "already at update 24 of 24, nothing to do" in again.stderr
    others = [text for text in weights if text != weights[1]][1:]
    for name, more in (("averaged", ()), ("last", ("--raw",)), ("older", ())):
        place = RUN / "step-18" if name == "older" else RUN
        executable("generate", "a fox", *SHAPE, *others, "--weights", str(place), *more, "-o", f"{name}.mp4")
    clips_made = [frames_of(executable.folder / f"{name}.mp4") for name in ("averaged", "last", "older")]
    assert clips_made[0].shape == (17, 64, 96, 3)
    assert (clips_made[0] != clips_made[1]).any()
    assert (clips_made[0] != clips_made[2]).any()


def test_an_exported_run_makes_the_same_clip(executable: Executable, weights: list[str], clips: Path) -> None:
    executable(*arguments(weights, clips, steps=2))
    for name, more in (("folder", ()), ("file.safetensors", ("--dtype", "fp32")), ("last", ("--raw",))):
        executable("train", "export", str(RUN), "-o", name, *more)
    refused = executable("train", "export", str(RUN), "-o", "folder", code=2)
    assert "folder is there already" in refused.stderr
    executable("train", "export", str(RUN), "-o", "folder", "--overwrite")
    made = {}
    (executable.folder / "file.safetensors").rename(executable.folder / "folder" / "other.safetensors")
    for place in (RUN, "folder", "folder/other.safetensors", "last"):
        name = f"{str(place).replace('/', '-')}.mp4"
        executable("generate", "a fox", *SHAPE, "--dtype", "bf16", *weights[2:], "--weights", str(place), "-o", name)
        made[str(place)] = frames_of(executable.folder / name)
    first, *others, last = made.values()
    assert all((first == other).all() for other in others)
    assert (first != last).any()


def test_an_adapter_is_small_and_changes_the_clip(executable: Executable, weights: list[str], clips: Path) -> None:
    pytest.importorskip("peft", reason="the extra train")
    run = arguments(weights, clips, "--lora", "rank=4 alpha=8", "--lr", "0.02", "--ema-decay", "0.5", steps=6)
    executable(*run)
    values = losses(executable.folder / RUN)
    assert values[-1] < values[0]
    executable("train", "export", str(RUN), "-o", "style.safetensors", "--dtype", "fp32")
    size = (executable.folder / "style.safetensors").stat().st_size
    assert size < (Path(weights[1]) / "model.safetensors").stat().st_size
    for name, more in (("plain", ()), ("run", ("--lora", "run")), ("file", ("--lora", "style.safetensors:1.0"))):
        executable("generate", "a fox", *SHAPE, *weights, *more, "-o", f"{name}.mp4")
    plain, of_run, of_file = (frames_of(executable.folder / f"{name}.mp4") for name in ("plain", "run", "file"))
    assert (of_run != plain).any()
    assert (of_run == of_file).all()
    refused = executable("generate", "a fox", *SHAPE, *weights[2:], "--weights", "run", code=2)
    assert "use it with --lora run" in refused.stderr
    again = executable(*arguments(weights, clips, "--lora", "rank=8", steps=6), code=1)
    assert "model.lora:" in again.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    executable: Executable, weights: list[str], clips: Path, ranks: int
) -> None:
    """SIGKILL at several moments; the losses of all updates and the final weights are bit for bit the same."""
    more = () if ranks == 1 else ("--gpus", "2")
    steps = 14 if ranks == 1 else 9
    run = arguments(weights, clips, *more, steps=steps)
    executable(*run)
    whole = executable.folder / "whole"
    (executable.folder / RUN).rename(whole)
    moments = random.Random(ranks)
    log = executable.folder / RUN / "metrics.jsonl"
    temporary = executable.folder / "temporary"  # its name is in the command lines of all processes of a run
    temporary.mkdir()

    def lines() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    def is_time(wanted: int) -> bool:
        return lines() >= wanted and (wanted <= 3 or bool(complete_checkpoints(executable.folder / RUN)))

    for first, last in ((1, 3), (4, steps - 1)):
        is_now = functools.partial(is_time, moments.randint(first, last))
        killed = stop_when(executable, is_now, signal.SIGKILL, *run, TMPDIR=str(temporary))
        assert killed.returncode == -signal.SIGKILL
        executable.shell(f"pkill -KILL -f {temporary}")
    done = executable(*run)
    assert "going on after update" in done.stderr
    assert losses(executable.folder / RUN) == losses(whole)
    for name in ("model", "ema", "optimizer"):
        ours, theirs = (folder / f"step-{steps}" / f"{name}.safetensors" for folder in (executable.folder / RUN, whole))
        assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_keeps_the_state(
    executable: Executable, weights: list[str], clips: Path, stop: signal.Signals, code: int, ranks: int
) -> None:
    run = arguments(weights, clips, *(() if ranks == 1 else ("--gpus", "2")), steps=500)
    log = executable.folder / RUN / "metrics.jsonl"
    stopped = stop_when(executable, lambda: log.exists() and bool(log.read_text()), stop, *run)
    assert stopped.returncode == code, stopped.stderr
    done = len(losses(executable.folder / RUN))
    assert 0 < done < 500
    assert complete_checkpoints(executable.folder / RUN)[-1].name == f"step-{done}"
    assert f"stopped after update {done}" in stopped.stderr
    assert stopped.stdout == ("run\n" if code == 0 else "")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_keeps_the_state(
    executable: Executable, weights: list[str], clips: Path, stop: signal.Signals, code: int
) -> None:
    """As a terminal sends Ctrl-C, and SLURM its SIGTERM: the decoders get it too, and finish what is under way."""
    log = executable.folder / RUN / "metrics.jsonl"
    run = arguments(weights, clips, "--workers", "1", steps=500)
    process = subprocess.Popen(
        [executable.program, *run],
        cwd=executable.folder,
        env=executable.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, stop)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == code, errors
    done = len(losses(executable.folder / RUN))
    assert complete_checkpoints(executable.folder / RUN)[-1].name == f"step-{done}"


def test_all_engines_agree(executable: Executable, weights: list[str], clips: Path) -> None:
    """Single, DDP, FSDP2 and processes that share a clip: losses and weights of 6 updates."""
    from safetensors.torch import load_file

    ways = {
        "single": ("--accumulate", "2"),
        "ddp": ("--gpus", "2"),
        "zero2": ("--gpus", "2", "--sharding", "zero2"),
        "zero3": ("--gpus", "2", "--sharding", "zero3"),
        "sequence": ("--gpus", "2", "--sequence-parallel", "2", "--accumulate", "2"),
    }
    made = {}
    for name, more in ways.items():
        executable(*arguments(weights, clips, *more, "--run", name, steps=6))
        files = {
            part: load_file(executable.folder / name / "step-6" / f"{part}.safetensors") for part in ("model", "ema")
        }
        made[name] = losses(executable.folder / name), files
    alone, expected = made.pop("single")
    for name, (values, files) in made.items():
        assert values == pytest.approx(alone, rel=1e-4), name
        for part, tensors in files.items():
            assert tensors.keys() == expected[part].keys()
            for key, tensor in tensors.items():
                difference = (tensor - expected[part][key]).abs().max()
                assert difference <= 2e-3 * expected[part][key].abs().max() + 2e-5, (name, part, key)


def test_a_run_goes_on_with_other_ranks(executable: Executable, weights: list[str], clips: Path) -> None:
    """Every clip of the epoch is used once, whoever trains it, and the losses stay those of one process."""
    run = [*arguments(weights, clips, "--epochs", "1", steps=3), "--checkpoint-every", "1"]
    executable(*run)
    executable(*run, "--gpus", "2", "--steps", "5")
    record = json.loads((executable.folder / RUN / "step-5" / "record.json").read_text())
    assert record["consumed"] == 3 + 2 * 2


def test_machines_of_a_host_file(started: Executable, weights: list[str], clips: Path) -> None:
    """Two machines that are this one, through a stand-in for ssh, train as two processes of one machine do.

    They are told the command line of this process, so it is one of its own.
    """
    import socket

    folder = started.folder
    stand_in = folder / "bin" / "ssh"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    stand_in.chmod(0o755)
    (folder / "hosts").write_text("localhost\n127.0.0.1\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{stand_in.parent}:{started.environment['PATH']}"
    run = arguments(weights, clips, "--hostfile", "hosts", "--host-port", str(port), steps=3)
    done = started(*run, PATH=path)
    assert done.stdout == "run\n"
    assert ": update 3: loss" in done.stderr, "said by the machine that has the first process"
    started(*arguments(weights, clips, "--gpus", "2", "--run", "here", steps=3))
    assert losses(folder / RUN) == losses(folder / "here")


def test_one_message_when_a_rank_is_killed(executable: Executable, weights: list[str], clips: Path) -> None:
    """The others end too, and the run goes on afterwards."""
    temporary = executable.folder / "temporary"
    temporary.mkdir()
    run = arguments(weights, clips, "--gpus", "2", steps=400)
    log = executable.folder / RUN / "metrics.jsonl"
    process = executable.start(*run, TMPDIR=str(temporary))
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = executable.shell(f"pgrep -f 'worker {temporary}'").stdout.split()
    workers = [int(number) for number in found if "torch.distributed.run" not in command_of(int(number))]
    os.kill(workers[-1], signal.SIGKILL)
    errors = process.communicate(timeout=90)[1]
    assert process.returncode == 1
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    done = executable(*arguments(weights, clips, "--gpus", "2", steps=6), "--steps", str(len(losses(log.parent)) + 2))
    assert "going on after update" in done.stderr


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_what_changed_between_two_starts(executable: Executable, weights: list[str], clips: Path) -> None:
    folder = executable.folder
    table = folder / "table.csv"
    shutil.copy(clips, table)
    run = [*arguments(weights, table, "--data-root", str(clips.parent), steps=2)]
    executable(*run)
    changed = executable(*run, "--steps", "3", "--lr", "1e-4")
    assert "optimizer.learning_rate was 0.001 and is 0.0001 now" in changed.stderr
    table.write_text(table.read_text().replace("a ", "another ", 1))
    refused = executable(*run, "--steps", "4", code=1)
    assert "was started with other data" in refused.stderr
    assert "table:" in refused.stderr
    other = executable(*arguments(weights, clips, "--seed", "3"), code=1)
    assert "run.seed: 42 before, 3 now" in other.stderr
    again = executable(*run, "--no-resume", code=2)
    assert "there is a run in run already, at update 3" in again.stderr


def test_validation_and_sample_videos(executable: Executable, weights: list[str], clips: Path) -> None:
    """The same on one process and on two that cut the weights up; looking changes nothing that is learned."""
    pytest.importorskip("tensorboard", reason="the extra train")
    looking = ("--validate", str(clips), "--validate-every", "2", "--sample-prompt", "a fox", "--sample-every", "4")
    small = ("--set", "validation.steps=2", "--set", "validation.size=64x96", "--set", "validation.times=3")
    found = {}
    for name, more in {
        "plain": ("--accumulate", "2"),
        "one": ("--accumulate", "2", *looking, *small, "--profile", "1", "--tensorboard"),
        "two": ("--gpus", "2", "--sharding", "zero3", *looking, *small),
    }.items():
        executable(*arguments(weights, clips, *more, "--run", name, steps=4))
        rows = [json.loads(line) for line in (executable.folder / name / "metrics.jsonl").read_text().splitlines()]
        found[name] = [row["validation_all"] for row in rows if "validation_all" in row]
    assert len(found["one"]) == 2
    assert found["one"] == pytest.approx(found["two"], rel=1e-3)
    assert losses(executable.folder / "plain") == losses(executable.folder / "one")
    samples = executable.folder / "one" / "samples"
    assert frames_of(samples / "step-0000004-0.mp4").shape == (5, 64, 96, 3)
    assert json.loads((executable.folder / "one" / "profile.json").read_text())["traceEvents"]
    assert list((executable.folder / "one" / "tensorboard").iterdir())
    wrong = executable(*arguments(weights, clips, "--sample-prompt", "x"), code=2)
    assert "sample videos need prompts and an interval" in wrong.stderr


def test_training_from_features(executable: Executable, weights: list[str], clips: Path) -> None:
    """What one process and two extract is the same, goes on where it stopped, and trains without encoders."""
    from safetensors.torch import load_file

    places = ("-m", "opensora-v1.2", "--data", str(clips), "--device", "cpu", "--workers", "0", *weights[2:])
    extract = ("train", "extract", *places, "--set", BUCKETS, "--bin-size", "3")
    assert executable(*extract, "-o", "one").stdout == "one\n"
    executable(*extract, "-o", "two", "--gpus", "2")
    names = [path.name for path in sorted((executable.folder / "one").glob("*.safetensors"))]
    assert len(names) > 1
    for name in names:
        first, second = (load_file(executable.folder / folder / name) for folder in ("one", "two"))
        assert first.keys() == second.keys()
        assert all((first[key] == second[key]).all() for key in first)
    (executable.folder / "one" / names[0]).unlink()
    train = ("train", "-m", "opensora-v1.2", "--run", str(RUN), "--device", "cpu", "--steps", "12", *weights[:2])
    train += ("--log-every", "1", "--dtype", "fp32", "--lr", "1e-3", "--workers", "0")
    refused = executable(*train, "--data", "one", code=1)
    assert f"{names[0]} is missing or cut off" in refused.stderr
    again = executable(*extract, "-o", "one")
    assert f"extracting into one: {len(names)}/{len(names)}" in again.stderr
    executable(*train, "--data", "one")
    values = losses(executable.folder / RUN)
    assert len(values) == 12
    assert values[-1] < values[0]
    [said] = json.loads(executable(*extract, "-o", "one", "--json").stdout)
    index = json.loads((executable.folder / "one" / "index.json").read_text())
    assert said["clips"] == sum(batch["count"] for batch in index["batches"])
    too_large = "data.bucket_config={144p: {5: [1.0, 99]}}"
    nothing = executable("train", "extract", *places, "--set", too_large, "-o", "none", code=2)
    assert "no bucket has a whole micro-batch of these 20 clips" in nothing.stderr
    assert list((executable.folder / "none").iterdir()) == []
    other = executable(*extract, "--seed", "3", "-o", "one", code=2)
    assert "holds features made with another seed" in other.stderr
    wrong = executable("train", "-m", "nano", "--data", "one", "--run", "x", code=2)
    assert "the features in one are of vae opensora-vae-v1.2" in wrong.stderr


def test_bad_files_are_named_and_replaced(executable: Executable, weights: list[str], clips: Path) -> None:
    copy = executable.folder / "data"
    shutil.copytree(clips.parent, copy)
    victims = sorted(copy.glob("*.mp4"))[:2]
    victims[0].unlink()
    victims[1].write_bytes(victims[1].read_bytes()[:400])
    run = arguments(weights, copy / clips.name, steps=10)
    done = executable(*run)
    named = {
        json.loads(line)["path"] for line in (executable.folder / RUN / "bad_files.jsonl").read_text().splitlines()
    }
    assert named == {path.name for path in victims}
    assert "another clip takes its place" in done.stderr
    assert len(losses(executable.folder / RUN)) == 10
    assert all(value > 0 for value in losses(executable.folder / RUN))


def test_gradients_that_are_not_finite_stop_a_run(executable: Executable, weights: list[str], clips: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = executable.folder / "broken"
    shutil.copytree(weights[1], broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["final_layer.linear.weight"] = torch.full_like(tensors["final_layer.linear.weight"], float("nan"))
    save_file(tensors, broken / "model.safetensors")
    run = arguments([weights[0], str(broken), *weights[2:]], clips, "--set", "optimizer.max_bad_updates=3")
    done = executable(*run, code=1)
    assert done.stderr.count("left out") == 3
    assert "3 updates in a row had no finite gradient" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_and_the_buckets(executable: Executable, weights: list[str], clips: Path) -> None:
    shown = json.loads(executable(*arguments(weights, clips, "--gpus", "2", "-n", "--json")).stdout)
    assert shown["data"]["rows"] == 20
    assert "--nproc-per-node=2" in shown["launch"]
    assert 0 < shown["memory"]["weights_gib"] <= shown["memory"]["all_gib"] < 0.1
    origins = {row["key"]: row["origin"] for row in shown["settings"]}
    assert (origins["run.steps"], origins["optimizer.eps"]) == ("flag", "default")
    assert not (executable.folder / RUN).exists()
    report = json.loads(
        executable("train", "buckets", "-m", "nano", "--data", str(clips), "--set", BUCKETS, "--json").stdout
    )
    assert sum(row["rows"] for row in report["by_size"].values()) + sum(report["left_out"].values()) >= 20
    assert set(report["by_aspect"]) == {"0.56"}


def test_search_for_batch_sizes(executable: Executable) -> None:
    buckets = "data.bucket_config={144p: {5: [0.5, 1], 1: [1.0, 1], 17: [0.0, null]}}"
    search = ("train", "search-batch-size", "-m", "nano", "--set", buckets, "--device", "cpu", "--updates", "1")
    done = executable(*search, "--most", "3", "--json")
    found = json.loads(done.stdout)["144p"]
    assert found == {"17": [0.0, None], "5": [0.5, 3], "1": [1.0, 3]}
    table = executable(*search, "--bucket", "144p:1", "--seconds", "1e-6").stdout
    assert '"144p":' in table
    assert "1: [0.0, null]" in table, "nothing is as fast as that"
    assert "5: [0.5, 1]" in table, "not asked for"
    refused = executable(*search, "--bucket", "144p:9", code=2)
    assert "there is no bucket '144p:9'" in refused.stderr


def test_mistakes(executable: Executable, weights: list[str], clips: Path) -> None:
    for more, message in (
        (("--set", "optimizer.lr=1"), "unknown setting 'optimizer.lr'"),
        (("--preset", "v1.2-stage9"), "did you mean 'v1.2-stage"),
        (("--freeze", "spatial"), "the network has no part 'spatial'"),
        (("--data", "absent.csv"), "no table at absent.csv"),
        (("--set", "data.bucket_config={144p: {5: [2.0, 2]}}"), "keep 2.0 is not a probability"),
    ):
        done = executable(*arguments(weights, clips, *more), code=2)
        assert message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
