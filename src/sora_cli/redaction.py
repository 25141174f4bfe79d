"""Texts without the secrets in them, for messages and for what is stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/?#\s]*@")
_SECRET = re.compile(r"(?i)([?&][\w.%-]*(?:token|key|secret|sig|auth|pass|cred|session)[\w.%-]*=)[^&#;\s'\"]+")
#: Environment variables that hold a secret, as OPENAI_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY, DB_PASSWORD.
_VARIABLE = re.compile(r"(?i)(?:^|_)(?:(?:api)?key|token|secret|passwd|password|passphrase|credentials?)$")
#: Letters of a value that is a secret: shorter ones are placeholders ("none", "ollama") or words.
_SHORTEST = 8
_UNSEEN = "..."


def redact(text: str) -> str:
    """`without_secrets`, for people: of a text with an address, what is not printable (a server may send it) becomes
    "?"; line breaks and tabs stay."""
    shown = without_secrets(text)
    if "://" not in text:
        return shown
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in shown)


def without_secrets(text: str) -> str:
    """Text without the values of environment variables that are named as secrets, in which addresses have no user and
    password, and no value of a query parameter that is named as a secret."""
    return _without(_secrets(), text)


def _secrets() -> list[str]:
    """The values of variables that are named as secrets."""
    values = (value.strip() for name, value in os.environ.items() if _VARIABLE.search(name))
    return [value for value in values if len(value) >= _SHORTEST]


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, _UNSEEN)
    if "://" not in text:
        return text
    return _SECRET.sub(rf"\g<1>{_UNSEEN}", _USER.sub(r"\g<1>", text))


def stored(value: Any) -> Any:
    """Nested settings with `without_secrets` of each text in them; names of settings stay."""
    secrets = _secrets()

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _without(secrets, value)
        if isinstance(value, Mapping):
            return {name: clean(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [clean(each) for each in value]
        return value

    return clean(value)
