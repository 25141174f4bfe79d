"""What is said and refused about pictures and videos before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sora_cli.conditioning.loops import Loop
from sora_cli.conditioning.mask_strategy import parse_strategy
from sora_cli.conditioning.references import Extension, Given
from sora_cli.config.resolve import Resolved
from sora_cli.config.schema import ConditioningSection, GenerateConfig, ShapeSection
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import Constraints, TrainedSize
from sora_cli.tasks.given_checks import check_length, unused_settings
from sora_cli.video.shapes import resolve_shape, with_frames


def notes_of(given=(), origins=None, segments=1, **conditioning):
    shape = ShapeSection(segments=segments)
    config = GenerateConfig(conditioning=ConditioningSection(**conditioning), shape=shape)
    return unused_settings(Resolved(config, origins or {}), list(given))


def test_settings_without_effect_are_said():
    assert notes_of() == []
    assert notes_of(backward=True) == ["--backward has no effect without --extend"]
    assert notes_of(overlap=5) == ["--overlap has no effect without --segments or a video that goes on"]
    assert notes_of([Given()], connect=("a.png", "b.png"), overlap=5), "pictures have no overlap"
    assert notes_of(overlap_strength=0.2) == ["--overlap-strength has no effect without --segments"]
    assert notes_of(overlap=5, overlap_from="frames", segments=2) == []
    assert notes_of(strength=0.4) == ["--strength has no effect without --edit"]
    assert notes_of(strength=0.5, origins={"conditioning.strength": "flag"}), "also when it is the default"
    assert notes_of(strength=0.5, origins={"conditioning.strength": "--from"}) == []
    assert notes_of(align=5, origins={"conditioning.align": "model opensora-v1.2"}) == []
    assert notes_of(align=5) == ["--align has no effect without --reference and --mask-strategy"]
    assert notes_of([Given(), Given(groups=parse_strategy("0"))], align=5) == []
    going_on = [Given(extension=Extension(Path("a.mp4"), "", 5, 28, 33))]
    assert notes_of(going_on, extend="a.mp4", backward=True, overlap=5) == []
    assert notes_of(going_on, connect=("a.mp4", "b.mp4"), overlap=5) == []
    assert notes_of(edit="a.mp4", strength=0.4) == []


def test_lengths_of_whole_pieces():
    vae = get_plugins().get("vae", "nano")
    loop, asked = Loop(48, 49, 1, 1), ShapeSection(duration="2s")
    assert check_length(asked, 48, vae, None, loop) == []
    assert check_length(asked, 51, vae, None, loop) == [
        "a loop is whole pieces of 4 frames, so it has 48 instead of 51"
    ]
    with pytest.raises(UsageError) as caught:
        check_length(ShapeSection(frames=51), 51, vae, None, loop)
    assert caught.value.hint == "near it: --frames 48 or 52"
    between = Extension(None, "", 17, 28, 61)
    with pytest.raises(UsageError) as caught:
        check_length(ShapeSection(frames=25), 25, vae, between, None)
    assert caught.value.hint == "near it: --frames 24 or 28"
    assert check_length(asked, 51, vae, None, None) == []


def test_notes_are_about_the_frames_that_are_sampled():
    """What a video that goes on adds to its overlap may be more than the model was trained on."""
    constraints = Constraints(trained_sizes=(TrainedSize("144p", 51),))
    section = ShapeSection(resolution="144p", frames=51)
    clip = resolve_shape(section, constraints, 24.0)
    assert clip.notes == ()
    longer = with_frames(clip, 68, section, constraints)
    assert longer.num_frames == 68
    assert "68 frames, is beyond" in longer.notes[0]
    assert with_frames(longer, 51, section, constraints) == dataclasses.replace(clip, notes=())
