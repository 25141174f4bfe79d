"""`sora eval vbench score` with the back end `native`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_tiny import write_tokenizer

from sora_cli.evaluation.vbench_scoring import ScoreRun
from sora_cli.evaluation.vbench_suite import DIMENSIONS
from sora_cli.plugin.protocols import ScoringJob, ScoringSettings
from sora_cli.training.clip_reader import READERS
from sora_cli.video.io import write_video
from sora_plugins.scorers.aesthetic import AestheticHead
from sora_plugins.vbench import measures, native, rules

SUITE = [
    {"prompt_en": "a still fox", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a still cat", "dimension": ["temporal_flickering"]},
    {"prompt_en": "an attic", "dimension": ["scene", "background_consistency"]},
    {
        "prompt_en": "a fox, oil painting",
        "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}},
    },
    {"prompt_en": "a hill", "dimension": ["overall_consistency", "aesthetic_quality", "imaging_quality"]},
]
FLICKER = ("--dimension", "temporal_flickering")


def noise(seed: int, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)


@pytest.fixture
def clips(isolated, tmp_path):
    """A folder of clips of the suite, beside the suite, in the working folder."""
    Path("suite.json").write_text(json.dumps(SUITE))
    folder = Path("clips")
    folder.mkdir()
    for number, entry in enumerate(SUITE):
        for sample in range(2):
            path = folder / f"{entry['prompt_en']}-{sample}.mp4"
            write_video(path, [noise(10 * number + sample, 4 + sample)], 24, {"settings_hash": "x", "seed": sample})
    return folder


def score(sora, *more):
    return sora("eval", "vbench", "score", "clips", "--suite", "suite.json", *more)


def read(name):
    with open(f"clips_scores/{name}.json", encoding="utf-8") as file:
        return json.load(file)


def frames_of(path):
    with READERS["pyav"](path) as video:
        return video.frames(range(video.num_frames))


def test_files_are_as_vbench_writes_them(clips, sora):
    finished = score(sora, *FLICKER)
    assert finished.code == 0, finished.err
    assert finished.out == "clips_scores/temporal_flickering_eval_results.json\n"
    info = read("temporal_flickering_full_info")
    names = [f"clips/a still {animal}-{k}.mp4" for animal in ("fox", "cat") for k in range(2)]
    assert info == [
        {**SUITE[0], "video_list": names[:2]},
        {**SUITE[1], "video_list": names[2:]},
    ]
    value, details = read("temporal_flickering_eval_results")["temporal_flickering"]
    assert [each["video_path"] for each in details] == names
    # From the definition, of the frames as they are decoded.
    for each in details:
        pixels = frames_of(each["video_path"]).double()
        difference = (pixels[1:] - pixels[:-1]).abs().mean(dim=(1, 2, 3)).mean()
        assert each["video_results"] == pytest.approx((255 - float(difference)) / 255, abs=1e-6)
    assert value == pytest.approx(np.mean([each["video_results"] for each in details]))
    assert not list(clips.with_name("clips_scores").glob("*unfinished*"))


def test_what_is_scored_stays_and_changed_clips_are_scored_again(clips, sora):
    score(sora, *FLICKER)
    result = clips.with_name("clips_scores") / "temporal_flickering_eval_results.json"
    before = result.stat().st_mtime_ns, read("temporal_flickering_eval_results")
    again = score(sora, *FLICKER)
    assert "already scored: temporal_flickering" in again.err
    assert (result.stat().st_mtime_ns, read("temporal_flickering_eval_results")) == before
    path = clips / "a still cat-1.mp4"
    write_video(path, [np.zeros((3, 32, 48, 3), np.uint8)], 24)
    later = result.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert score(sora, *FLICKER).code == 0
    assert read("temporal_flickering_eval_results")["temporal_flickering"][1][-1]["video_results"] == 1.0


def test_unreadable_clips_are_left_out_and_named(clips, sora):
    (clips / "a still cat-0.mp4").write_bytes(b"no video")
    finished = score(sora, *FLICKER)
    assert finished.code == 0
    assert "a still cat-0.mp4 is left out" in finished.err
    assert read("temporal_flickering_full_info")[1]["video_list"] == ["clips/a still cat-1.mp4"]
    assert read("temporal_flickering_scored_by")["unreadable"] == ["clips/a still cat-0.mp4"]
    assert "already scored" in score(sora, *FLICKER).err
    for path in clips.glob("a still*"):
        path.write_bytes(b"no video")
    failed = score(sora, *FLICKER, "--overwrite")
    assert failed.code == 1
    assert "no clip of 4 counts for temporal_flickering" in failed.err


def test_results_of_others_are_not_replaced(clips, sora):
    folder = clips.with_name("clips_scores")
    folder.mkdir()
    theirs = folder / "temporal_flickering_eval_results.json"
    theirs.write_text("{}")
    refused = score(sora, *FLICKER)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert theirs.read_text() == "{}"
    assert score(sora, *FLICKER, "--overwrite").code == 0


def test_an_interrupted_dimension_goes_on(clips, sora, monkeypatch):
    whole, seen = rules.flicker_score, []

    def twice(frames):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        return whole(frames)

    monkeypatch.setattr(rules, "flicker_score", twice)
    assert score(sora, *FLICKER).code == 130
    log = clips.with_name("clips_scores") / "temporal_flickering.unfinished.jsonl"
    with log.open("a") as file:
        file.write('{"key": "cut o')
    seen.clear()
    assert score(sora, *FLICKER).code == 0
    assert len(seen) == 2
    resumed = read("temporal_flickering_eval_results")
    monkeypatch.setattr(rules, "flicker_score", whole)
    score(sora, *FLICKER, "--overwrite")
    assert read("temporal_flickering_eval_results") == resumed


def test_what_is_missing_is_named_after_the_rest_is_scored(clips, sora, monkeypatch):
    monkeypatch.chdir(clips.parent.absolute())
    finished = score(sora)
    assert finished.code == 3
    assert "6 of 7 dimensions are not scored" in finished.err
    assert "scene looks with Tag2Text" in finished.err
    assert "--backend vbench" in finished.err
    assert finished.out.endswith("temporal_flickering_eval_results.json\n")


@pytest.fixture
def tiny_weights(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path / "tiny"
    folder.mkdir()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": write_tokenizer(folder), "max_position_embeddings": 12, "eos_token_id": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)).save_pretrained(folder)
    torch.save(AestheticHead().state_dict(), tmp_path / "head.pth")
    parts = {"clip-b32": folder, "clip-l14": folder, "head": tmp_path / "head.pth"}
    return [word for part, place in parts.items() for word in ("--weights", f"{part}={place}")]


def test_dimensions_that_look_with_clip(clips, sora, tiny_weights):
    names = ("background_consistency", "appearance_style", "aesthetic_quality")
    finished = score(sora, *tiny_weights, *(word for name in names for word in ("--dimension", name)))
    assert finished.code == 0, finished.err
    from transformers import CLIPModel

    network = CLIPModel.from_pretrained(tiny_weights[1].partition("=")[2])

    def vectors(path):
        pixels = native.clip_pixels(frames_of(path), 32)
        with torch.inference_mode():
            return network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)

    terms = [rules.consistency_terms(vectors(clips / f"an attic-{k}.mp4")) for k in range(2)]
    value, details = read("background_consistency_eval_results")["background_consistency"]
    assert [each["video_results"] for each in details] == pytest.approx([np.mean(each) for each in terms], abs=1e-5)
    # Weighted by frames: the clips have 3 and 4 terms.
    assert value == pytest.approx(np.mean([*terms[0], *terms[1]]), abs=1e-5)
    for name in names[1:]:
        value, details = read(f"{name}_eval_results")[name]
        assert len(details) == 2
        assert -1 < value < 1
    assert set(read("aesthetic_quality_scored_by")["weights"]) == {"clip-l14", "head"}


def test_frames_for_clip_are_resized_without_antialiasing():
    frames = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    frames[:, :, ::2] = 255  # stripes that antialiasing would make grey
    pixels = native.clip_pixels(frames, 32)
    assert pixels.shape == (1, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (native.MEAN, native.STD))
    values = (pixels * std + mean) * 255
    torch.testing.assert_close(values, values.round(), atol=1e-3, rtol=0)


def test_custom_mode_takes_clips_of_any_name(clips, sora):
    (clips.parent / "prompts.json").write_text(json.dumps({"a hill-1.mp4": "green"}))
    one = sora("eval", "vbench", "score", "clips/a hill-1.mp4", "--mode", "custom", *FLICKER, "-o", "one")
    assert one.code == 0, one.err
    [entry] = json.loads((clips.parent / "one/temporal_flickering_full_info.json").read_text())
    assert entry == {
        "prompt_en": "a hill",
        "dimension": ["temporal_flickering"],
        "video_list": ["clips/a hill-1.mp4"],
    }
    assert "prompts of" not in sora("eval", "vbench", "report", "one").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "custom", "--dimension", "color"), "what they look for is in the suite only"),
        (("--mode", "custom", "--prompts", "absent.json"), "cannot read the prompts"),
        (("--prompt", "a cat"), "for --mode custom"),
        (("--dimension", "colour"), "did you mean 'color'"),
        (("--dimension", "color"), "no prompts of color"),
        (("--backend", "best"), "unknown scoring backend"),
        (("--gpus", "2"), "scores on one device"),
        (("--weights", "dino=x.pth"), "looks with no dino"),
    ],
)
def test_what_does_not_fit_is_refused(clips, sora, arguments, words):
    refused = score(sora, *arguments)
    assert refused.code == 2
    assert words in refused.err
    assert not clips.with_name("clips_scores").exists()


def test_a_folder_without_clips_of_the_suite(clips, sora):
    for path in clips.glob("*.mp4"):
        path.unlink()
    refused = score(sora)
    assert refused.code == 2
    assert 'called like "a still fox-0.mp4"' in refused.err
    assert "no clip of" not in refused.err.replace("no clip of the suite", "")


def test_results_lie_beside_the_clips_however_they_are_named(clips, monkeypatch):
    def folder(videos):
        return ScoreRun(Path(videos), ScoringSettings(suite="t2v")).folder

    beside = Path("clips_scores").absolute()
    assert folder("clips") == folder("clips/") == Path("clips_scores")
    (clips / "below").mkdir()
    monkeypatch.chdir(clips)
    assert folder(".") == folder("below/..") == beside


def test_a_folder_that_cannot_be_written_to_is_named_before_scoring(clips, sora):
    clips.with_name("taken").write_text("")
    refused = score(sora, "-o", str(clips.with_name("taken")))
    assert refused.code == 2
    assert "cannot write to the folder" in refused.err


# -- every dimension, with networks of one's own ---------------------------------------------------------------------


def seen(*values):
    """An extractor that sees the same in all frames of a batch."""
    return lambda frames: [list(values)] * len(frames)


BOXES = [("fox", (0, 0, 10, 10)), ("cat", (30, 0, 40, 10))]
#: Dimension -> extractor, what the suite looks for, what VBench writes for a clip, the aggregate.
CASES = {
    "subject_consistency": (lambda frames: torch.ones(len(frames), 3), {}, 1.0, 1.0),
    "motion_smoothness": (lambda first, second: first, {}, None, None),
    "dynamic_degree": (lambda first, second: torch.full((2, 8, 8), 9.0), {}, True, 1.0),
    "imaging_quality": (lambda pictures: pictures.mean(dim=(1, 2, 3)) * 0 + 60, {}, 60.0, 0.6),
    "object_class": (seen("fox"), {"object": "fox"}, 1.0, 1.0),
    "multiple_objects": (seen("fox"), {"object": "fox and cat"}, 0.0, 0.0),
    "color": (seen(("a red fox", "fox")), {"color": "red"}, 1.0, 1.0),
    "spatial_relationship": (
        seen(*BOXES),
        {"spatial_relationship": {"object_a": "fox", "object_b": "cat", "relationship": "on the left of"}},
        1.0,
        1.0,
    ),
    "scene": (lambda frames: ["a dusty attic"] * len(frames), {"scene": {"scene": "attic"}}, 1.0, 1.0),
    "human_action": (lambda frames: [("running", 0.9)], {}, True, 1.0),
    "temporal_style": (lambda frames, text: 0.25 if text == "a red fox" else 0.0, {}, 0.25, 0.25),
    "overall_consistency": (lambda frames, text: len(frames) / 10, {}, 0.8, 0.8),
}


@pytest.mark.parametrize("dimension", CASES)
def test_measures_with_other_networks(dimension, tmp_path):
    extractor, wanted, result, value = CASES[dimension]
    prompt = "a person is running" if dimension == "human_action" else "a red fox"
    path = tmp_path / f"{prompt}-0.mp4"
    write_video(path, [noise(1, 9)], 8)
    entry = {"prompt_en": prompt, "dimension": [dimension], "video_list": [str(path)]}
    entry["auxiliary_info"] = {dimension: wanted}
    extractors = {dimension: native.Extractor(lambda weights, device: extractor)}
    backend = native.NativeBackend(ScoringSettings("t2v", device="cpu"), extractors, name="mine", version="1")
    assert backend.missing(dimension) is None
    backend.score([ScoringJob(dimension, [entry], tmp_path)])
    found, [detail] = json.loads((tmp_path / f"{dimension}_eval_results.json").read_text())[dimension]
    if dimension == "motion_smoothness":  # from the definition, with the frame before instead of an interpolated one
        pixels = frames_of(path).double()
        difference = (pixels[1::2] - pixels[:-1:2]).abs().mean(dim=(1, 2, 3)).mean()
        result = value = (255 - float(difference)) / 255
    assert detail["video_results"] == pytest.approx(result, abs=1e-6)
    assert found == pytest.approx(value, abs=1e-6)


def test_measures_of_pictures_and_of_the_camera(tmp_path):
    from PIL import Image

    (tmp_path / "1-1").mkdir()
    Image.fromarray(noise(1, 1)[0]).save(tmp_path / "1-1" / "fox.png")
    path = tmp_path / "fox, camera pans left-0.mp4"
    write_video(path, [noise(1, 5)], 8)
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), axis=-1).reshape(100, 2)
    extractors = {
        "i2v_subject": native.Extractor(lambda weights, device: lambda frames: torch.ones(len(frames), 3)),
        "camera_motion": native.Extractor(lambda weights, device: lambda frames: (grid, grid + np.array([5.0, 0.0]))),
    }
    settings = ScoringSettings("i2v", device="cpu", images=tmp_path)
    backend = native.NativeBackend(settings, extractors, name="mine", version="1")
    entry = {"prompt_en": "fox", "dimension": list(extractors), "image_name": "fox.png", "video_list": [str(path)]}
    for dimension in extractors:
        assert backend.missing(dimension) is None
        backend.score([ScoringJob(dimension, [entry], tmp_path, "1-1")])
        found = json.loads((tmp_path / f"{dimension}_eval_results.json").read_text())[dimension]
        assert found[0] == pytest.approx(1.0)
        if dimension == "camera_motion":
            assert found[1] == {"pan_left": 1.0}
            assert found[2][0]["video_path"] == str(path)


def test_clips_without_a_coloured_frame_are_left_out():
    found = [measures.Measured(0.5, 0.5), measures.Measured(0.0, 0.0, 0.0)]
    assert measures.aggregate(found) == 0.5
    assert measures.aggregate(found[1:]) is None


def test_every_dimension_has_a_measure():
    assert set(measures.MEASURES) == {*DIMENSIONS["t2v"], *DIMENSIONS["i2v"]}


def test_pictures_of_quality_are_cut_in_the_middle():
    wide = torch.linspace(0, 1, 1200).expand(1, 3, 600, 1200)
    assert measures.for_quality(wide, "longer").shape[-2:] == (256, 512)
    cut = measures.for_quality(wide, "shorter_centercrop")
    assert cut.shape[-2:] == (512, 512)
    assert float(cut.mean()) == pytest.approx(0.5, abs=1e-3)


def test_the_networks_can_be_pulled(sora):
    rows = json.loads(sora("pull", "native", "--dry-run", "--json").out)
    assert [row["repository"] for row in rows] == ["openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"]
    assert "--weights head=FILE" in sora("pull", "native", "--dry-run").err
