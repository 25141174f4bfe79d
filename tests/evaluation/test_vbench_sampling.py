"""Which clips VBench wants, with which seeds, and making them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sora_cli.errors import UsageError
from sora_cli.evaluation.provenance import clip_record
from sora_cli.evaluation.samples import LONGEST_NAME, read_plan
from sora_cli.evaluation.vbench_plan import (
    FIXED_SEED,
    Choice,
    list_samples,
    suite_counts,
    suite_samples,
    with_pictures,
)
from sora_cli.evaluation.vbench_suite import Suite, load_suite

SUITES = Path(__file__).parents[1] / "goldens" / "eval_plan"
T2V, I2V = SUITES / "vbench_t2v_suite.json", SUITES / "vbench_i2v_suite.json"
SHORT = ("-m", "fake", "--size", "16x16", "--frames", "2", "--steps", "1", "--threads", "1")


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("t2v", T2V)


def test_every_clip_has_a_seed_of_its_own(suite: Suite) -> None:
    seeds = {sample.name: sample.seed for sample in suite_samples(suite, suite.dimensions, Choice())}
    assert len(seeds) == len(set(seeds.values())) == 4720
    assert seeds[suite.entries[3].file_name(2)] == 42 + 3000 + 2


def test_a_part_of_the_suite_has_the_seeds_of_the_whole(suite: Suite) -> None:
    whole = {sample.name: sample for sample in suite_samples(suite, suite.dimensions, Choice())}
    # Entry 748 has the prompt of entry 495.
    for dimensions, choice in ((("aesthetic_quality",), Choice()), (suite.dimensions, Choice((740, 750), samples=2))):
        for sample in suite_samples(suite, dimensions, choice):
            assert sample == whole[sample.name]
    other = suite_samples(suite, suite.dimensions, Choice((0, 1), seed=7))
    assert [sample.seed for sample in other] == [7, 8, 9, 10, 11]


def test_the_seed_of_the_reference(suite: Suite) -> None:
    samples = suite_samples(suite, suite.dimensions, Choice((0, 3), is_fixed=True))
    assert {sample.seed for sample in samples} == {FIXED_SEED}


def test_candidates_for_clips_without_motion(suite: Suite) -> None:
    choice = Choice(candidates=25)
    counts = {row["dimension"]: row["videos"] for row in suite_counts(suite, suite.dimensions, choice)}
    assert counts["temporal_flickering"] == 75 * 25
    assert counts["color"] == 85 * 5
    assert len(suite_samples(suite, suite.dimensions, choice)) == 4720 + 75 * 20


def test_a_choice_without_prompts_is_an_error(suite: Suite) -> None:
    with pytest.raises(UsageError, match="no prompt is left"):
        suite_samples(suite, ("color",), Choice((0, 10)))


def test_prompts_of_a_list() -> None:
    lines = ["a cat", "", 'a dog {"aes": 5}', "a cat", "a cow"]
    samples = list_samples(lines, Choice((None, 4), samples=2))
    assert [(sample.name, sample.prompt, sample.seed) for sample in samples] == [
        ("a cat-0.mp4", "a cat", 42),
        ("a cat-1.mp4", "a cat", 43),
        ("a dog-0.mp4", 'a dog {"aes": 5}', 2042),
        ("a dog-1.mp4", 'a dog {"aes": 5}', 2043),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("day/night", "cannot be the name of a file"),
        ("é" * (LONGEST_NAME // 2), "too long for the name of a file"),
        ('a cat{"aes": 5}', "several samples would be written to a cat-0.mp4"),
    ],
)
def test_prompts_that_cannot_be_names(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list_samples(["a cat", line], Choice())


def test_pictures_that_are_missing_are_named(tmp_path: Path) -> None:
    samples = suite_samples(load_suite("i2v", I2V), ("i2v_subject", "i2v_background"), Choice(samples=2))
    with pytest.raises(UsageError, match=r"^355 pictures are not in .*: a close up of a blue .* and 345 more$"):
        with_pictures(samples, tmp_path)
    with pytest.raises(UsageError, match="semicolon"):
        with_pictures(samples, tmp_path / "a;b")
    name = json.loads(samples[0].prompt.partition("{")[1] + samples[0].prompt.partition("{")[2])["reference_path"]
    (tmp_path / name).write_bytes(b"")
    (found,) = with_pictures(samples[:1], tmp_path)
    assert found.prompt.endswith(json.dumps({"reference_path": str(tmp_path / name), "mask_strategy": "0"}))
    assert (found.name, found.seed) == (samples[0].name, samples[0].seed)


def test_a_plan_is_shown_and_written(sora: Callable[..., object]) -> None:
    command = ("eval", "vbench", "plan", "--suite", str(T2V), "--dimension", "color", "--dimension", "scene")
    done = sora(*command, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == [
        {"dimension": "color", "prompts": 85, "videos": 425},
        {"dimension": "scene", "prompts": 86, "videos": 430},
        {"dimension": "all", "prompts": 171, "videos": 855},
    ]
    written = sora(*command, "-o", "plan.json")
    assert (written.code, written.out) == (0, "plan.json\n")
    samples, about = read_plan(Path("plan.json"))
    assert len(samples) == 855
    assert about["suite"] == "t2v"
    assert about["seeds"] == "42 + 1000 * position + sample"
    before = Path("plan.json").read_bytes()
    again = sora(*command, "--seed", "1", "-o", "plan.json")
    assert again.code == 2
    assert "is there already" in again.err
    assert Path("plan.json").read_bytes() == before
    assert sora(*command, "--seed", "1", "-o", "plan.json", "--overwrite").code == 0
    assert read_plan(Path("plan.json"))[0][0].seed == 1 + 1000 * 408
    part = ("--start-index", "410", "--end-index", "500", "-o", "part.json", "--json")
    assert json.loads(sora(*command, *part).out) == [{"path": "part.json", "clips": (493 - 410) * 5}]


def test_clips_of_a_list_in_two_shards(fake_plugin: None, sora: Callable[..., object]) -> None:
    Path("prompts.txt").write_text("A cat, seen\na dog\n")
    assert sora("eval", "vbench", "plan", "--prompt-file", "prompts.txt", "--samples", "3", "-o", "plan.json").code == 0
    made = []
    for shard in ("1/2", "2/2"):
        done = sora("eval", "vbench", "sample", "plan.json", *SHORT, "--shard", shard, "-o", "clips", "-q")
        assert done.code == 0, done.err
        made.append(done.out.splitlines())
    wanted = [f"clips/{prompt}-{k}.mp4" for prompt in ("A cat, seen", "a dog") for k in range(3)]
    assert sorted(made[0] + made[1]) == wanted
    assert len(made[0]) == len(made[1]) == 3
    # Nothing but clips, whose ending VBench takes from any of them.
    assert sorted(str(path) for path in Path("clips").iterdir()) == wanted
    records = [clip_record(Path(path)) for path in wanted]
    assert [record["seed"] for record in records] == [42, 43, 44, 1042, 1043, 1044]
    assert [record["sent"] for record in records] == [["A cat, seen"]] * 3 + [["a dog"]] * 3
    Path(wanted[4]).unlink()
    again = sora("eval", "vbench", "sample", "plan.json", *SHORT, "--crf", "17", "-o", "clips", "--json")
    assert [clip["status"] for clip in json.loads(again.out)] == ["skipped"] * 4 + ["made", "skipped"]
    other = sora("eval", "vbench", "sample", "plan.json", *SHORT, "-o", "clips", "--crf", "10")
    assert other.code == 2
    assert "already there, made with other settings" in other.err


def test_what_contradicts_a_plan_is_an_error(sora: Callable[..., object]) -> None:
    for group, file, more in (("vbench", T2V, ()), ("vbench-i2v", I2V, ("--images", "."))):
        options = ("--suite", str(file), "--dimension", "dynamic_degree")
        assert sora("eval", group, "plan", *options, "-o", f"{group}.json").code == 0
        done = sora("eval", group, "sample", f"{group}.json", *more, "--seed", "0")
        assert done.code == 2
        assert f"--seed makes a plan, and {group}.json is one" in done.err
    done = sora("eval", "vbench", "sample", "vbench-i2v.json")
    assert done.code == 2
    assert "sora eval vbench-i2v sample" in done.err
    done = sora("eval", "vbench", "plan", "--prompt-file", "x", "--dimension", "color")
    assert done.code == 2
    assert "--dimension is for a suite" in done.err
    done = sora("eval", "vbench", "plan", "--suite", str(T2V), "--dimension", "color", "--static-candidates", "25")
    assert done.code == 2
    assert "--static-candidates is for temporal_flickering" in done.err


def test_clips_start_with_the_pictures_closest_to_their_shape(sora: Callable[..., object]) -> None:
    entry = {"dimension": ["i2v_subject"], "prompt_en": "a red field", "image_name": "a red field.jpg"}
    Path("suite.json").write_text(json.dumps([entry]))
    # Wide clips take the picture from 7-4.
    for crop, colour in (("1-1", "blue"), ("7-4", "red")):
        Path("crops", crop).mkdir(parents=True)
        Image.new("RGB", (192, 108), colour).save(Path("crops", crop, "a red field.jpg"))
    command = ("eval", "vbench-i2v", "sample", "--suite", "suite.json", "--images", "crops", "--samples", "1")
    model = ("-m", "nano", "--size", "96x168", "--frames", "5", "--steps", "1", "--device", "cpu")
    done = sora(*command, *model, "-o", "clips")
    assert done.code == 0, done.err
    assert done.out == "clips/a red field-0.mp4\n"
    red, _, blue = _first_pixel(Path("clips/a red field-0.mp4"))
    assert red > 150
    assert blue < 100


def _first_pixel(path: Path) -> tuple[int, int, int]:
    """The colour in the middle of the first frame."""
    import av

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return tuple(int(value) for value in frame[frame.shape[0] // 2, frame.shape[1] // 2])
