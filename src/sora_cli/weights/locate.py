"""Where weights are on this machine, and a fingerprint that tells one set from another."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.specs import Weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
#: Files up to this size are hashed whole; larger ones by their size and evenly spaced samples, so that a
#: checkpoint of 20 GB costs milliseconds. Training changes every tensor, so samples notice.
WHOLE_HASH_BYTES = 256 * 2**20
_SAMPLES, _SAMPLE_BYTES = 256, 64 * 2**10


@dataclass(frozen=True)
class LocatedWeights:
    """Weights on this machine. folder: where they lie; files: their paths, in order; fingerprint: 16 hex digits."""

    folder: Path
    files: tuple[Path, ...]
    fingerprint: str
    commit: str | None = None
    """The commit of the hub repository they come from."""

    def config(self, name: str = "config.json") -> dict[str, Any]:
        """The architecture that lies beside the weights, {} without such a file. Raises SoraError for a damaged one."""
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SoraError(f"cannot read {path}: {error}", hint="it may be cut off; fetch it again") from error
        if not isinstance(content, dict):
            raise SoraError(f"{path} holds no configuration")
        return content


def locate_weights(weights: Weights | None, *, what: str, override: str | None = None) -> LocatedWeights | None:
    """Find the files of `weights`, or of `override` (a file or a folder that the user gave).

    what: the component in words, for messages. Returns None when there is nothing to find: no weights, no override.
    Raises UsageError for an override that does not exist, MissingError (exit 3) for files that are not here.
    """
    if override is not None:
        return _located(_override_files(Path(os.path.expanduser(override)), what))
    if weights is None:
        return None
    if weights.package is None:
        raise MissingError(
            f"the weights of {what} are not on this machine ({weights.repo}, revision {weights.revision})",
            hint="download them and give the file or folder with --weights",
        )
    return _located(_package_files(weights.package, weights.files, what))


def _package_files(package: str, names: tuple[str, ...], what: str) -> list[Path]:
    from importlib.resources import files

    try:
        folder = files(package)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the weights of {what} come with the package {package!r}, which is not installed"
        ) from error
    paths = [Path(str(folder / name)) for name in names]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise MissingError(
            f"the weights of {what} are missing from {package}: {', '.join(absent)}",
            hint="the installation is incomplete; install the package again",
        )
    return paths


def _override_files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise UsageError(f"{path} is no weights file", hint=f"known kinds: {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise UsageError(f"no weights for {what} at {path}", hint="--weights takes a file or a folder on this machine")
    for suffix in SUFFIXES:
        found = sorted(path.glob(f"*{suffix}"))
        if found:
            return found
    raise UsageError(f"the folder {path} holds no weights", hint=f"known kinds: {', '.join(SUFFIXES)}")


def _located(paths: list[Path]) -> LocatedWeights:
    return LocatedWeights(paths[0].parent, tuple(paths), fingerprint(paths))


def fingerprint(paths: list[Path]) -> str:
    """16 hex digits from names, sizes and contents; large files are sampled, see `WHOLE_HASH_BYTES`."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name}:{size}:".encode())
            if size <= WHOLE_HASH_BYTES:
                while block := file.read(2**20):
                    digest.update(block)
            else:
                for index in range(_SAMPLES):
                    file.seek((size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
