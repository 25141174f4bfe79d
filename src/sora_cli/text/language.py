"""Which language a caption is in."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from sora_cli.errors import MissingError, unknown_name

#: A language this probable is taken for possible. Low on purpose: captions are short and full of names.
LEAST_PROBABILITY = 0.02
#: Of fewer words nothing can be said.
LEAST_WORDS = 4
# Words; in scripts without blanks between words, letters.
_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+")


def is_in_language(text: str | None, languages: Collection[str]) -> bool:
    """Whether a caption may be in one of the languages (ISO 639-1 codes). Missing and very short ones always may."""
    if text is None or len(_WORD.findall(text)) < LEAST_WORDS:
        return True
    ranks: list[tuple[str, float]] = _identifier().rank(text)
    return ranks[0][0] in languages or any(name in languages and p >= LEAST_PROBABILITY for name, p in ranks)


def check_languages(languages: Collection[str]) -> None:
    """Raise UnknownNameError for a code that is not known, MissingError without the package."""
    for language in languages:
        if language not in _identifier().labels:
            raise unknown_name("language", language, _identifier().labels)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingError("telling languages apart needs py3langid", hint="pip install 'sora-cli[data]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
