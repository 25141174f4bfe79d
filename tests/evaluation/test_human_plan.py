"""Plans of clips that people judge: the batches of Open-Sora by their names, plans of one's own, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sora_cli.errors import UsageError
from sora_cli.evaluation.human_plan import choose_tasks, find_inputs, folder_name, make_parts, read_human_plan

LINES = {
    "t2v_samples": 10,
    "t2v_short": 20,
    "t2v_sora": 48,
    "t2v_ref": 6,
    "t2i": 10,
    "fantasy_city": 1,
    "drone_cliff": 1,
}
REFERENCES = ("cliff.png", "wave.jpg", "ship.png", "cactus_first.png", "cactus_last.png", "web_video.mp4")
#: Height and width of the aspect ratios that single prompts are made in.
ASPECTS = ("1_1", "9_16", "16_9", "4_3", "3_4", "1_2", "2_1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in LINES.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} number {number}\n" for number in range(count)))
    for name in REFERENCES:
        (tmp_path / name).touch()
    return tmp_path


def parts_of(plan: str, *tasks: str, inputs=(), **options):
    found = read_human_plan(plan)
    chosen = choose_tasks(found, tasks)
    return make_parts(found, chosen, find_inputs([str(each) for each in inputs], found, chosen), **options)


def names(parts):
    return {part.name: len(part.samples) for part in parts}


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


# -- the batches of Open-Sora ----------------------------------------------------------------------------------------

TASKS = {
    "image": {
        **{"image_1024_1_1": 10, "image_240p_9_16": 3},
        **{f"image_{each}_512_1_1": 3 for each in ("t2i", "t2v", "short", "sora")},
        **{f"image_720p_{aspect}": 1 for aspect in ASPECTS},
    },
    "2a": {"sample_4s_720p": 10, "sample_8s_480p": 10, "sample_16s_360p": 10},
    "2c": {"short_4s_720p": 20, "sora_16s_360p": 48},
    "2d": {"sora_8s_480p": 16},
    "2e": {"sora_8s_480p": 32},
    "2f": {"sora_4s_720p": 48},
    "2g": {
        **{f"drone_cliff_prompt_720p_2s_{aspect}": 1 for aspect in ASPECTS},
        **{"motion_2s_720p": 9, "aes_2s_720p": 7},
    },
    "2h": {"ref_L5C5_2s_360p_9_16": 3, "ref_L5C10_16s_360p_9_16": 3, "ref_L1_16s_360p_9_16": 3},
}
TASKS["2b"] = {**TASKS["image"], "short_8s_480p": 20, "short_16s_360p": 20}


@pytest.mark.parametrize("task", TASKS)
def test_the_batches_of_open_sora(task: str, folder: Path) -> None:
    parts = parts_of("opensora", task, inputs=[folder])
    assert names(parts) == TASKS[task]
    for part in parts:
        start = {"2e": 16}.get(task, 3 if part.name.startswith("ref_L1_") else 0)
        suffix = "png" if part.name.startswith("image") else "mp4"
        assert [sample.name for sample in part.samples] == [
            f"{part.name}_{start + number:04d}.{suffix}" for number in range(len(part.samples))
        ]
        shape = part.samples[0].settings["shape"]
        assert (shape.get("frames") == 1) == (suffix == "png")
        duration, aspect = part.name.split("_"), "_".join(reversed(shape["aspect_ratio"].split(":")))
        assert shape.get("duration") in (None, *duration)
        assert shape["resolution"] in duration
        assert aspect == ("_".join(duration[-2:]) if duration[-1].isdigit() else "9_16")


def test_every_clip_of_all_tasks_once(folder: Path) -> None:
    samples = [sample.name for part in parts_of("opensora", inputs=[folder]) for sample in part.samples]
    assert len(samples) == len(set(samples)) == sum(sum(TASKS[task].values()) for task in TASKS if task != "image")


def test_later_lines_keep_their_numbers(folder: Path) -> None:
    (part,) = parts_of("opensora", "2e", inputs=[folder])
    assert (part.samples[0].name, part.samples[0].prompt) == ("sora_8s_480p_0016.mp4", "t2v_sora number 16")


def test_scores_and_references_are_in_the_prompts(folder: Path) -> None:
    motion = parts_of("opensora", "2g", inputs=[folder])[-2].samples
    tails = [sample.prompt.partition("{")[1:] for sample in motion]
    assert [json.loads("".join(tail)) if tail[0] else None for tail in tails] == [
        None,
        *({"motion": value} for value in (0, 2, 4, 6, 10, 25, 50, 100)),
    ]
    first, _, last = parts_of("opensora", "2h", inputs=[folder])
    assert first.samples[0].settings["shape"]["segments"] == 5
    assert first.samples[0].settings["conditioning"] == {"overlap": 17}
    assert first.samples[1].prompt == f't2v_ref number 1{{"reference_path": "{folder}/wave.jpg", "mask_strategy": "0"}}'
    between = json.loads(last.samples[1].prompt.removeprefix("t2v_ref number 4"))
    assert between["reference_path"] == f"{folder}/cactus_first.png;{folder}/cactus_last.png"
    assert between["mask_strategy"] == "0;0,1,0,-1,1"


@pytest.mark.parametrize(("base", "resolutions"), [("144p", "360p 240p 144p"), ("720p", "1080p 1080p 720p")])
def test_another_base(base: str, resolutions: str, folder: Path) -> None:
    parts = parts_of("opensora", "2a", inputs=[folder], base=base, seed=7)
    assert [part.samples[0].settings["shape"]["resolution"] for part in parts] == resolutions.split()
    assert {sample.seed for part in parts for sample in part.samples} == {7}


# -- inputs ----------------------------------------------------------------------------------------------------------


def test_only_the_inputs_of_the_tasks_are_needed(folder: Path) -> None:
    (folder / "other.txt").write_text("one\ntwo\n")
    parts = parts_of("opensora", "2a", inputs=[f"t2v_samples={folder / 'other.txt'}"])
    assert [sample.prompt for sample in parts[0].samples] == ["one", "two"]


def test_missing_inputs_are_named() -> None:
    with pytest.raises(UsageError, match=r"needs t2v_ref \(prompts\), cliff \(reference\)") as caught:
        parts_of("opensora", "2h")
    assert "--input t2v_ref=FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "words"),
    [("t2v_smaples=a.txt", "unknown input 't2v_smaples'"), ("t2v_samples=a.txt", "no such file: a.txt")],
)
def test_wrong_inputs(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parts_of("opensora", "2a", inputs=[given])


def test_addresses_are_references_and_not_looked_for(folder: Path) -> None:
    given = [folder, "web_video=https://example.org/a.mp4"]
    prompt = parts_of("opensora", "2h", inputs=given)[-1].samples[-1].prompt
    assert json.loads(prompt.removeprefix("t2v_ref number 5"))["reference_path"] == "https://example.org/a.mp4"


# -- plans of one's own ----------------------------------------------------------------------------------------------


def test_the_plan_that_comes_with_the_package_needs_nothing() -> None:
    assert names(parts_of("basic")) == {"video": 8, "image": 4}


def test_settings_of_a_batch_win_over_those_of_the_plan(tmp_path: Path) -> None:
    plan = """
