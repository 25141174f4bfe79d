"""Cleaning of captions beside what the golden topic `t5_clean` covers."""

import pytest

from sora_cli.text.cleaning import clean_caption


@pytest.mark.parametrize("text", ["a cat <![ in", "a cat <![x", "in <![ a cat"])
def test_markup_that_no_parser_accepts_stays_text(text: str) -> None:
    assert "cat" in clean_caption(text)
