"""Where weights are on this machine, and a fingerprint that tells one set from another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.specs import Weights
from sora_cli.training.run_folder import AVERAGED, LAST, RECORD, newest_checkpoint

from .fetch import fetch, find_cached, free_gib, is_offered, split_hub_id
from .fetch_url import fetch_urls, find_urls

CONFIG = "config.json"
#: Key of a config.json with the settings of the training run that made the weights; no part of the architecture.
TRAINED_WITH = "trained_with"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".pytorch", ".pkl", ".onnx")
#: A whole checkpoint has one of these names; a folder may hold other files of the same kind.
WHOLE_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors", "model.pt", "pytorch_model.bin", "ema.pt")
#: How the parts of a checkpoint are called.
SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
#: Files of a training run that are no weights.
NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state")
#: Where the weights of a text encoder or of a training checkpoint may lie inside the folder that is named.
SUBFOLDERS = ("t5-v1_1-xxl", "text_encoder", "model")
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

    def config(self, name: str = CONFIG) -> dict[str, Any]:
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
        content.pop(TRAINED_WITH, None)
        return content


def locate_weights(
    weights: Weights | None,
    *,
    what: str,
    override: str | None = None,
    download: bool = True,
    raw: bool = False,
    option: str = "--weights FILE",
) -> LocatedWeights | None:
    """Find the files of `weights`, or of `override` (a file, a folder, a training run or a hub id that the user gave).

    what: the component in words, for messages. download: fetch what is on the hub and not here. raw: of a training run
    take the weights as the last update left them, not their average. option: how the user gives a file of his own, for
    messages. Returns None when there is nothing to find: no weights, no override. Raises UsageError for an override
    that does not exist, MissingError (exit 3) for files that are not here and cannot be had.
    """
    if override is not None:
        place = Path(os.path.expanduser(override))
        hub_id = split_hub_id(override)
        if not place.exists() and hub_id is not None:
            try:
                return _from_hub(*hub_id, (), what=what, licence=None, size_gib=None, download=download, option=option)
            except MissingError as error:
                why = f"no file or folder here is called {override}, so it was taken for a repository of the hub"
                raise MissingError(error.message, hint=f"{why}\n{error.hint or ''}".rstrip()) from error
        checkpoint = newest_checkpoint(place)
        if checkpoint is not None:
            if json.loads((checkpoint / RECORD).read_text(encoding="utf-8")).get("lora"):
                raise UsageError(
                    f"{override} trained an adapter, not whole weights", hint=f"use it with --lora {override}"
                )
            return _located([checkpoint / (LAST if raw else AVERAGED)])
        if raw:
            raise UsageError(f"--raw is for training runs, and {override} is none")
        return _located(_override_files(place, what))
    if weights is None:
        return None
    if weights.package is not None:
        return _located(_package_files(weights, what))
    if weights.url is not None:
        return _located(_from_server(weights, what=what, download=download, option=option))
    if weights.repo is None:
        names = ", ".join(weights.files)
        raise MissingError(
            f"{what} needs {names}, which cannot be downloaded for you",
            hint=f"get it from {weights.by_hand}\nand give it with {option}",
        )
    return _from_hub(
        weights.repo,
        weights.revision,
        weights.files,
        what=what,
        licence=weights.licence,
        size_gib=weights.size_gib,
        download=download,
        option=option,
    )


def locate_parts(
    parts: Mapping[str, Weights], *, what: str, overrides: Mapping[str, str], option: str, download: bool = True
) -> dict[str, LocatedWeights]:
    """The weights of every part of a component: part -> files, those of the user before others.

    overrides: part -> file or folder; other parts than those here are left alone. option: takes PART=FILE, for
    messages, such as "--metric-weights". Errors as `locate_weights`.
    """
    found = {}
    for part, weights in parts.items():
        located = locate_weights(
            weights,
            what=f"{what} ({part})",
            override=overrides.get(part),
            download=download,
            option=f"{option} {part}=FILE",
        )
        assert located is not None  # there are weights to look for
        found[part] = located
    return found


def needs_network(weights: Weights | None, override: str | None) -> bool:
    """Whether these weights, or what the user gives instead of them, may have to be downloaded."""
    if override is not None:
        return not Path(os.path.expanduser(override)).exists() and split_hub_id(override) is not None
    return weights is not None and (weights.repo is not None or weights.url is not None)


def part_files(texts: Sequence[str], *, option: str, example: str) -> dict[str, str]:
    """File or folder by part, of texts PART=FILE. option: that takes them; example: one that works. UsageError."""
    found = {}
    for text in texts:
        part, equals, file = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text!r} is not PART=FILE", hint=f"example: {option} {example}")
        found[part] = file
    return found


def weights_present(weights: Weights | None) -> bool:
    """Whether the files are on this machine; asks no network and imports nothing heavy."""
    if weights is None or weights.package is not None:
        return True
    if weights.url is not None:
        return find_urls(weights) is not None
    return weights.repo is not None and find_cached(weights.repo, weights.revision, weights.files) is not None


def can_be_fetched(absent: Sequence[Weights]) -> bool:
    """Whether weights that are not on this machine could be downloaded now: the hub offers them, the disk has room."""
    if any(weights.repo is None for weights in absent) or sum(weights.size_gib or 0 for weights in absent) > free_gib():
        return False
    places = dict.fromkeys((str(weights.repo), weights.revision) for weights in absent)
    return all(is_offered(repo, revision) for repo, revision in places)


def _from_hub(
    repo: str,
    revision: str,
    files: tuple[str, ...],
    *,
    what: str,
    licence: str | None,
    size_gib: float | None,
    download: bool,
    option: str,
) -> LocatedWeights:
    found = find_cached(repo, revision, files) if files else None
    if found is None and not download:
        size = f", about {size_gib:.1f} GiB" if size_gib else ""
        raise MissingError(
            f"the weights of {what} would be downloaded from {repo}{size}",
            hint=f"download them with `sora pull`, or give your own with {option}",
        )
    if found is None:
        found = fetch(repo, revision, files, what=what, licence=licence, option=option)
    return dataclasses.replace(_located(list(found.paths)), commit=found.commit)


def _from_server(weights: Weights, *, what: str, download: bool, option: str) -> list[Path]:
    found = find_urls(weights)
    if found is None and not download:
        size = f", about {weights.size_gib:.1f} GiB" if weights.size_gib else ""
        raise MissingError(
            f"the weights of {what} would be downloaded from {weights.url}{size}: {', '.join(weights.files)}",
            hint=f"download them with `sora pull`, or give your own with {option}",
        )
    return fetch_urls(weights, what=what, option=option) if found is None else found


def _package_files(weights: Weights, what: str) -> list[Path]:
    """The files inside an installed package, which is not imported: it may want more than its files do."""
    from importlib.util import find_spec

    package = weights.package or ""
    try:
        found = find_spec(package)
    except ModuleNotFoundError:  # the package that it is in
        found = None
    if found is None:
        raise MissingError(
            f"the weights of {what} come with the package {package!r}, which is not installed", hint=weights.by_hand
        )
    folders = [Path(place) for place in found.submodule_search_locations or ()]
    paths = [next((folder / name for folder in folders if (folder / name).is_file()), None) for name in weights.files]
    absent = [name for name, path in zip(weights.files, paths, strict=True) if path is None]
    if absent:
        raise MissingError(
            f"the weights of {what} are missing from {package}: {', '.join(absent)}",
            hint="the installation is incomplete; install the package again",
        )
    return [path for path in paths if path is not None]


def _override_files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise UsageError(f"{path} is no weights file", hint=f"known kinds: {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise UsageError(
            f"no weights for {what} at {path}",
            hint="give a file or a folder on this machine, or the id of a hub repository: organisation/name",
        )
    for folder in (path, *(path / name for name in SUBFOLDERS)):
        found = _weights_in(folder)
        if found:
            return found
    raise UsageError(f"the folder {path} holds no weights", hint=f"known kinds: {', '.join(SUFFIXES)}")


def _weights_in(folder: Path) -> list[Path]:
    """The weights in a folder: one whole file under a usual name, the shards that an index names, or all of one kind.

    Raises UsageError when several files could be meant.
    """
    for name in WHOLE_FILES:
        if (folder / name).is_file():
            return [folder / name]
    for index in sorted(folder.glob("*.index.json")):
        return _shards(index)
    for suffix in SUFFIXES:
        found = sorted(path for path in folder.glob(f"*{suffix}") if path.stem not in NO_WEIGHTS)
        if len(found) > 1 and not all(SHARD.search(path.name) for path in found):
            raise UsageError(
                f"{folder} holds several weights files: {', '.join(path.name for path in found)}",
                hint="give the file itself",
            )
        if found:
            return found
    return []


def _shards(index: Path) -> list[Path]:
    """The files that an index of a sharded checkpoint names. Raises UsageError when one is missing."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise SoraError(f"cannot read {index}: it is no index of a checkpoint", hint="fetch it again") from error
    absent = [name for name in names if not (index.parent / name).is_file() or Path(name).name != name]
    if absent:
        raise UsageError(f"{index.parent} lacks parts of the checkpoint: {', '.join(absent)}", hint="fetch them again")
    return [index.parent / name for name in names]


def _located(paths: list[Path]) -> LocatedWeights:
    """Weights among the files; a configuration beside them counts for the fingerprint."""
    weights = [path for path in paths if path.suffix in SUFFIXES] or paths
    configuration = [path for path in [weights[0].parent / CONFIG] if path.is_file()]
    return LocatedWeights(weights[0].parent, tuple(weights), fingerprint([*weights, *configuration]))


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
