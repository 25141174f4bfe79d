"""A benchmark on two processes, of which one is killed: the next run makes the rest, which is scored and reported."""

from __future__ import annotations

import json
import os
import signal
import time

from executable import Executable, files_in, workers_in

PROMPTS = ("a waterfall", "a red fox", "clouds in a blue sky", "a campfire")
SMALL = ("-m", "nano", "--size", "96x96", "--frames", "5", "--steps", "2", "--device", "cpu", "--gpus", "2")


def test_from_a_list_of_prompts_to_a_report(executable: Executable) -> None:
    folder = executable.folder
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    executable("eval", "vbench", "plan", "--prompt-file", "prompts.txt", "--samples", "2", "-o", "plan.json")
    run = ("eval", "vbench", "sample", "plan.json", *SMALL, "-o", "clips")
    wanted = sorted(f"{prompt}-{number}.mp4" for prompt in PROMPTS for number in range(2))

    process = executable.start(*run)
    deadline = time.monotonic() + 60
    while not (made := [name for name in wanted if (folder / "clips" / name).exists()]):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no clip was made"
        time.sleep(0.01)
    workers = [number for number, line in workers_in(folder).items() if "torch.distributed.run" not in line]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    # Not what the other process says, which may lose its connection before the launcher notices.
    assert "of the run was killed (SIGKILL)" in errors, errors
    assert not workers_in(folder)

    made = [name for name in wanted if (folder / "clips" / name).exists()]
    assert 1 <= len(made) < len(wanted)
    before = {name: (folder / "clips" / name).stat().st_mtime_ns for name in made}
    done = executable(*run, "--json")
    states = {record["path"]: record["status"] for record in json.loads(done.stdout)}
    assert [name for name in wanted if states[f"clips/{name}"] == "skipped"] == made
    assert [name for name in files_in(folder / "clips") if name.endswith(".mp4")] == wanted
    assert {name: (folder / "clips" / name).stat().st_mtime_ns for name in made} == before

    executable("eval", "vbench", "score", "clips", "--mode", "custom", "--dimension", "temporal_flickering")
    report = json.loads(executable("eval", "vbench", "report", "clips_scores", "--json").stdout)
    (scored,) = report["dimensions"]
    assert (scored["videos"], scored["prompts"], scored["samples_per_prompt"]) == (8, 4, {"2": 4})
    assert 0.5 < scored["raw"] < 1
    assert report["scores"]["reference"]["total"] is None
    assert len(report["missing_dimensions"]) == 15
    assert report["clips"]["shared"]["model"] == "nano"
    assert len({clip["seed"] for clip in report["clips"]["clips"].values()}) == 8
