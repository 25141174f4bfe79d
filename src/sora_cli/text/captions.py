"""Small changes to captions of clips: stock openings, camera motion, scores, the tags in a model's answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

_VERBS = ("shows", "captures", "features", "depicts", "presents")
#: Openings that captioning models like, in the order in which they are tried.
OPENINGS = (
    *(f"The video {verb}" for verb in _VERBS),
    "The video is ",
    "In the video,",
    *(f"The image {verb}" for verb in _VERBS),
    "The image is ",
    "The image portrays",
    "In the image,",
)
#: Labels of camera motion and the words for them that Open-Sora 1.2 was trained with.
CAMERA_MOTIONS = {
    name: name.replace("_", " ")
    for name in ("static", "pan_right", "pan_left", "zoom_in", "zoom_out", "tilt_up", "tilt_down")
}
NO_TAGS = "NONE_FOUND"


def strip_opening(text: str) -> str:
    """The caption without its stock opening ("The video shows"), of which one at most is taken off.

    Openings are known as written above and wholly in lower case; the rest starts with a capital.
    """
    for opening in OPENINGS:
        if text.startswith((opening, opening.lower())):
            rest = text[len(opening) :].strip()
            return rest[:1].upper() + rest[1:] if rest[:1].islower() else rest
    return text


def camera_labels(labels: str | None) -> tuple[str, ...]:
    """The parts of a label like "pan_left+zoom in", in the form with underscores."""
    parts = (labels or "").split("+")
    return tuple(re.sub(r"\s+", "_", part.strip().lower()) for part in parts if part.strip())


def camera_words(labels: str | None) -> str | None:
    """What captions say of labels ("pan left, zoom in"); None for none, and where one is not known."""
    parts = camera_labels(labels)
    if not parts or not set(parts) <= set(CAMERA_MOTIONS):
        return None
    return ", ".join(CAMERA_MOTIONS[part] for part in parts)


def append_camera_motion(text: str, labels: str | None) -> str:
    """The caption with its sentence on camera motion; labels that are not known leave it as it is."""
    words = camera_words(labels)
    return text if words is None else f"{text} Camera motion: {words}."


def append_bracketed_scores(text: str, scores: Sequence[tuple[str, float]]) -> str:
    """The caption with scores behind it: "a cat [aesthetic score: 5.4, motion score: 2.0]". scores: (phrase, value)."""
    if not scores:
        return text
    return f"{text} [{', '.join(f'{phrase}: {value:.1f}' for phrase, value in scores)}]"


def parse_tags(answer: str) -> str:
    """What stands in the first pair of square brackets of a model's answer, NONE_FOUND where there is nothing."""
    start, end = answer.find("["), answer.find("]")
    tags = answer[start + 1 : end] if 0 <= start < end else ""
    return tags if tags.strip() and "\n" not in tags else NO_TAGS
