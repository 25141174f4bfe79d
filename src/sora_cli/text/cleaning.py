"""Cleaning of captions as the Open-Sora samplers do it before a T5 encoder reads them.

The steps, their order and their oddities are those the released models were sampled with (66a42cd; numbers in comments
are those of the list in text_encoders.md section 5): a missing space after a full stop can cost two words, "f/1.8"
loses its slash, "h264" disappears. Do not improve them here.
"""

from __future__ import annotations

import html
import re
import warnings
from functools import lru_cache
from urllib.parse import unquote_plus

_SUFFIXES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_DOMAINS = "com|co|ru|net|org|edu|gov|it"
_DASHES = (
    r"\u002D\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40"
    r"\u301C\u3030\u30A0\uFE31\uFE32\uFE58\uFE63\uFF0D"
)


def _url(scheme: str) -> str:
    return rf"\b(?:{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:{_DOMAINS})[\w/-]*\b/?(?!@))"


#: (pattern, replacement), steps 3 to 5.
_BEFORE_HTML = (
    ("<person>", "person"),
    (_url("https?"), ""),
    (_url("www"), ""),
)
#: Steps 7 to 21.
_AFTER_HTML = (
    (r"@\w+\b", ""),
    (r"[\u31C0-\u9FFF]+", ""),
    (rf"[{_DASHES}]+", "-"),
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{_SUFFIXES})", ""),
    ("[\"']{2,}", '"'),
    (r"[.]{2,}", " "),
    ("[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~)(\\]\\[}{|\\\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
#: Steps 24 to 33.
_WORDS = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_SUFFIXES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    ("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
#: Steps 34 to 37.
_ENDS = (
    (r"^[\"'](.+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


@lru_cache(maxsize=1)
def _steps() -> tuple[list[tuple[re.Pattern[str], str]], ...]:
    return tuple(
        [(re.compile(pattern), replacement) for pattern, replacement in part]
        for part in (_BEFORE_HTML, _AFTER_HTML, _WORDS, _ENDS)
    )


def clean_caption(caption: object, *, passes: int = 2) -> str:
    """The caption as the samplers give it to the text encoder; the result may be empty.

    caption: any value; numbers and None become their text. passes: the released samplers clean twice, which differs
    from once for some captions.
    """
    text = str(caption)
    for _ in range(passes):
        text = _clean(text)
    return text


def fold_caption(caption: object) -> str:
    """The caption with cleaning switched off: lower case, no blanks at the ends."""
    return str(caption).lower().strip()


def _clean(text: str) -> str:
    import ftfy

    before, after, words, ends = _steps()
    text = unquote_plus(text).strip().lower()
    text = _apply(before, text)
    text = _apply(after, _without_html(text))
    if len(re.findall("[-_]", text)) > 3:
        text = re.sub("[-_]", " ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _apply(ends, _apply(words, text)).strip()


def _without_html(text: str) -> str:
    """The text between tags; text that the parser refuses, such as an unfinished "<![", stays as it is."""
    from bs4 import BeautifulSoup
    from bs4.builder import ParserRejectedMarkup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about captions that look like a file name or an address
        try:
            parsed: str = BeautifulSoup(text, features="html.parser").text
        except ParserRejectedMarkup:
            return text
    return parsed


def _apply(steps: list[tuple[re.Pattern[str], str]], text: str) -> str:
    for pattern, replacement in steps:
        text = pattern.sub(replacement, text)
    return text
