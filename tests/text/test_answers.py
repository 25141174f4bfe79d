"""What language models mean by their answers."""

from __future__ import annotations

import pytest

from sora_cli.text.answers import is_refusal, one_line, read_fields, whole_sentences


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I can’t help with identifying people.",
        "Sorry, I cannot describe this image.",
        "I can't view the video.",
        "I cannot fully describe what is shown.",
        "I am unable to process the frames.",
        "I'm not able to provide that.",
        "Unfortunately, I am not able to see any picture.",
        "As an AI language model, I do not have eyes.",
        "I won't help with this.",
        "I apologize, but I cannot fulfil this.",
    ],
)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "A sign says: I'm sorry, I can't help.",
        "A man who is sorry looks down.",
        "I can't stop, a sign on the wall says, above a dog.",
        "Unfortunate weather at sea: waves that a boat cannot master.",
        "As an airplane lands, people do not look up.",
        "I see two dogs that cannot swim.",
        "",
    ],
)
def test_captions_that_are_no_refusals(text):
    assert not is_refusal(text)


def test_one_line():
    assert one_line('<think>a "cat"?</think>\n “A\n\tcat.” ') == "A cat."
    assert one_line("'It's red.'") == "'It's red.'"


def test_whole_sentences():
    assert whole_sentences("A dog runs. It has 1.5 lives, and") == "A dog runs."
    assert whole_sentences('He says "stop." Then the') == 'He says "stop."'
    assert whole_sentences("A dog that") == ""


def test_fields():
    answer = '```json\n{"b": ["x", "y"], "a": " one\\n two! ", "c": ""}\n```'
    assert read_fields(answer, ("a", "b", "c")) == "one two! x, y."
    for wrong, why in (("[1]", "no JSON object"), ("a", "no JSON"), ('{"a": 3}', "lacks 'a'")):
        with pytest.raises(ValueError, match=why):
            read_fields(wrong, ("a",))
