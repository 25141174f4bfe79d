"""Presets: YAML files that come with the package or with plugins. presets/README.md lists every key.

A preset is `<kind>/<name>.yaml`; the kinds are below. The first comment line of a file is its summary, so a list needs
no YAML parser. Listing and reading import nothing heavy; validation imports pydantic when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .config.files import Document, read_yaml
from .errors import SoraError, UsageError, did_you_mean, unknown_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .config.layers import Problem

KINDS: Mapping[str, str] = {
    "generate": "settings to pick with --preset",
    "train": "recipes for `sora train`",
    "vae": "recipes for `sora vae train`",
    "models": "what a model is sampled with unless told otherwise",
    "launch": "how a model runs, by size, length, GPUs and memory",
    "data": "plans of `sora data run`",
    "caption": "what `sora data caption` and `sora data tag` ask",
    "human": "plans of `sora eval human`",
    "tables": "names of sizes and lengths, and where the loss is measured",
}
"""Kinds of presets. "tables" are the files at the top of the presets folder, the others are folders in it."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "generate": ("shape", "sampling", "conditioning", "model", "hardware"),
    "models": ("shape", "sampling", "conditioning", "model"),
    "train": ("data", "objective", "optimizer", "model", "run", "validation", "hardware"),
    "vae": ("data", "vae", "loss", "discriminator", "optimizer", "run", "validation", "hardware"),
}
"""Sections that presets of a kind may hold: a preset never brings prompts or output paths."""

WHEN_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "resolution": str,
    "duration": str,
    "gpus": int,
    "min_memory_gib": (int, float),
}
RUN_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "processes": int,
    "sequence": int,
    "dtype": str,
    "attention": str,
    "offload": str,
    "decode_frames": int,
}
EXPECT_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "memory_gib": (int, float),
    "source": str,
    "machine": str,
    "date": str,
}
LAUNCH_KEYS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "when": WHEN_KEYS,
    "run": RUN_KEYS,
    "env": {},
    "expect": EXPECT_KEYS,
}
CAPTION_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "image": str,
    "video": str,
    "text": str,
    "frames": int,
    "examples": int,
    "fields": list,
}


class PresetPlugins(Protocol):
    """The part of the plugin manager that is used here."""

    def specs(self, kind: str) -> Mapping[str, Any]:
        """Specs of a kind by name."""
        ...


@dataclass(frozen=True)
class PresetInfo:
    """One preset file. source: "sora" or the plugin package that holds it; problem: why it cannot be used now."""

    kind: str
    name: str
    path: Path
    summary: str
    source: str = "sora"
    problem: str | None = None
    clashes_with: str | None = None
    """The plugin package that has a preset of this name too; neither can be used."""


@dataclass(frozen=True)
class LaunchEntry:
    """One entry of a launch preset. number: its place in the file, from 1; expect["memory_gib"] is per GPU."""

    number: int
    when: Mapping[str, Any]
    run: Mapping[str, Any]
    env: Mapping[str, str]
    expect: Mapping[str, Any]


# -- finding -----------------------------------------------------------------------------------------------------


