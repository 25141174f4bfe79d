"""Every model of ours has a page, and what can be checked on it is true: facts, memory, commands."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.model_facts import model_facts, readme_path
from sora_cli.plugin.specs import ModelSpec, Weights

SPECS: Mapping[str, ModelSpec] = get_plugins().specs("model")  # type: ignore[assignment]
PAGES = {name: readme_path(spec) for name, spec in SPECS.items() if spec.readme}
#: nano's page tells how it was made, and is checked by tests/nano.
WITH_FACTS = [name for name, page in PAGES.items() if name != "nano" and page.is_file()]
#: GiB by which an estimate may move before the page has to follow.
MEMORY_SLACK = 0.15


def test_every_model_of_ours_has_a_page() -> None:
    ours = {name for name in SPECS if get_plugins().owner("model", name) in ("nano", "stdit", "dit")}
    assert len(ours) > 10
    assert {name for name in ours if name in PAGES and PAGES[name].is_file()} == ours


def source_of(weights: Weights | None) -> str:
    """Where weights come from, as pages say it."""
    if weights is None:
        return "none were released"
    files = ", ".join(f"`{name}`" for name in weights.files if not name.endswith((".json", ".txt", ".model")))
    place = f"`{weights.repo}` ({weights.revision})" if weights.repo else f"by hand from {weights.by_hand}"
    return f"{place}: {files}, {weights.size_gib:g} GiB"


def facts_of(spec: ModelSpec) -> dict[str, str]:
    """The rows of the table of a page."""
    facts = model_facts(get_plugins(), spec)
    defaults, parts = facts["defaults"], facts["parts"]
    if defaults["frames"] == 1:
        length = "one picture"
    else:
        length = f"{defaults['frames']} frames, {defaults['fps']:g} fps"
        length += "" if defaults["save_fps"] == defaults["fps"] else f", in the file {defaults['save_fps']:g} fps"
    options = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in defaults["scheduler_options"].items())
    scores = ", ".join(f"`{key}: {value:g}`" for key, value in defaults["conditioning"].items())
    rows = {
        "tasks": ", ".join(spec.tasks),
        "trained": spec.constraints.trained,
        "prompt": facts["prompt"],
        "default size": f"{defaults['size']}, {length}",
        "scheduler": f"`{defaults['scheduler']}`" + (f" with {options}" if options else ""),
        "steps, guidance": f"{defaults['steps']}, {defaults['guidance']:g}",
        "number format": defaults["dtype"],
        **({"more settings": scores} if scores else {}),
    }
    for variant in spec.variants:
        weights = spec.weights.get(variant)
        name = f"weights, variant `{variant}`" if len(spec.variants) > 1 else "weights"
        rows[name] = source_of(weights)
    for weights in list(spec.weights.values())[:1]:
        rows["licence"] = weights.licence
    for part, words in (("vae", "autoencoder"), ("text_encoder", "text encoder")):
        weights = parts[part]["weights"]
        terms = "" if weights is None else f": `{weights.repo}`, {weights.size_gib:g} GiB, {weights.licence}"
        rows[words] = f"`{parts[part]['name']}`{terms}"
    return rows


@functools.cache
def table_of(page: Path) -> dict[str, dict[str, str]]:
    """Model -> row -> cell of the first table of a page. An empty cell is as the first; a row with - is not its."""
    blocks = page.read_text(encoding="utf-8").split("\n\n")
    lines = next(block for block in blocks if block.startswith("| |")).splitlines()
    cells = [[cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")] for line in lines]
    models = [cell.strip("`") for cell in cells[0][1:]]
    return {
        model: {row[0]: row[column] or row[1] for row in cells[2:] if row[column] != "-"}
        for column, model in enumerate(models, start=1)
    }


@pytest.mark.parametrize("name", WITH_FACTS)
def test_its_facts_are_those_of_the_spec_and_the_preset(name: str) -> None:
    rows = table_of(PAGES[name])[name]
    assert {row: cell for row, cell in rows.items() if not row.startswith("memory")} == facts_of(SPECS[name])
    assert len({weights.licence for weights in SPECS[name].weights.values()}) <= 1


@pytest.mark.parametrize("name", WITH_FACTS)
def test_its_memory_is_what_the_plan_says(name: str, sora) -> None:
    finished = sora("generate", "7", "-m", name, "--device", "cpu", "--dry-run", "--json")
    assert finished.code == 0, finished.err
    planned = json.loads(finished.out)["memory"]["phases_gib"]
    (cell,) = [cell for row, cell in table_of(PAGES[name])[name].items() if row.startswith("memory")]
    said = {phase: float(gib) for phase, gib in re.findall(r"(text|sampling|decoding) ([0-9.]+)", cell)}
    assert said
    assert said == pytest.approx({phase: planned[phase] for phase in said}, abs=MEMORY_SLACK)


def commands_of(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("sora ")]


@pytest.mark.parametrize(
    "command", [command for page in dict.fromkeys(PAGES[name] for name in WITH_FACTS) for command in commands_of(page)]
)
def test_its_commands_can_be_given(command: str, sora) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    for option, value in itertools.pairwise(arguments):
        if option == "--weights":
            Path(value).write_bytes(b"weights")
    if arguments[0] == "i2v":
        Image.new("RGB", (64, 64)).save(arguments[1])
    if arguments[0] == "train":
        Path("clips.csv").write_text("path,text,num_frames,height,width\na.mp4,a fox,600,720,1280\n")
    if arguments[0] in ("generate", "i2v", "pull", "train") and "--dry-run" not in arguments:
        arguments.append("--dry-run")
    finished = sora(*arguments)
    assert finished.code == 0, finished.err


@pytest.mark.parametrize("name", WITH_FACTS)
def test_its_page_names_it_in_a_command(name: str) -> None:
    assert any(re.search(rf"-m {re.escape(name)}(\s|$)", command) for command in commands_of(PAGES[name]))
