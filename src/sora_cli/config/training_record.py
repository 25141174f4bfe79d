"""What weights say of their training, as settings of sampling; and what is asked of them that is not like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..redaction import redact
from ..weights.lora import split_scale
from ..weights.trained import trained_with
from .layers import Layer, first_value
from .settings import leaves

if TYPE_CHECKING:
    from ..plugin.specs import ModelSpec
    from .resolve import Plugins
    from .schema import GenerateConfig

#: How settings begin that are those of one scheduler.
SCHEDULER_DEPENDENT = ("sampling.scheduler_options.",)


def with_training(layers: list[Layer]) -> tuple[list[Layer], Layer | None]:
    """Below the layer that names weights, what they were trained with; and that layer, None where nothing tells of it.

    So the model need not be named, and the scheduler is that of training, unless as strong a layer says something else.
    """
    named = first_value(layers, "model.weights")
    values = trained_with(named.value) if named is not None and isinstance(named.value, str) else {}
    if named is None or not values:
        return layers, None
    layer = Layer(f"training of {redact(named.value)}", values)
    return [*layers[: named.level + 1], layer, *layers[named.level + 1 :]], layer


def without_equal_scheduler(layers: list[Layer], trained: Layer, model: ModelSpec, plugins: Plugins) -> list[Layer]:
    """Leave the choice of the scheduler to the model where its own samples what another one trained.

    So a network that iddpm trained is sampled by the quick dpm-solver, if that is what the model is sampled with; not
    where training changed the process that such a solver knows.
    """
    own = plugins.get("scheduler", model.scheduler)
    is_equal = own.trained_by == trained.values["sampling.scheduler"] and not any(
        name.startswith(SCHEDULER_DEPENDENT) for name in trained.values
    )
    return [layer.without(["sampling.scheduler"]) if layer is trained and is_equal else layer for layer in layers]


def unlike_training(config: GenerateConfig, model: ModelSpec, plugins: Plugins) -> list[str]:
    """What is asked of weights and adapters that is not as they were trained.

    Another scheduler may sample the same networks; options are compared where it is the same one.
    """
    asked = dict(leaves(config.model_dump(mode="json")))
    chosen = plugins.get("scheduler", str(config.sampling.scheduler))
    places, notes = [], []
    if config.model.weights is not None:
        places.append(config.model.weights)
    else:
        if not _are_same_latents(config.model.vae, model.vae, plugins):
            notes.append(f"model.vae is {config.model.vae}, but {model.name} was trained with {model.vae}")
        own = plugins.specs("scheduler").get(model.scheduler)  # another one may be installed in its place
        if own is not None and own.prediction != chosen.prediction:
            trained_by = own.trained_by or own.name
            notes.append(f"sampling.scheduler is {chosen.name}, but {model.name} was trained with {trained_by}")
    for place in (*places, *(str(split_scale(text)[0]) for text in config.model.lora)):
        trained = trained_with(place)
        for key, value in trained.items():
            is_like = asked.get(key) == value
            if key == "sampling.scheduler":
                spec = plugins.specs("scheduler").get(value)
                is_like = spec is not None and spec.prediction == chosen.prediction
            elif key == "model.vae":
                is_like = _are_same_latents(asked[key], value, plugins)
            elif key.startswith(SCHEDULER_DEPENDENT):
                is_like = is_like or trained["sampling.scheduler"] != chosen.name
            if not is_like:
                notes.append(f"{key} is {asked.get(key)}, but {redact(place)} was trained with {value}")
    return notes


def _are_same_latents(name: str | None, other: str, plugins: Plugins) -> bool:
    """Whether one autoencoder decodes the latents of the other."""
    kinds = {getattr(plugins.specs("vae").get(str(each)), "latents", "") or each for each in (name, other)}
    return len(kinds) == 1
