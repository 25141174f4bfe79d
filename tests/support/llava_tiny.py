"""Tiny models with random weights that chat: one of the LLaVA kind, and one that knows text only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PAD, END, IMAGE = 0, 2, 4
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *map(chr, range(32, 127))]
SIZE, PATCH = 28, 14
TEMPLATE = """{% for m in messages %}USER: {% if m['content'] is string %}{{ m['content'] }}{% else %}\
{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}\
{% endif %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"""


def save_llava(folder: Path, *, template: str | None = TEMPLATE) -> None:
    """A model that sees pictures; one token is a letter."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=_text_config().to_dict(),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    _save(LlavaForConditionalGeneration(config), folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        _tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_qwen_vl(folder: Path) -> None:
    """A model that sees pictures and videos, whose processor needs torchvision; one token is a letter."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    words = [*WORDS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    start, end, image, video = range(len(WORDS), len(words))
    text = {
        **_text_config().to_dict(),
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH}
    config = Qwen2VLConfig(
        text_config={name: value for name, value in text.items() if name not in ("model_type", "architectures")},
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    _save(Qwen2VLForConditionalGeneration(config), folder)
    size = {"shortest_edge": 4 * SIZE * SIZE, "longest_edge": 16 * SIZE * SIZE}
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>").replace(
        "{% else %}{{ c['text'] }}",
        "{% elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}",
    )
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size, patch_size=PATCH),
        _tokenizer(words, image_token="<|image_pad|>", video_token="<|video_pad|>"),
        Qwen2VLVideoProcessor(size=size, patch_size=PATCH),
        chat_template=template,
    ).save_pretrained(folder)


def save_llama(folder: Path) -> None:
    """A language model of the same kind."""
    torch.manual_seed(0)
    _save(LlamaForCausalLM(_text_config()), folder)
    tokenizer = _tokenizer()
    tokenizer.chat_template = TEMPLATE
    # As in many models of this kind, whose batches people padded on the right.
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)


def _save(model: torch.nn.Module, folder: Path) -> None:
    model.generation_config.eos_token_id = END
    model.save_pretrained(folder)


def _text_config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(WORDS),
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=END,
    )


def _tokenizer(words: Sequence[str] = WORDS, **extra: str) -> PreTrainedTokenizerFast:
    letters = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", **extra},
    )
