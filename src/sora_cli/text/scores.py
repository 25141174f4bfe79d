"""Score text: what the Open-Sora samplers append to a prompt to steer looks, motion and camera."""

from __future__ import annotations

import re
from typing import NamedTuple


class Scores(NamedTuple):
    """Scores asked for a clip; None leaves one out. aes: 4 to 7; motion: 0 to 100; camera: e.g. "pan left"."""

    aes: float | None = None
    motion: float | None = None
    camera: str | None = None


def append_scores(text: str, scores: Scores) -> str:
    """The prompt with its score sentences, in the order and wording the models were sampled with.

    A score that the text already names (exact lower-case phrase) is left to the text, so users can write it by hand.
    Numbers have one decimal, rounded half to even on the binary value. Source: Open-Sora 1.2 sampler (66a42cd).
    """
    sentences = (
        ("aesthetic score:", None if scores.aes is None else f"{scores.aes:.1f}"),
        ("motion score:", None if scores.motion is None else f"{scores.motion:.1f}"),
        ("camera motion:", scores.camera),
    )
    # The phrases are looked up in the text as the user wrote it, before anything is appended.
    added = [f" {phrase} {value}." for phrase, value in sentences if value is not None and phrase not in text]
    return text + "".join(added)


def motion_sentence(text: str) -> str:
    """The sentence of a prompt that gives its motion score; empty without one."""
    found = re.search(r"motion score: \d+(?:\.\d+)?", text, re.IGNORECASE)
    return f"{found[0]}." if found else ""
