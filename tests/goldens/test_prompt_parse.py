"""Golden topic `prompt_parse`: settings behind a prompt, segments, prompt files, and the text of each part."""

from __future__ import annotations

from pathlib import Path

import pytest
from loader import cases

from sora_cli.errors import UsageError
from sora_cli.tasks.output import name_outputs
from sora_cli.text.cleaning import clean_caption
from sora_cli.text.prompts import parse_prompt, part_texts, read_prompts, split_segments
from sora_cli.text.scores import Scores, append_scores

TOPIC = "prompt_parse"


@pytest.mark.parametrize("case", cases(TOPIC, "json_suffix"))
def test_json_suffix(case):
    if "error" in case:
        with pytest.raises(UsageError):
            parse_prompt(case["prompt"])
        return
    found = parse_prompt(case["prompt"])
    assert found.text == case["text"]
    assert found.settings.get("reference_path", case["given_reference"]) == case["reference"]
    assert found.settings.get("mask_strategy", case["given_strategy"]) == case["strategy"]


@pytest.mark.parametrize("case", cases(TOPIC, "segments"))
def test_segments(case):
    if "error" in case:
        with pytest.raises(UsageError):
            split_segments(case["prompt"])
        return
    found = split_segments(case["prompt"])
    assert [each.text for each in found] == case["segments"]
    assert [each.start for each in found] == (case["start_loops"] or [0])
    assert part_texts(case["prompt"], len(case["by_loop"])) == case["by_loop"]


@pytest.mark.parametrize("case", cases(TOPIC, "prompt_file"))
def test_prompt_file(case):
    Path("prompts.txt").write_text(case["file_content"])
    if not case["prompts"]:  # nothing to make is said
        with pytest.raises(UsageError, match="no prompt"):
            read_prompts((), "prompts.txt", case["start"] or 0, case["end"])
        return
    assert read_prompts((), "prompts.txt", case["start"] or 0, case["end"]) == case["prompts"]


@pytest.mark.parametrize("case", cases(TOPIC, "save_paths"))
def test_save_paths(case):
    prompts = [(case["prompt"], k) for k in range(case["num_sample"])]
    assert str(name_outputs(prompts, Path("out"), is_image=False)[case["k"]].with_suffix("")) == case["path"]


@pytest.mark.parametrize("case", cases(TOPIC, "full_chain"))
def test_the_text_of_each_part(case):
    options = case["options"]
    scores = Scores(options.get("aes"), options.get("flow"), options.get("camera_motion"))
    texts = part_texts(case["prompt"], len(case["by_loop"]))
    assert [clean_caption(append_scores(text, scores)) for text in texts] == case["by_loop"]
