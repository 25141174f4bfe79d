"""`sora train export`: the weights of a run as one file, or as a folder laid out like a repository of the hub."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.plugin.specs import ModelSpec
from sora_cli.training.run_folder import AVERAGED, LAST, RECORD, newest_checkpoint, problems_of, step_of
from sora_cli.video.io import write_failed
from sora_cli.weights.locate import CONFIG, TRAINED_WITH
from sora_cli.weights.lora import ADAPTER, ADAPTER_CONFIG, METADATA, adapter_pairs, peft_config, peft_names

if TYPE_CHECKING:
    from torch import Tensor

    #: (tensors, config) -> (config.json, tensors), as `ModelSpec.diffusers` names one.
    Converter = Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[Mapping[str, Any], dict[str, Tensor]]]

WEIGHTS = "model.safetensors"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
Layout = Literal["sora", "diffusers"]


def export(
    source: Path,
    output: Path,
    *,
    layout: Layout = "sora",
    raw: bool = False,
    dtype: str = "bf16",
    overwrite: bool = False,
) -> None:
    """Write the weights of a run or a checkpoint, and print what was written.

    output: a .safetensors file, or a folder that gets config.json and model.safetensors, or the files of peft for an
    adapter. overwrite: replace a file, or a folder that holds nothing else than what this writes. layout: names and
    files of this program, or a folder that the model's class in diffusers loads. raw: the weights as the last update
    left them instead of their average. dtype: fp32, bf16 or fp16 for weights; buffers stay as they are. Raises
    UsageError for a source without a complete checkpoint, for a model that diffusers has not and where other files
    would be lost, SoraError for a damaged one.
    """
    from safetensors.torch import load_file

    from sora_cli.tasks.components import DTYPES
    from sora_cli.weights.save import save_tensors

    checkpoint = newest_checkpoint(source)
    if checkpoint is None:
        if not source.exists():
            raise UsageError(f"there is no folder {source}", hint="give a run, or one of its step-N folders")
        raise UsageError(
            f"there is no complete checkpoint in {source}", hint="give a run, or one of its step-N folders"
        )
    is_file = output.suffix == ".safetensors"
    if is_file and layout == "diffusers":
        raise UsageError(f"diffusers loads a folder, and {output} is a file", hint="leave .safetensors out")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} is there already", hint="choose another name, or --overwrite")
    _check_replaced(output, checkpoint)
    if problems := list(problems_of(checkpoint, check_content=True)):
        raise UsageError(f"the checkpoint {checkpoint} is damaged", hint="\n".join(problems))
    record = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))
    convert = _converter(record) if layout == "diffusers" else None
    tensors = load_file(checkpoint / (LAST if raw else AVERAGED))
    kept = set(record["buffers"])
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and name not in kept:
            tensors[name] = tensor.to(DTYPES[dtype])
    lora, config = record["lora"], json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    metadata = {"format": "pt", "step": str(step_of(checkpoint)), "averaged": str(not raw).lower()}
    if TRAINED_WITH in config:  # in the file of tensors too: single files, adapters and diffusers have no other place
        metadata[TRAINED_WITH] = json.dumps(config[TRAINED_WITH])
    if lora is not None:
        metadata[METADATA] = json.dumps(lora)
    weights, config_name, config, tensors = _laid_out(tensors, config, lora, convert)

    def write(place: Path) -> None:
        if not is_file:
            place.mkdir()
            (place / config_name).write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_tensors(place if is_file else place / weights, tensors, metadata)

    _write(output, write)
    count = sum(tensor.numel() for tensor in tensors.values())
    get_console().note(f"{count:,} numbers of {checkpoint}, {'last' if raw else 'averaged'} weights in {dtype}")
    get_console().result(output, {"path": str(output), "step": step_of(checkpoint), "dtype": dtype, "raw": raw})


def _check_replaced(output: Path, checkpoint: Path) -> None:
    """Raise UsageError where files would go that no export wrote, or that belong to the checkpoint."""
    if checkpoint.resolve() in (output.resolve(), *output.resolve().parents):
        raise UsageError(f"{output} belongs to the checkpoint that is read", hint="choose another name")
    written = {WEIGHTS, DIFFUSERS_WEIGHTS, CONFIG, ADAPTER, ADAPTER_CONFIG}
    is_folder = output.is_dir()
    others = sorted(each.name for each in output.iterdir() if each.name not in written) if is_folder else []
    if is_folder and output.suffix == ".safetensors":
        raise UsageError(f"{output} is a folder", hint="choose another name for the file")
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(
            f"{output} holds other files, which would be lost: {', '.join(others[:3])}{more}",
            hint="choose another name",
        )


def _laid_out(
    tensors: dict[str, Tensor],
    config: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    convert: Converter | None,
) -> tuple[str, str, Mapping[str, Any], dict[str, Tensor]]:
    """The names of the files of weights and configuration in a folder, and what goes into the second and the first."""
    if lora is not None:
        return ADAPTER, ADAPTER_CONFIG, peft_config(lora, list(adapter_pairs(tensors))), peft_names(tensors)
    if convert is not None:
        return DIFFUSERS_WEIGHTS, CONFIG, *convert(tensors, config)
    return WEIGHTS, CONFIG, config, tensors


def _converter(record: Mapping[str, Any]) -> Converter:
    """What turns the weights of this run's model into those of diffusers. Raises UsageError when nothing does."""
    if record["lora"] is not None:
        raise UsageError("this run trained an adapter, which is written as peft has it", hint="leave --format out")
    plugins = get_plugins()
    name = record["config"].get("model", {}).get("name")
    spec = plugins.get("model", name) if name is not None else None
    if not isinstance(spec, ModelSpec) or spec.diffusers is None:
        specs = plugins.specs("model").values()
        known = ", ".join(each.name for each in specs if isinstance(each, ModelSpec) and each.diffusers is not None)
        raise UsageError(
            f"diffusers has no class that computes the same as {name or 'what this run trained'}",
            hint=f"models that can be written for it: {known or 'none'}",
        )
    found: Converter = load_attribute(spec.diffusers, what=spec.name)
    return found


def _write(output: Path, write: Callable[[Path], None]) -> None:
    """Put a file or folder that `write` makes beside it in its place, whole or not at all."""
    output = Path(os.path.abspath(output))  # "." has no name
    temporary = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _replace(temporary, output)
    except OSError as error:
        raise write_failed(output, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if temporary.is_file():
            temporary.unlink()


def _replace(temporary: Path, output: Path) -> None:
    if output.is_dir() and not output.is_symlink():
        old = output.with_name(f".{output.name}.{os.getpid()}.old")
        output.rename(old)
        try:
            temporary.rename(output)
        except BaseException:
            old.rename(output)
            raise
        shutil.rmtree(old)
        return
    os.replace(temporary, output)
