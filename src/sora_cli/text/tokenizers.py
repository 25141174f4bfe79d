"""Finding the tokenizer of a text encoder on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sora_cli.errors import SoraError


def load_tokenizer(folder: Path, files: Sequence[str]) -> Any:
    """The tokenizer in the folder itself, or in a folder `tokenizer` beside or inside it; nothing is downloaded.

    files: names of which a place with the tokenizer has at least one. Raises SoraError when there is no such place.
    """
    from transformers import AutoTokenizer

    for place in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if any((place / name).is_file() for name in files):
            return AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    raise SoraError(
        f"the text encoder in {folder} has no tokenizer ({' or '.join(files)})",
        hint="put the tokenizer's files beside the weights",
    )
