"""Golden topic `camera_motion`: labels of tracked points, of dense flow, and of frames."""

from __future__ import annotations

import pytest
from loader import cases, load_tensors, read

from sora_plugins.scorers import camera_motion

TOPIC = "camera_motion"


def form(label: str) -> str:
    """Labels of two words as the other rule and captions spell them."""
    return label.replace(" ", "_")


@pytest.fixture(scope="module")
def tensors():
    return {name: tensor.numpy() for name, tensor in load_tensors(TOPIC, "cases.safetensors").items()}


@pytest.mark.parametrize("case", cases(TOPIC, "cases", "tracked_points.cases"))
def test_tracked_points(case, tensors):
    size = {key: case[key] for key in ("height", "width", "threshold")}
    labels = camera_motion.label_tracks(tensors[f"{case['name']}.start"], tensors[f"{case['name']}.end"], **size)
    assert labels == sorted(case["labels"])


@pytest.mark.parametrize("case", cases(TOPIC, "cases", "dense_flow_fields.cases"))
def test_flow_field(case, tensors):
    tolerance = read(TOPIC, "cases")["dense_flow_fields"]["tolerance"]
    found = camera_motion.flow_statistics(tensors[case["flow"]])
    assert found.magnitude == pytest.approx(case["median_magnitude"], abs=tolerance)
    assert found.outward == pytest.approx(case["zoom_fraction"], abs=tolerance)
    assert camera_motion.label_flow(found) == form(case.get("correct_label", case["reference_label"]))


@pytest.mark.parametrize("case", cases(TOPIC, "cases", "frame_label_table"))
def test_frame_label(case):
    numbers = camera_motion.FlowStatistics(
        *(case[key] for key in ("median_magnitude", "median_angle_deg", "zoom_fraction"))
    )
    assert camera_motion.label_flow(numbers) == form(case["label"])


@pytest.mark.parametrize("case", cases(TOPIC, "cases", "video_label_table"))
def test_video_label(case):
    # The case without pairs has a note that asks for another label than the reference's.
    wanted = form(case["label"]) if case["frame_labels"] else camera_motion.UNKNOWN
    assert camera_motion.label_pairs([form(label) for label in case["frame_labels"]]) == wanted


@pytest.mark.parametrize("case", cases(TOPIC, "cases", "frames.cases"))
def test_frames(case, tensors):
    pytest.importorskip("cv2")
    from sora_plugins.scorers.camera import farneback, label_greys

    greys = list(tensors[case["frames"]])
    tolerance = read(TOPIC, "cases")["frames"]["tolerance"]
    for index, later in enumerate(greys[1:]):
        # The statistics are those of flow from the first frame; labels of a clip compare neighbours.
        found = camera_motion.flow_statistics(farneback(greys[0], later))
        assert found.magnitude == pytest.approx(case["median_magnitude"][index], abs=tolerance)
        assert found.outward == pytest.approx(case["zoom_fraction"][index], abs=tolerance)
        assert camera_motion.label_flow(found) == form(case["frame_labels"][index])
    assert label_greys(greys) == form(case["video_label"])
