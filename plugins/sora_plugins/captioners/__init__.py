"""Models that say what is seen in clips, for `sora data caption` and `sora data tag`."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import DataToolSpec


@hookimpl
def sora_captioners() -> list[DataToolSpec]:
    """Any OpenAI-compatible service, and models that transformers runs on this machine."""
    return [
        DataToolSpec(
            name="openai",
            summary="a model behind an OpenAI-compatible service",
            target="sora_plugins.captioners.service:load",
            options="sora_plugins.captioners.service:Options",
            column="text",
            is_remote=True,
            needs=("openai",),
        ),
        DataToolSpec(
            name="transformers",
            summary="a vision-language or language model on this machine",
            target="sora_plugins.captioners.local_model:load",
            options="sora_plugins.captioners.local_model:Options",
            column="text",
            is_network=True,
        ),
    ]
