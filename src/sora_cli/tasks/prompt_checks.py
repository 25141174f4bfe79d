"""Whether prompts, text encoders and autoencoders fit a model, looked at before anything is loaded. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError
from sora_cli.plugin.manager import load_attribute
from sora_cli.text.prompts import Prompt, split_segments
from sora_cli.text.scores import Scores

if TYPE_CHECKING:
    from sora_cli.config.schema import GenerateConfig
    from sora_cli.plugin.protocols import ClassNames

    from .chosen import Components


def check_classes(config: GenerateConfig, components: Components, prompts: Sequence[Prompt]) -> None:
    """Raise UsageError where the text encoder takes classes and a prompt names none, or is to become a longer text."""
    spec = components.text_encoder
    if spec.classes is None:
        return
    what = f"a prompt of {components.model.name} is the number or name of a class, not a text"
    if config.prompt.refine or config.prompt.refine_motion:
        raise UsageError(f"{what} that could be refined", hint="leave out --refine and --refine-motion")
    classes: ClassNames = load_attribute(spec.classes, what=spec.name)()
    conditioning = config.conditioning.model_dump(include=set(Scores._fields))
    for prompt in prompts:
        scores = {**conditioning, **{name: prompt.settings.get(name, conditioning[name]) for name in Scores._fields}}
        given = [f"--{name}" for name, value in scores.items() if value is not None]
        if given:
            raise UsageError(
                f"{what} that scores can be added to", hint=f"leave out {' and '.join(given)}, or choose another model"
            )
    texts = [part.text for prompt in prompts for part in split_segments(prompt.text)]
    for text in [*texts, *([config.prompt.negative] if config.prompt.negative else [])]:
        try:
            classes.class_of(text)
        except UsageError as error:
            see = f"`sora plugins show {spec.name}` lists the classes"
            hint = error.hint if classes.names is None else f"{error.hint}\n{see}"
            raise UsageError(error.message, hint=hint) from None


def check_text_width(components: Components, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError for a text encoder whose features the network cannot read.

    configs: of "model" and "text_encoder", as in a config.json; nothing is checked while one of them is not known.
    """
    model, encoder = components.model, components.text_encoder
    if model.text_width is None or not {"model", "text_encoder"} <= set(configs):
        return
    wanted = load_attribute(model.text_width, what=model.name)(configs["model"])
    width = encoder.width
    if encoder.width_of is not None:
        width = load_attribute(encoder.width_of, what=encoder.name)(configs["text_encoder"])
    if width == wanted:
        return
    reads, gives = (_features(each) for each in (wanted, width))
    raise UsageError(
        f"{model.name} reads {reads}, and the text encoder {encoder.name} gives {gives}",
        hint=f"the model's own is {model.text_encoder}; `sora plugins list --kind text-encoder` shows them all",
    )


def check_latents(components: Components, config: Mapping[str, Any]) -> None:
    """Raise UsageError for an autoencoder whose latents the network cannot read. config: of the network, {} unknown."""
    model, vae = components.model, components.vae
    wanted = config.get("in_channels", vae.latent_channels)
    if wanted != vae.latent_channels:
        raise UsageError(
            f"{model.name} makes latents of {wanted} channels, and {vae.name} reads {vae.latent_channels}",
            hint=f"the model's own is {model.vae}; `sora plugins list --kind vae` shows them all",
        )


def _features(width: int) -> str:
    return "numbers of classes" if width == 1 else f"texts of width {width}"
