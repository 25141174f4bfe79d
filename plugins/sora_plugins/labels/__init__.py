"""Class labels in the place of text, for models that make pictures or videos of a class."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import TextEncoderSpec


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    """One encoder for each set of classes, and one for numbers alone. None has weights."""
    module, classes = "sora_plugins.labels.labels", "sora_plugins.labels.classes"
    return [
        TextEncoderSpec(
            name="imagenet-classes",
            summary="the 1000 classes of ImageNet, by number or name: 207 or golden retriever",
            target=f"{module}:load_imagenet",
            width=1,
            max_tokens=1,
            classes=f"{classes}:imagenet",
        ),
        TextEncoderSpec(
            name="ucf101-classes",
            summary="the 101 actions of UCF101, by number or name: 41 or HorseRiding",
            target=f"{module}:load_ucf101",
            width=1,
            max_tokens=1,
            classes=f"{classes}:ucf101",
        ),
        TextEncoderSpec(
            name="class-ids",
            aliases=("classes",),
            summary="classes of your own, by number",
            target=f"{module}:load_ids",
            width=1,
            max_tokens=1,
            classes=f"{classes}:numbers",
        ),
    ]
