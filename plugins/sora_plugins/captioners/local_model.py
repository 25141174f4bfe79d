"""Vision-language models (LLaVA and its relatives, Qwen-VL ...) and language models that transformers runs here.

Frames of a video are given as a video to models whose processor and chat template know videos (transformers needs
torchvision to load those), and as several pictures to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.protocols import CaptionAnswer, Captioner, CaptionQuestion


class Options(BaseModel):
    """Options of a model on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Those that change no answer by more than rounding.
    WITHOUT_EFFECT: ClassVar = ("batch_size", "device_map", "attention", "tensor_parallel")

    model: str = Field("", description="folder, hub id, or a GGUF file of a language model")
    revision: str = Field("main", description="branch, tag or commit of a hub id")
    batch_size: int = Field(8, ge=1, description="rows at a time")
    max_tokens: int = Field(300, ge=1, description="longest answer")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: as stored; on the CPU fp32")
    attention: str | None = Field(None, description="attention of transformers, such as sdpa or flash_attention_2")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one model; with --gpus a multiple of it")
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        None, description="lay layers of one model on all GPUs and the memory of the machine (package accelerate)"
    )


class LocalCaptioner:
    """Behind the interface of `sora_cli.plugin.protocols.Captioner`. processor: that of the model, or its tokenizer."""

    def __init__(self, model: Any, processor: Any, options: Options) -> None:
        self.model, self.processor, self.options = model, processor, options
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.takes_videos = getattr(processor, "video_processor", None) is not None and (
            "video" in str(processor.chat_template)
        )
        # A decoder goes on behind the last token, so blanks must come first.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.ends = _ends(model, self.tokenizer)

    def __call__(self, questions: Sequence[CaptionQuestion]) -> list[CaptionAnswer]:
        """The likeliest answers."""
        import torch

        takes_pictures = self.processor is not self.tokenizer
        if not takes_pictures and any(question.frames for question in questions):
            raise SoraError(f"{self.options.model} sees no pictures", hint="choose a vision-language model")
        asked = [self._conversation(question, takes_pictures=takes_pictures) for question in questions]
        # The frames are chosen already.
        own = {"do_sample_frames": False} if any(_has_video(conversation) for conversation in asked) else {}
        batch = self.processor.apply_chat_template(
            asked,
            add_generation_prompt=True,
            tokenize=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
            **own,
        )
        batch = batch.to(self.model.device, self.model.dtype) if takes_pictures else batch.to(self.model.device)
        with torch.inference_mode():
            tokens = self.model.generate(
                **batch,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.options.max_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        start = batch["input_ids"].shape[1]
        counts = batch["attention_mask"].sum(1).tolist()
        return [self._answer(row, count) for row, count in zip(tokens[:, start:].tolist(), counts, strict=True)]

    def _conversation(self, question: CaptionQuestion, *, takes_pictures: bool) -> list[dict[str, Any]]:
        """In the form of chat templates; those of language models take plain text."""
        if not takes_pictures:
            return [{"role": "user", "content": question.text}]
        import numpy as np
        from PIL import Image

        shown: list[dict[str, Any]]
        if self.takes_videos and len(question.frames) > 1:
            shown = [{"type": "video", "video": np.stack(question.frames)}]
        else:
            shown = [{"type": "image", "image": Image.fromarray(frame)} for frame in question.frames]
        return [{"role": "user", "content": [*shown, {"type": "text", "text": question.text}]}]

    def _answer(self, tokens: list[int], asked: int) -> CaptionAnswer:
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        count = len(tokens) if end is None else end + 1
        return CaptionAnswer(text, None, end is None, 1, asked, count)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer."""
    configured = model.generation_config.eos_token_id
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}


def _has_video(conversation: Sequence[Mapping[str, Any]]) -> bool:
    return any(part["type"] == "video" for turn in conversation for part in turn["content"] if isinstance(part, dict))


def load(weights: Mapping[str, Any], device: Any, options: Options | None) -> Captioner:
    """The model on this device and as many behind it as share it. Raises SoraError when it cannot be loaded."""
    options = options or Options()
    if not options.model:
        raise UsageError("which model is not said", hint="name a folder or a hub id with --model")
    if (options.tensor_parallel > 1 or options.device_map is not None) and find_spec("accelerate") is None:
        raise MissingError("several devices for one model need accelerate", hint="pip install 'sora-cli[data]'")
    if options.tensor_parallel == 1:
        return load_model(options, str(device))
    if options.device_map is not None:
        raise UsageError("device_map and tensor_parallel do not go together", hint="leave one of them out")
    from .tensor_parallel import lead

    return lead(options, str(device))


def load_model(options: Options, device: str) -> LocalCaptioner:
    """The model, or the part of this rank. Raises SoraError when it cannot be loaded or does not chat."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    source, own = _source(options)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **own)
        sees = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        processors = transformers.AutoProcessor if sees else transformers.AutoTokenizer
        processor = processors.from_pretrained(source, **own)
        model: Any = kind.from_pretrained(source, **own, **_placement(options, device))
    except ImportError as error:
        raise MissingError(f"{options.model} needs a package: {str(error).strip().splitlines()[0]}") from error
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SoraError(
            f"the model {options.model} cannot be loaded: {lines[0]}",
            hint="name a folder or a hub id of a model that transformers knows; code of models is never run",
        ) from error
    if getattr(processor, "chat_template", None) is None:
        raise SoraError(f"the model {options.model} has no chat template", hint="choose one that was tuned for chats")
    if options.device_map is None and options.tensor_parallel == 1:
        model = model.to(device)
    return LocalCaptioner(model.eval(), processor, options)


def _source(options: Options) -> tuple[str, dict[str, Any]]:
    """Where a model is, and arguments that go with that."""
    own: dict[str, Any] = {"trust_remote_code": False, "revision": options.revision}
    path = Path(options.model).expanduser()
    if path.suffix == ".gguf":
        return str(path.parent), {**own, "gguf_file": path.name}
    return (str(path) if path.is_dir() else options.model), own


def _placement(options: Options, device: str) -> dict[str, Any]:
    import torch

    dtypes = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    is_slow = options.dtype == "auto" and device == "cpu" and options.device_map is None
    given: dict[str, Any] = {"attn_implementation": options.attention, "device_map": options.device_map}
    if options.tensor_parallel > 1:
        from transformers.distributed import DistributedConfig

        given["distributed_config"] = DistributedConfig(tp_size=options.tensor_parallel)
    chosen = torch.float32 if is_slow else dtypes[options.dtype]
    return {"dtype": chosen, **{name: value for name, value in given.items() if value is not None}}
