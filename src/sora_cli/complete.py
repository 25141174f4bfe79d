"""What Tab offers: the words after `sora`, and the values of options. Imports nothing until a Tab asks for it.

The shell scripts of `sora completion` run `sora` with the words before the cursor as arguments and the unfinished
word, after an "=", in _SORA_COMPLETE; they read one "value<TAB>help" a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Value = tuple[str, str]

# The camera motions Open-Sora's captions were labelled with; any other words are accepted too.
CAMERA_MOTIONS = ("pan right", "pan left", "tilt up", "tilt down", "zoom in", "zoom out", "static")


def print_completions(words: Sequence[str], word: str) -> int:
    """Print what may stand in the place of the unfinished word; `word` is that word after an "="."""
    from .debug import is_debug

    try:
        for value, help_text in completions(words, word[1:]):
            print(f"{value}\t{help_text}" if help_text else value)
    except Exception:
        # There is no place for an error message inside a command line that is being typed.
        if is_debug():
            raise
        return 1
    return 0


def completions(words: Sequence[str], unfinished: str) -> list[Value]:
    """(value, help) for the word after `words` that starts with `unfinished`."""
    from typer._click.shell_completion import _resolve_context, _resolve_incomplete
    from typer.main import get_command

    from .app import app

    arguments = list(words)
    context = _resolve_context(get_command(app), {}, "sora", arguments)
    target, unfinished = _resolve_incomplete(context, arguments, unfinished)
    found = target.shell_complete(context, unfinished)
    # The default and the environment variable, after two spaces, are too long for a menu.
    return [(str(item.value), " ".join((item.help or "").partition("  (")[0].split())) for item in found]


def models(incomplete: str) -> list[Value]:
    """Model names."""
    return [("auto", "the best that fits this machine"), *_specs("model")]


def vaes(incomplete: str) -> list[Value]:
    """Video autoencoder names."""
    return _specs("vae")


def cutters(incomplete: str) -> list[Value]:
    """Scene detector names."""
    return [*_specs("cutter"), ("table", "the scenes that the table has")]


def scorers(incomplete: str) -> list[Value]:
    """Names of scores of clips."""
    return _specs("scorer")


def interpolators(incomplete: str) -> list[Value]:
    """Names of ways to make frames between frames."""
    return _specs("interpolator")


def upscalers(incomplete: str) -> list[Value]:
    """Names of ways to enlarge frames."""
    return _specs("upscaler")


def captioners(incomplete: str) -> list[Value]:
    """Captioner names."""
    return _specs("captioner")


def text_encoders(incomplete: str) -> list[Value]:
    """Text encoder names."""
    return _specs("text-encoder")


def discriminators(incomplete: str) -> list[Value]:
    """Discriminator names."""
    return _specs("discriminator")


def metrics(incomplete: str) -> list[Value]:
    """Names of quality measures."""
    return _specs("metric")


def measures(incomplete: str) -> list[Value]:
    """Names of quality measures and of scores of clips."""
    return [*_specs("metric"), *_specs("scorer")]


def scoring_backends(incomplete: str) -> list[Value]:
    """Ways to score by VBench."""
    return _specs("scoring-backend")


def schedulers(incomplete: str) -> list[Value]:
    """Scheduler names."""
    return _specs("scheduler")


def parallelism(incomplete: str) -> list[Value]:
    """Names of the ways to use several devices."""
    return _specs("parallelism")


def plugin_kinds(incomplete: str) -> list[Value]:
    """The kinds of things plugins add."""
    from .plugin.kinds import KINDS

    return [*((name, kind.many) for name, kind in KINDS.items()), ("command", "subcommands"), ("plugin", "plugins")]


def plugin_names(incomplete: str) -> list[Value]:
    """Names of everything that plugins add, of all kinds."""
    from .plugin.kinds import KINDS

    # A name that several kinds have is offered once, with the summary of the first kind.
    found: dict[str, Value] = {}
    for kind in KINDS:
        for value in _specs(kind):
            found.setdefault(value[0], value)
    return list(found.values())


def presets(incomplete: str) -> list[Value]:
    """Names for `--preset`."""
    return _presets("generate")


def train_presets(incomplete: str) -> list[Value]:
    """Names for `sora train --preset`."""
    return _presets("train")


def vae_presets(incomplete: str) -> list[Value]:
    """Recipes for `sora vae train`."""
    return _presets("vae")


def caption_prompts(incomplete: str) -> list[Value]:
    """Prompts for `sora data caption` and `sora data tag`."""
    return _presets("caption")


def human_plans(incomplete: str) -> list[Value]:
    """For the plan of `sora eval human`."""
    return _presets("human")


def all_presets(incomplete: str) -> list[Value]:
    """Names of presets of all kinds."""
    return _presets(None)


def preset_kinds(incomplete: str) -> list[Value]:
    """The kinds of presets."""
    from .presets import KINDS

    return _plain(KINDS)


def resolutions(incomplete: str) -> list[Value]:
    """Resolution names."""
    from .video.shapes import resolutions as table

    return _plain(table())


def durations(incomplete: str) -> list[Value]:
    """Duration names."""
    from .video.shapes import durations as table

    return [(name, f"{frames} frames") for name, frames in table().items()]


def aspect_ratios(incomplete: str) -> list[Value]:
    """Aspect ratios, width:height."""
    from .video.shapes import aspect_ratio_names

    return _plain(aspect_ratio_names())


def camera_motions(incomplete: str) -> list[Value]:
    """The camera motions that the models know."""
    return _plain(CAMERA_MOTIONS)


def attention_backends(incomplete: str) -> list[Value]:
    """Attention backends."""
    from .acceleration import ATTENTION_BACKENDS

    return _plain(ATTENTION_BACKENDS)


def _specs(kind: str) -> list[Value]:
    from .plugin.manager import get_plugins

    return [(spec.name, spec.summary) for spec in get_plugins().specs(kind).values()]


def _presets(kind: str | None) -> list[Value]:
    from .plugin.manager import get_plugins
    from .presets import list_presets

    return [(preset.name, preset.summary) for preset in list_presets(get_plugins()) if kind in (None, preset.kind)]


def _plain(names: Iterable[str]) -> list[Value]:
    return [(name, "") for name in names]
