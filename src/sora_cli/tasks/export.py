"""`sora train export`: the weights of a run as one file, or as a folder laid out like a repository of the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.training.run_folder import AVERAGED, LAST, newest_checkpoint, problems_of, step_of
from sora_cli.weights.lora import ADAPTER, ADAPTER_CONFIG, METADATA, adapter_pairs, peft_config, peft_names

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def export(source: Path, output: Path, *, raw: bool = False, dtype: str = "bf16", overwrite: bool = False) -> None:
    """Write the weights of a run or a checkpoint, and print what was written.

    output: a .safetensors file, or a folder that gets config.json and model.safetensors, or the files of peft for an
    adapter. raw: the weights as the last update left them instead of their average. dtype: fp32, bf16 or fp16 for
    weights; buffers stay as they are. Raises UsageError for a source without a complete checkpoint, SoraError for a
    damaged one.
    """
    from safetensors.torch import load_file

    from sora_cli.tasks.components import DTYPES
    from sora_cli.weights.save import save_tensors

    checkpoint = newest_checkpoint(source)
    if checkpoint is None:
        raise UsageError(
            f"there is no complete checkpoint in {source}", hint="give a run, or one of its step-N folders"
        )
    is_file = output.suffix == ".safetensors"
    if output.exists() and not overwrite:
        raise UsageError(f"{output} is there already", hint="choose another name, or --overwrite")
    if problems := list(problems_of(checkpoint, check_content=True)):
        raise UsageError(f"the checkpoint {checkpoint} is damaged", hint="\n".join(problems))
    tensors = load_file(checkpoint / (LAST if raw else AVERAGED))
    record = json.loads((checkpoint / "record.json").read_text(encoding="utf-8"))
    kept = set(record["buffers"])
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and name not in kept:
            tensors[name] = tensor.to(DTYPES[dtype])
    lora = record["lora"]
    weights, config_name, config = WEIGHTS, CONFIG, (checkpoint / CONFIG).read_text(encoding="utf-8")
    if lora is not None:
        weights, config_name = ADAPTER, ADAPTER_CONFIG
        config = json.dumps(peft_config(lora, list(adapter_pairs(tensors))), indent=2)
        tensors = peft_names(tensors)
    metadata = {"format": "pt", "step": str(step_of(checkpoint)), "averaged": str(not raw).lower()}
    if lora is not None:
        metadata[METADATA] = json.dumps(lora)
    temporary = output.with_name(f"{output.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.unlink(missing_ok=True)
    try:
        if is_file:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(temporary, tensors, metadata)
        else:
            temporary.mkdir(parents=True)
            save_tensors(temporary / weights, tensors, metadata)
            (temporary / config_name).write_text(config, encoding="utf-8")
        _replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if temporary.is_file():
            temporary.unlink()
    count = sum(tensor.numel() for tensor in tensors.values())
    get_console().note(f"{count:,} numbers of {checkpoint}, {'last' if raw else 'averaged'} weights in {dtype}")
    get_console().result(output, {"path": str(output), "step": step_of(checkpoint), "dtype": dtype, "raw": raw})


def _replace(temporary: Path, output: Path) -> None:
    if output.is_dir() and not output.is_symlink():
        old = output.with_name(f"{output.name}.old")
        output.rename(old)
        temporary.rename(output)
        shutil.rmtree(old)
        return
    os.replace(temporary, output)
