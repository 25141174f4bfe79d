"""Golden topic `vbench_dims`: the arithmetic of VBench's dimensions, given what networks find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loader import cases, load_tensors

from sora_cli.data.sampling import middle_of_parts
from sora_cli.evaluation.vbench_suite import prompt_of
from sora_plugins.vbench import rules

TOPIC = "vbench_dims"


def flicker(case, tensors):
    score = rules.flicker_score(tensors[case["inputs"]["frames"]])
    assert score == pytest.approx(case["expected"], abs=case["tol"])


def consistency(case, tensors):
    terms = [rules.consistency_terms(tensors[name]) for name in case["inputs"]["features"]]
    expected, near = case["expected"], {"abs": case["tol"]}
    means = [np.mean(each) for each in terms]
    assert means == pytest.approx(expected["per_video"], **near)
    assert np.mean([value for each in terms for value in each]) == pytest.approx(
        expected["aggregate_single_process_frame_weighted"], **near
    )
    assert np.mean(means) == pytest.approx(expected["aggregate_video_mean"], **near)


def picture(case, tensors):
    pairs = zip(case["inputs"]["image"], case["inputs"]["features"], strict=True)
    scores = [rules.picture_score(tensors[image], tensors[features]) for image, features in pairs]
    assert scores == pytest.approx(case["expected"]["per_video"], abs=case["tol"])
    assert np.mean(scores) == pytest.approx(case["expected"]["aggregate"], abs=case["tol"])


def dynamic_degree(case, tensors):
    speeds = [rules.fastest_mean(flow) for flow in tensors[case["inputs"]["flow"]]]
    size = {"height": case["frame_height"], "width": case["frame_width"]}
    expected, count = case["expected"], case["sampled_frame_count"]
    assert speeds == pytest.approx(expected["per_pair_top5pct_mean"], abs=case["tol"])
    assert rules.motion_threshold(**size) == expected["threshold"]
    assert rules.moving_pairs_needed(count) == expected["count_needed"]
    assert rules.is_moving(speeds, num_frames=count, **size) == expected["moving"]


def smoothness(case, tensors):
    score = rules.smoothness_score(tensors[case["inputs"]["original"]], tensors[case["inputs"]["interpolated"]])
    assert score == pytest.approx(case["expected"], abs=case["tol"])


def camera(case, tensors):
    first, last = (tensors[case["inputs"][name]].numpy() for name in ("first", "last"))
    assert rules.camera_motions(first, last, case["min_frame_side"]) == case["expected"]


def table(function):
    def check(case, tensors):
        for row in case["table"]:
            assert function(row) == row["expected"], row

    return check


def positions(case, tensors):
    for row in case["table"]:
        assert rules.position_score(row["relation"], row["box_a"], row["box_b"]) == pytest.approx(row["expected"])


def relations(case, tensors):
    scores = [rules.relation_score(case["key"], seen) for seen in case["predictions"]]
    assert scores == pytest.approx(case["expected"])


def objects(case, tensors):
    assert rules.object_hits(case["key"], case["predictions"]) == case["expected"]


def colours(case, tensors):
    found = rules.colour_count(case["color"], case["object"], case["predictions"])
    expected = case["expected"]
    assert found == (expected["frames_with_object_and_any_colour"], expected["frames_with_right_colour"])
    assert rules.object_word(f"a {case['color']} {case['object']}", case["color"]) == case["object"]


def scenes(case, tensors):
    assert rules.scene_hits(case["key"], case["captions"]) == case["expected"]


def resize(case, tensors):
    for row in case["table"]:
        found = {way: list(rules.quality_crop(row["height"], row["width"], way)) for way in rules.RESIZES}
        assert found == row["expected"]


CHECKS = {
    "temporal_flickering": flicker,
    "feature_consistency": consistency,
    "i2v_image_video_score": picture,
    "dynamic_degree": dynamic_degree,
    "motion_smoothness": smoothness,
    "camera_motion": camera,
    "middle_frame_indices": table(lambda row: middle_of_parts(row["video_len"], row["num_frames"])),
    "prompt_from_filename": table(lambda row: prompt_of(row["path"])),
    "position_score": positions,
    "spatial_relationship_frames": relations,
    "object_class_hits": objects,
    "multiple_objects_hits": objects,
    "color_counts": colours,
    "scene_hits": scenes,
    "human_action_label": table(lambda row: rules.action_of(row["path"])),
    "imaging_quality_resize": resize,
    "dynamic_degree_frame_step": table(lambda row: rules.frame_step(row["fps"])),
    "camera_prompt_type": table(lambda row: rules.camera_motion_of(row["name"])),
}


@pytest.fixture(scope="module")
def tensors():
    return load_tensors(TOPIC, "tensors.safetensors")


@pytest.mark.parametrize("case", cases(TOPIC, "cases"))
def test_rule(case, tensors):
    CHECKS[case["case"].split("/")[0]](case, tensors)


def test_every_motion_of_the_camera_has_words():
    assert len(set(rules.CAMERA_WORDS.values())) == 7
    with pytest.raises(ValueError, match="names no motion"):
        rules.camera_motion_of("a cat-0.mp4")


def test_single_frames_have_no_score():
    with pytest.raises(ValueError, match="single frame"):
        rules.flicker_score(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="single frame"):
        rules.consistency_terms(torch.ones(1, 3))
