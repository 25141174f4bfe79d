"""Golden topic `scene_timestamps`: which segments a row becomes, and where real clips are cut."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
from loader import cases

from sora_cli.data.timestamps import SceneRules, clip_name, format_scenes, parse_scenes, scaled_size, segments

FOLDER = "out"


@pytest.mark.parametrize("case", cases("scene_timestamps", "cases"))
def test_segments(case):
    row, options = case["row"], case["options"]
    scenes = parse_scenes(row["timestamp"]) if "timestamp" in row else None
    is_valid = "timestamp" not in row or scenes is not None
    assert is_valid == case["valid"]
    if not is_valid or options.get("drop_invalid_timestamps"):
        assert case["segments"] == []
        return
    rules = SceneRules(options.get("min_seconds"), options.get("max_seconds"))
    made = [(f"{FOLDER}/{clip_name(row, each)}", each) for each in segments(scenes, rules)]
    made = [(name, each) for name, each in made if name not in options.get("existing", ())]
    assert [(each.index, name) for name, each in made] == [(each["index"], each["file"]) for each in case["segments"]]
    for (_, ours), theirs in zip(made, case["segments"], strict=True):
        if "start_exact" in theirs:
            assert float(ours.start) == pytest.approx(theirs["start_exact"], abs=1e-9)
            assert float(ours.end - ours.start) == pytest.approx(theirs["duration_exact"], abs=1e-9)
        else:
            assert (ours.start, ours.end) == (0, None)
        assert theirs["target_fps"] == options.get("target_fps")
        if "height" in row:
            scaled = scaled_size(row["height"], row["width"], options.get("shorter_size"))
            assert (scaled != (row["height"], row["width"])) == (theirs["rescale_shorter_side"] is not None)


@pytest.mark.parametrize("case", cases("scene_timestamps", "detect"), ids=lambda case: Path(case["file"]).stem)
@pytest.mark.parametrize("name", ["adaptive", "fast"])
def test_real_clips(case, name):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    found = find_spec(case["file"].partition("/")[0])
    if found is None or found.origin is None:
        pytest.skip(f"{case['package']} is not installed")
    path = Path(found.origin).parents[1] / case["file"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != case["sha256"]:
        pytest.skip(f"{path} is another version")
    from sora_cli.data.cutting import find_scenes, load_cutter

    scenes = find_scenes(load_cutter(name, {}, "cpu"), str(path))
    expected = parse_scenes(str([tuple(pair) for pair in case["scenes"]]))
    assert len(scenes) == len(expected)
    for ours, theirs in zip(scenes, expected, strict=True):
        assert float(ours[0]) == pytest.approx(float(theirs[0]), abs=1 / case["fps"])
        assert float(ours[1]) == pytest.approx(float(theirs[1]), abs=1 / case["fps"])
    flat = [float(second) for scene in scenes for second in scene]
    again = [float(second) for scene in parse_scenes(format_scenes(scenes)) for second in scene]
    assert again == pytest.approx(flat, abs=5e-4)
