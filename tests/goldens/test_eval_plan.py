"""Golden topic `eval_plan`: the prompt suites, the names of the clips, and how the work is divided."""

from __future__ import annotations

import json

import pytest
from loader import goldens_dir, read

from sora_cli.evaluation import vbench_plan, vbench_suite
from sora_cli.evaluation.vbench_scores import RANGES
from sora_plugins.vbench.package import EIGHT, EIGHT_I2V

TOPIC = "eval_plan"
SUITES = ("t2v", "i2v")


def suite_and_case(name: str):
    case = read(TOPIC, "plan")[f"vbench_{name}"]
    return vbench_suite.load_suite(name, goldens_dir() / TOPIC / f"vbench_{name}_suite.json"), case


@pytest.mark.parametrize("name", SUITES)
def test_prompts(name):
    suite, case = suite_and_case(name)
    assert len(suite.entries) == case["entries"]
    assert len(suite.unique) == case["unique_prompts"]
    assert case["samples_per_prompt"] == vbench_suite.SAMPLES
    assert len(suite.file_names()) == case["expected_unique_files"]
    counts = {dimension: len(suite.of(dimension)) for dimension in suite.dimensions}
    assert counts == case["prompts_per_dimension"]
    assert counts == {dimension: row.prompts for dimension, row in RANGES[name].items()}
    prompts = [entry.prompt for entry in suite.entries]
    assert sorted({prompt for prompt in prompts if prompts.count(prompt) > 1}) == case.get("duplicates", [])


@pytest.mark.parametrize("name", SUITES)
def test_file_names(name):
    suite, case = suite_and_case(name)
    for position, names in case["filenames"].items():
        entry = suite.entries[int(position)]
        assert [entry.file_name(sample) for sample in range(vbench_suite.SAMPLES)] == names


def test_videos_needed():
    suite, case = suite_and_case("t2v")
    needed = {dimension: len(suite.file_names(dimension)) for dimension in suite.dimensions}
    assert needed == case["videos_needed_per_dimension"]


def test_shards():
    suite, case = suite_and_case("t2v")
    made = {}
    for shard in case["shards"]:
        choice = vbench_plan.Choice((shard["start"], shard["end"]))
        entries = suite.entries[slice(*choice.positions)]
        assert len(entries) == shard["count"]
        samples = vbench_plan.suite_samples(suite, suite.dimensions, choice)
        assert {sample.prompt for sample in samples} == {entry.prompt for entry in entries}
        for sample in samples:
            assert made.setdefault(sample.name, sample) == sample, "what two shards make is the same clip"
    assert sorted(made) == sorted(suite.file_names())


def test_references():
    suite, case = suite_and_case("i2v")
    samples = {
        sample.name: sample for sample in vbench_plan.suite_samples(suite, suite.dimensions, vbench_plan.Choice())
    }
    assert len(samples) == case["expected_unique_files"]
    for position, picture in case["reference_image"].items():
        entry = suite.entries[int(position)]
        settings = json.dumps({"reference_path": picture, "mask_strategy": case["mask_strategy"]})
        assert samples[entry.file_name(0)].prompt == f"{entry.prompt}{settings}"


def test_pictures():
    suite, case = suite_and_case("i2v")
    assert len({entry.image_name for entry in suite.entries}) == case["images"]
    for position, name in case["reference_image"].items():
        assert suite.entries[int(position)].image_name == name
    assert vbench_suite.closest_crop(256, 256) == case["image_ratio"]


def test_dimensions_on_eight_gpus():
    for name, split in (("t2v", EIGHT), ("i2v", EIGHT_I2V)):
        assert [list(shard) for shard in split] == suite_and_case(name)[1]["calc_shards"]


def test_order_of_dimensions():
    assert list(vbench_suite.DIMENSIONS["t2v"]) == suite_and_case("t2v")[1]["calc_order"]
    i2v = suite_and_case("i2v")[1]
    assert list(vbench_suite.DIMENSIONS["i2v"]) == [*i2v["calc_i2v"], *i2v["calc_quality"]]
    assert list(vbench_suite.I2V_ONLY) == i2v["calc_i2v"]