def presets_folder() -> Path:
    """The folder of our own presets: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_presets", here.parent.parent / "presets"):
        if folder.is_dir():
            return folder
    raise SoraError("the presets of this installation are missing", hint="install sora-cli again")


def list_presets(plugins: PresetPlugins | None = None) -> list[PresetInfo]:
    """All presets by kind and name. plugins: adds their presets, and flags presets of models that none provides."""
    sources = [("sora", presets_folder())]
    if plugins is not None:
        sources += [(spec.package, spec.path()) for spec in plugins.specs("presets").values() if spec.path()]
    found: dict[tuple[str, str], PresetInfo] = {}
    for source, folder in sources:
        for info in _presets_in(folder, source):
            other = found.setdefault((info.kind, info.name), info)
            if other is not info:
                found[info.kind, info.name] = replace(
                    other, clashes_with=source, problem=f"{source} has a preset of this name too"
                )
    order = list(KINDS)
    infos = sorted(found.values(), key=lambda info: (order.index(info.kind), info.name))
    return infos if plugins is None else [_flag(info, plugins) for info in infos]


def find_preset(kind: str | None, name: str, plugins: PresetPlugins | None = None) -> PresetInfo:
    """The preset of this name. kind: None looks through all kinds. UsageError with the closest name."""
    infos = list_presets(plugins)
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of preset", kind, KINDS)
    matching = [info for info in infos if info.name == name and kind in (None, info.kind)]
    if len(matching) == 1:
        [info] = matching
        if info.clashes_with is not None:
            raise SoraError(
                f"two {info.kind} presets are called {name!r}: one of {info.source}, one of {info.clashes_with}",
                hint="rename one, or leave a plugin out with SORA_PLUGINS",
            )
        return info
    if matching:
        kinds = ", ".join(info.kind for info in matching)
        hint = f"add one of the kinds, e.g. --kind {matching[0].kind}"
        raise UsageError(f"several presets are called {name!r}: {kinds}", hint=hint)
    if kind == "generate" and any(info.name == name and info.kind == "models" for info in infos):
        raise UsageError(f"{name!r} is a model, not a preset of settings", hint=f"choose it with -m {name}")
    names = [info.name for info in infos if kind in (None, info.kind)]
    raise unknown_name("preset", name, names, see="sora presets list")


def _flag(info: PresetInfo, plugins: PresetPlugins) -> PresetInfo:
    models = plugins.specs("model")
    if info.kind not in ("models", "launch", "train") or info.problem is not None:
        return info
    try:
        name = model_named(info) if info.kind == "train" else info.name
    except SoraError as error:
        return replace(info, problem=error.message)
    if name in (None, *models):
        return info
    return replace(info, problem=f"no installed plugin provides the model {name!r}")


def model_named(info: PresetInfo) -> str | None:
    """The model that a preset names, None without. Raises SoraError for a file that is no preset."""
    model = (read_yaml(info.path).data or {}).get("model")
    return model.get("name") if isinstance(model, dict) else None


def _presets_in(folder: Path, source: str) -> Iterable[PresetInfo]:
    for kind in KINDS:
        place = folder if kind == "tables" else folder / kind
        for path in sorted(place.glob("*.yaml")):
            yield PresetInfo(kind, path.stem, path, _summary(path), source)


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


# -- reading -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def read_table(name: str) -> Mapping[str, Any]:
    """One of our own tables, such as "resolutions"; its content is checked by tests, not at each start."""
    data = read_yaml(presets_folder() / f"{name}.yaml").data
    assert isinstance(data, dict)
    return data


def load_preset(kind: str, name: str, plugins: PresetPlugins | None = None) -> Any:
    """The validated content of a preset.

    Returns sections for "generate" and "models", a list of `LaunchEntry` for "launch", the plain data for the others.
    UsageError naming file and line for unknown keys and wrong values.
    """
    info = find_preset(kind, name, plugins)
    document = read_yaml(info.path)
    if kind == "launch":
        return launch_entries(document)
    if kind == "caption":
        _check_caption(document)
    if kind in SECTIONS:
        _check_sections(kind, document)
    return document.data or {}


def _check_caption(document: Document) -> None:
    from .config.layers import Problem, raise_problems

    content = document.data
    if not isinstance(content, dict) or not {"image", "video", "text"} & set(content):
        raise UsageError(f"{document.path}: a caption preset needs image, video or text: what is asked about them")
    problems = []
    for key, value in content.items():
        kind = CAPTION_KEYS.get(key)
        if kind is None:
            problems.append(Problem(document.where(key), f"unknown key {key!r}", did_you_mean(key, CAPTION_KEYS)))
        elif not isinstance(value, kind) or value is True or value is False:
            problems.append(Problem(document.where(key), f"{key}: {value!r} has the wrong type"))
        elif isinstance(value, int) and value < 1:
            problems.append(Problem(document.where(key), f"{key}: {value} is less than 1"))
        elif isinstance(value, list) and not all(isinstance(name, str) for name in value):
            problems.append(Problem(document.where(key), f"{key}: {value!r} is no list of names"))
    raise_problems(problems)


def _check_sections(kind: str, document: Document) -> None:
    from .config.checks import validated
    from .config.layers import Problem, document_layer, nest, raise_problems, settings_in
    from .config.schema import GenerateConfig
    from .config.train_schema import TrainConfig
    from .config.vae_schema import VaeTrainConfig

    configs: dict[str, type[BaseModel]] = {"train": TrainConfig, "vae": VaeTrainConfig}
    config = configs.get(kind, GenerateConfig)
    every = settings_in(config)
    allowed = {key: setting for key, setting in every.items() if key.partition(".")[0] in SECTIONS[kind]}
    if kind == "models":
        allowed.pop("model.name")
    if kind in ("train", "vae"):
        allowed.pop("data.tables")
        allowed.pop("validation.tables")
    problems: list[Problem] = []
    layer = document_layer(document, allowed, str(document.path), problems)
    raise_problems(problems)
    validated(config, nest(layer.values, every), document.where)
    resolution = layer.values.get("shape.resolution")
    known = read_table("resolutions")["resolutions"]
    if resolution is not None and resolution not in known:
        advice = did_you_mean(resolution, known)
        raise_problems([Problem(document.where("shape.resolution"), f"unknown resolution {resolution!r}", advice)])


# -- launch presets ----------------------------------------------------------------------------------------------


def choose_launch(
    entries: Sequence[LaunchEntry], *, resolution: str | None, duration: str | None, gpus: int, memory_gib: float
) -> LaunchEntry | None:
    """The first entry whose conditions all hold; None when there is none.

    resolution, duration: names, None when the clip is beyond every name. memory_gib: of one GPU, 0 without a GPU.
    """
    facts = {"resolution": resolution, "duration": duration, "gpus": gpus}
    for entry in entries:
        same = all(facts[key] == value for key, value in entry.when.items() if key in facts)
        if same and memory_gib >= entry.when.get("min_memory_gib", 0):
            return entry
    return None


def launch_entries(document: Document) -> list[LaunchEntry]:
    """The entries of a launch file. UsageError naming all that is wrong in it, with lines."""
    from .config.layers import Problem, raise_problems

    if not isinstance(document.data, list):
        raise UsageError(f"{document.path}: a launch preset is a list of entries, each `- when: {{...}}`")
    problems: list[Problem] = []
    entries = []
    for index, raw in enumerate(document.data):
        wrong = _entry_problems(raw)
        if not wrong and isinstance(raw, dict):
            entries.append(LaunchEntry(index + 1, *({**(raw.get(part) or {})} for part in LAUNCH_KEYS)))
            wrong = _sense_problems(entries)
        problems += [Problem(document.where(f"{index}.{key}".rstrip(".")), text, advice) for key, text, advice in wrong]
    raise_problems(problems)
    return entries


def _entry_problems(raw: Any) -> list[Problem]:
    """Unknown keys and wrong types; `where` holds the key inside the entry."""
    from .config.layers import Problem

    if not isinstance(raw, dict) or "when" not in raw or "run" not in raw:
        return [Problem("", "an entry needs `when` and `run`")]
    strange = [part for part in raw if part not in LAUNCH_KEYS]
    problems = [Problem(part, f"unknown key {part!r}", did_you_mean(part, LAUNCH_KEYS)) for part in strange]
    for part, keys in LAUNCH_KEYS.items():
        content = raw.get(part) or {}
        if not isinstance(content, dict):
            problems.append(Problem(part, f"{part!r} must hold `name: value` pairs"))
            continue
        for key, value in content.items():
            kind = str if part == "env" else keys.get(key)
            if kind is None:
                problems.append(Problem(f"{part}.{key}", f"unknown key {key!r} in {part!r}", did_you_mean(key, keys)))
            elif not isinstance(value, kind) or isinstance(value, bool):
                problems.append(Problem(f"{part}.{key}", f"{key}: {value!r} has the wrong type"))
    return problems


def _sense_problems(entries: Sequence[LaunchEntry]) -> list[Problem]:
    """What contradicts itself in the last entry, whose keys and types are right."""
    from .config.layers import Problem

    entry = entries[-1]
    rules: list[tuple[str, bool, Callable[[], str]]] = [
        (
            "when.resolution",
            entry.when.get("resolution") in (None, *read_table("resolutions")["resolutions"]),
            lambda: f"unknown resolution {entry.when['resolution']!r}",
        ),
        (
            "when.duration",
            entry.when.get("duration") in (None, *read_table("durations")["frames"]),
            lambda: f"unknown length {entry.when['duration']!r}",
        ),
        (
            "run.processes",
            entry.run.get("processes") in (None, entry.when.get("gpus")),
            lambda: f"processes must equal when.gpus ({entry.when.get('gpus')}), not {entry.run['processes']}",
        ),
        (
            "run.sequence",
            entry.when.get("gpus", 1) % entry.run.get("sequence", 1) == 0,
            lambda: f"{entry.when.get('gpus', 1)} GPUs cannot be split into groups of {entry.run['sequence']}",
        ),
        (
            "expect.source",
            entry.expect.get("source") in ("estimated", "measured") if entry.expect else True,
            lambda: "source must be `estimated` or `measured`",
        ),
        (
            "expect.source",
            entry.expect.get("source") != "measured" or {"machine", "date"} <= set(entry.expect),
            lambda: "a measured value needs `machine` and `date`",
        ),
    ]
    problems = [Problem(key, text()) for key, holds, text in rules if not holds]
    covered = next((other for other in entries[:-1] if _covers(other, entry)), None)
    if covered:
        text = f"this entry is never reached: entry {covered.number} matches first"
        problems.append(Problem("when", text, "put special entries first"))
    return problems


def _covers(general: LaunchEntry, special: LaunchEntry) -> bool:
    """Whether every situation of the special entry is one of the general entry."""
    for key, value in general.when.items():
        if key not in special.when:
            return key == "min_memory_gib" and value <= 0
        if key == "min_memory_gib":
            if special.when[key] < value:
                return False
        elif special.when[key] != value:
            return False
    return True