shape: {resolution: 240p, duration: 4s}
sampling: {steps: 5}
tasks:
  a:
    - name: x_{resolution}_{duration}
      prompts: ['a fox{"camera": "pan left", "aes": 5}']
      vary: {aes: [6.5], motion: [null, 3]}
      shape: {duration: 2s}
  b: [a, {name: y, prompts: [a hen], shape: {resolution: 512}}]
"""
    first, second = parts_of(written(tmp_path, plan), "b")
    assert [sample.name for sample in first.samples] == ["x_240p_2s_0000.mp4", "x_240p_2s_0001.mp4"]
    assert first.samples[0].settings == {"shape": {"resolution": "240p", "duration": "2s"}, "sampling": {"steps": 5}}
    assert first.samples[1].prompt == 'a fox{"camera": "pan left", "aes": 6.5, "motion": 3.0}'
    assert second.samples[0].settings["shape"] == {"resolution": "512", "duration": "4s"}


BATCH = "tasks: {a: [{name: x, prompts: [p], %s}]}"


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", "a plan needs tasks", "basic"),
        ("tasks: {a: x}", "the task 'a' is no list", ""),
        ("base: 361p\ntasks: {a: [{name: x, prompts: [p]}]}", "mine.yaml:1: base: '361p' is none of", ""),
        ("sed: 1\ntasks: {a: [{name: x, prompts: [p]}]}", "mine.yaml:1: unknown key 'sed'", "seed"),
        ("seed: -1\ntasks: {a: [{name: x, prompts: [p]}]}", "seed: -1 is no whole number", ""),
        ("inputs: {a: text}\ntasks: {a: [{name: x, prompts: [p]}]}", "mine.yaml:1: inputs", ""),
        ("tasks:\n  a:\n  - name: x\n    prompts: [p]\n    promts: q", "mine.yaml:5: unknown key 'promts'", "prompts"),
        ("tasks:\n  a:\n  - name: x", "mine.yaml:2: prompts", ""),
        ("tasks: {a: [b]}", "'b' is none of the tasks above", ""),
        ("tasks: {a: [a]}", "'a' is none of the tasks above", ""),
        ("tasks: {a: [7]}", "7 is neither a batch", ""),
        (BATCH % "range: [0]", "range", ""),
        (BATCH % "vary: {speed: [1]}", "vary", ""),
        (BATCH % "shape: {lenght: 2s}", "unknown setting 'shape.lenght'", ""),
        (BATCH % "shape: {resolution: 145p}", "unknown resolution '145p'", "144p"),
        (BATCH % "sampling: {steps: 0}", "sampling.steps 0", ""),
        ("tasks: {a: [{name: 'x{size}', prompts: [p]}]}", "name: only {resolution}", ""),
        ("tasks: {a: [{name: x, prompts: lists}]}", "prompts: 'lists' is no such input", "lists: prompts"),
        (BATCH % "references: [cat]", "references: 'cat' is no such input", "cat: reference"),
        (BATCH % "shape: {resolution: B1}", "the plan has no base", "--base"),
        (BATCH % "range: [1, 2]", "no prompt from number 1 on", ""),
        (BATCH % "mask_strategy: ['0', '1']", "2 of mask_strategy for 1 prompts", ""),
        (BATCH.replace("[p]", "[p, '']") % "range: [0, 2]", "an empty prompt", ""),
        ("tasks: {a: [{name: x, prompts: [p]}, {name: x, prompts: [q]}]}", "another batch has x_0000.mp4 too", ""),
    ],
)
def test_wrong_plans_say_what_and_where(text: str, words: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parts_of(written(tmp_path, text))
    assert words in caught.value.message
    assert hint in (caught.value.hint or "")


def test_unknown_tasks() -> None:
    with pytest.raises(UsageError, match="unknown task '2i'"):
        parts_of("opensora", "2i")


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        (None, "samples_nano"),
        ("outputs/train-nano", "samples_nano_train-nano"),
        ("runs/first/epoch1-step20", "samples_nano_epoch1-step20"),
        ("runs/first/ema.pt", "samples_nano_first_ema"),
    ],
)
def test_the_name_of_the_folder(weights: str | None, name: str) -> None:
    assert folder_name("nano", weights) == name
