"""Score text, against the examples of the released sampler's rules (generation.md section 7)."""

import pytest

from sora_cli.text.scores import Scores, append_scores, motion_sentence


@pytest.mark.parametrize(
    ("text", "scores", "expected"),
    [
        (
            "A fox.",
            Scores(6.5, 5, "pan right"),
            "A fox. aesthetic score: 6.5. motion score: 5.0. camera motion: pan right.",
        ),
        ("A fox.", Scores(), "A fox."),
        ("A fox.", Scores(motion=0), "A fox. motion score: 0.0."),
        ("no stop", Scores(aes=6.5), "no stop aesthetic score: 6.5."),
        ("", Scores(aes=6.5), " aesthetic score: 6.5."),
        # One decimal, half to even on the binary value.
        ("x", Scores(aes=6.45), "x aesthetic score: 6.5."),
        ("x", Scores(aes=6.55), "x aesthetic score: 6.5."),
        ("x", Scores(aes=0.25), "x aesthetic score: 0.2."),
        # Named by hand: left alone, case-sensitively, whatever stands after it.
        ("a dog. motion score: 10.0", Scores(6.5, 3), "a dog. motion score: 10.0 aesthetic score: 6.5."),
        ("a dog. Motion Score: 10.0", Scores(motion=3), "a dog. Motion Score: 10.0 motion score: 3.0."),
        ("a dog. camera motion: up.", Scores(5.0, None, "zoom out"), "a dog. camera motion: up. aesthetic score: 5.0."),
    ],
)
def test_append_scores(text: str, scores: Scores, expected: str) -> None:
    assert append_scores(text, scores) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a fox. aesthetic score: 6.5. motion score: 5.0. camera motion: pan right.", "motion score: 5.0."),
        ("a fox. Motion score: 7", "Motion score: 7."),
        ("a fox. motion score: high", ""),
        ("", ""),
    ],
)
def test_motion_sentence(text: str, sentence: str) -> None:
    assert motion_sentence(text) == sentence
