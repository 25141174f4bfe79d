"""Web addresses without the secrets in them, for messages and for what is stored."""

from __future__ import annotations

import re

_USER = re.compile(r"(?i)\b(https?://)[^/?#\s]*@")
_SECRET = re.compile(r"(?i)([?&][\w.%-]*(?:token|key|secret|sig|auth|pass|cred|session)[\w.%-]*=)[^&#;\s'\"]+")
_UNSEEN = "..."


def redact(text: str) -> str:
    """Text in which addresses have no user and password, and no value of a query parameter that is named as a secret.

    What is not printable there (a server may send it) becomes "?"; line breaks and tabs stay.
    """
    if "://" not in text:
        return text
    shown = _SECRET.sub(rf"\g<1>{_UNSEEN}", _USER.sub(r"\g<1>", text))
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in shown)
