"""`sora pull`: find out what the named parts need from the hub and from web servers, and download it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sora_cli.console import get_console
from sora_cli.errors import UsageError, unknown_name
from sora_cli.plugin.specs import DataToolSpec, InterpolatorSpec, MetricSpec, ModelSpec, ScoringBackendSpec, Weights
from sora_cli.weights.fetch import fetch, find_cached, split_hub_id
from sora_cli.weights.fetch_url import address, fetch_urls, find_urls

if TYPE_CHECKING:
    from pathlib import Path

    from sora_cli.plugin.manager import Plugins

KINDS = ("model", "vae", "text-encoder", "metric", "scorer", "interpolator", "upscaler", "scoring-backend")


class Need(NamedTuple):
    """Weights that are not in a package. weights: without files for a hub id whose files nobody has named.

    option: how a file of the user's own is given, for messages.
    """

    what: str
    weights: Weights
    option: str = "--weights FILE"


class Found(NamedTuple):
    """Files on this machine. commit: of the hub repository they come from."""

    folder: Path
    paths: tuple[Path, ...]
    commit: str | None = None


def run(names: Sequence[str], plugins: Plugins, *, variant: str | None, update: bool, dry_run: bool) -> None:
    """Download what the names need, and print the folders. Raises SoraError; see `weights.fetch.fetch`."""
    console = get_console()
    needs: list[Need] = []
    for name in names:
        found = needs_of(name, plugins, variant)
        if not found:
            console.note(f"{name} needs no download: all it uses is in the package")
        needs += [need for need in found if need.weights not in [other.weights for other in needs]]
    for need in needs:
        if not (need.weights.repo or need.weights.url):
            names, where = ", ".join(need.weights.files), need.weights.by_hand
            console.warn(
                f"{need.what} needs {names}, which cannot be downloaded for you: get it from {where}, and give it "
                f"with {need.option}"
            )
        elif dry_run:
            here = _find(need.weights)
            _report(need, here, f"{need.what}: {_source(need.weights)}, {_state(need.weights, here)}")
        else:
            fetched = _fetch(need, update=update)
            _report(need, fetched, str(fetched.folder))


def _state(weights: Weights, here: Found | None) -> str:
    if here is not None:
        return f"here, commit {here.commit[:8]}" if here.commit else "here"
    return "would be downloaded" + (f", about {weights.size_gib:.1f} GiB" if weights.size_gib else "")


def _find(weights: Weights) -> Found | None:
    """The files if all are here; asks no network."""
    if weights.repo is None:
        paths = find_urls(weights)
        return Found(paths[0].parent, tuple(paths)) if paths else None
    files = find_cached(weights.repo, weights.revision, weights.files) if weights.files else None
    return Found(files.folder, files.paths, files.commit) if files else None


def _fetch(need: Need, *, update: bool) -> Found:
    weights = need.weights
    if weights.repo is None:
        paths = fetch_urls(weights, what=need.what, option=need.option)
        return Found(paths[0].parent, tuple(paths))
    licence = weights.licence if weights.files else None  # of a hub id nothing is known
    files = fetch(weights.repo, weights.revision, weights.files, what=need.what, licence=licence, update=update)
    return Found(files.folder, files.paths, files.commit)


def _source(weights: Weights) -> str:
    return weights.repo or " ".join(address(weights, name) for name in weights.files)


def _report(need: Need, found: Found | None, line: str) -> None:
    weights = need.weights
    record = {
        "what": need.what,
        "repository": weights.repo,
        "revision": weights.revision if weights.repo else None,
        "commit": found.commit if found else None,
        "urls": [address(weights, name) for name in weights.files] if weights.url else [],
        "folder": str(found.folder) if found else None,
        "paths": [str(path) for path in found.paths] if found else [],
    }
    get_console().result(line, record)


def needs_of(name: str, plugins: Plugins, variant: str | None) -> list[Need]:
    """The weights of a model with its parts, a single part, a measure, a scorer or a hub id. Raises UsageError."""
    for kind in KINDS:
        spec = next((one for one in plugins.specs(kind).values() if name in (one.name, *one.aliases)), None)
        if isinstance(spec, ModelSpec):
            parts = [plugins.get("vae", spec.vae), plugins.get("text-encoder", spec.text_encoder)]
            parts += [plugins.get("upscaler", spec.upscaler)] if spec.constraints.sampled_area else []
            of_model = _need(_variant_name(spec, variant), _variant_weights(spec, variant))
            return [*of_model, *(need for part in parts for need in _need(part.name, part.weights))]  # type: ignore[attr-defined]
        if isinstance(spec, (MetricSpec, DataToolSpec, InterpolatorSpec, ScoringBackendSpec)):
            flags = {MetricSpec: "--metric-weights ", ScoringBackendSpec: "--weights "}
            flag = flags.get(type(spec), f"--weights {spec.name}.")
            return [
                need
                for part, weights in spec.weights.items()
                for need in _need(f"{spec.name} ({part})", weights, f"{flag}{part}=FILE")
            ]
        if spec is not None:
            return _need(spec.name, spec.weights)  # type: ignore[attr-defined]
    hub_id = split_hub_id(name)
    if hub_id is None:
        raise unknown_name("model", name, [key for kind in KINDS for key in plugins.specs(kind)])
    return [Need(name, Weights(repo=hub_id[0], revision=hub_id[1], files=()))]


def _variant_name(spec: ModelSpec, variant: str | None) -> str:
    return f"{spec.name} ({variant or next(iter(spec.variants))})"


def _variant_weights(spec: ModelSpec, variant: str | None) -> Weights | None:
    chosen = variant or next(iter(spec.variants))
    if chosen not in spec.variants:
        raise unknown_name(f"variant of {spec.name}", chosen, spec.variants)
    if chosen not in spec.weights:
        raise UsageError(f"no weights were released for {spec.name} ({chosen})", hint="use your own with --weights")
    return spec.weights[chosen]


def _need(what: str, weights: Weights | None, option: str = "--weights FILE") -> list[Need]:
    return [] if weights is None or weights.package is not None else [Need(what, weights, option)]
