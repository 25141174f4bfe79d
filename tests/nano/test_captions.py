"""Captions say nothing that is not so, in the words and the form the command line uses."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from sora_cli.text.scores import Scores, append_scores
from sora_plugins.nano.scenes.captions import mirrored, motion_score, write_caption
from sora_plugins.nano.scenes.catalogue import CAMERAS, SCENES, SceneParams, clip_params, draw_params

Truth = Callable[[SceneParams], bool]
TAIL = re.compile(r" (aesthetic score|motion score|camera motion): ([a-z]+(?: [a-z]+)?|\d+\.\d)\.")


@pytest.fixture(scope="module")
def captions() -> list[tuple[SceneParams, str]]:
    """Three captions for each of 3000 clips."""
    rng = random.Random(5)
    drawn = [clip_params(9, index) for index in range(3000)]
    return [(params, write_caption(params, rng)) for params in drawn for _ in range(3)]


def is_(name: str, *values: str) -> Truth:
    return lambda params: params.attributes.get(name) in values


def at(*times: str) -> Truth:
    return lambda params: params.time_of_day in times


#: Scene ("" for all), words, and what must be so for a clip whose caption has them.
CLAIMS: list[tuple[str, str, Truth]] = [
    ("", r"\b(night|midnight|after dark)\b", at("night")),
    ("", r"\b(at sunset|at dusk|evening|sundown|golden hour)\b", at("sunset")),
    ("", r"\b(dawn|sunrise|daybreak)\b", at("dawn")),
    ("", r"\bovercast\b", at("overcast")),
    ("", r"\b(noon|midday|afternoon|daytime)\b", at("day")),
    ("", r"\b(slow motion|slowly|slowed down)\b", lambda params: params.speed < 0.8),
    ("", r"\b(fast motion|time-lapse|high speed|sped up|rapidly)\b", lambda params: params.speed > 1.25),
    ("", r"\bleft\b", lambda params: params.camera == "pan left"),
    ("", r"\bright\b", lambda params: params.camera == "pan right"),
    ("", r"\bzoom(s|ing)?[ -]in\b", lambda params: params.camera == "zoom in"),
    ("", r"\bzoom(s|ing)?[ -]out\b", lambda params: params.camera == "zoom out"),
    ("", r"\btilt(s|ing)? up", lambda params: params.camera == "tilt up"),
    ("", r"\btilt(s|ing)? down", lambda params: params.camera == "tilt down"),
    ("", r"\b(still|fixed|static) camera\b|\btripod\b", lambda params: params.camera == "static"),
    ("waterfall", r"\b(moss|mossy)\b", is_("rock", "mossy")),
    ("waterfall", r"\b(reddish|sandstone)\b", is_("rock", "red")),
    ("waterfall", r"\b(narrow|slender|ribbon)\b", is_("width", "narrow")),
    ("waterfall", r"\b(huge|mighty|curtain)\b", is_("width", "wide")),
    ("ocean", r"\b(beach|sandy|seaside)\b", is_("shore", "beach")),
    ("ocean", r"\b(rough|stormy|choppy|huge)\b", is_("waves", "rough")),
    ("ocean", r"\b(calm|peaceful|gentle)\b", is_("waves", "gentle")),
    ("rain", r"\b(lake|pond)\b", is_("setting", "lake")),
    ("rain", r"\b(forest|woods)\b", is_("setting", "forest")),
    ("rain", r"\b(city|town|street)\b", is_("setting", "city")),
    ("snow", r"\b(cabin|hut|cottage)\b", is_("setting", "cabin")),
    ("snow", r"\b(pines|pine|fir)\b", is_("setting", "pines")),
    ("fire", r"\bblue\b", is_("colour", "blue")),
    ("fire", r"\b(green|emerald)\b", is_("colour", "green")),
    ("fire", r"\b(fireplace|hearth|indoors)\b", is_("setting", "fireplace")),
    ("fire", r"\b(campfire|bonfire|outdoors)\b", is_("setting", "campfire")),
    ("aurora", r"\b(purple|violet)\b", is_("colour", "purple")),
    ("aurora", r"\b(pink|magenta)\b", is_("colour", "pink")),
    ("aurora", r"\b(aurora|northern lights|polar lights)\b", lambda params: params.attributes["colour"] != "none"),
    ("aurora", r"\b(constellations|stargazing|galaxy)\b", is_("colour", "none")),
    ("hills", r"\b(mountains|peaks|alpine)\b", is_("terrain", "mountains")),
    ("hills", r"\bgreen\b", is_("terrain", "green hills")),
    ("fireworks", r"\b(red|crimson)\b", is_("colour", "red")),
    ("fireworks", r"\b(lake|reflections)\b", is_("backdrop", "lake")),
    ("ball", r"\byellow\b", is_("colour", "yellow")),
    ("ball", r"\b(pink|purple|violet|orange|red)\b", is_("colour", "pink", "purple", "orange", "red")),
    ("ball", r"\b(tiled|tiles|checkered)\b", is_("floor", "tiled")),
    ("ball", r"\b(lawn|grass|meadow)\b", is_("floor", "grass")),
    ("ball", r"\b(bouncing|bounces|hops)\b", is_("motion", "bouncing")),
    ("ball", r"\b(rolling|rolls)\b", is_("motion", "rolling")),
    ("city", r"\b(rush hour|bustling|heavy)\b", is_("traffic", "busy")),
    ("city", r"\b(quiet|sleepy|hardly any)\b", is_("traffic", "quiet")),
    ("flowers", r"\bsunflowers\b", is_("colour", "yellow")),
    ("flowers", r"\blavender\b", is_("colour", "purple")),
    ("flowers", r"\bdaisies\b", is_("colour", "white")),
]


@pytest.mark.parametrize(("scene", "words", "is_so"), CLAIMS, ids=[f"{scene}:{words}" for scene, words, _ in CLAIMS])
def test_a_claim_is_true(captions: list[tuple[SceneParams, str]], scene: str, words: str, is_so: Truth) -> None:
    claims = [
        (params, text)
        for params, text in captions
        if scene in ("", params.scene) and re.search(words, TAIL.sub("", text))
    ]
    assert claims, "no caption says so: this test would check nothing"
    false = [(text, params) for params, text in claims if not is_so(params)]
    assert not false, false[:3]


def test_captions_are_tidy(captions: list[tuple[SceneParams, str]]) -> None:
    for _, text in captions:
        assert text == text.strip().lower()
        assert not re.search(r"[{}|\[\]]|  | [,.]|[,.]{2}|,\.|\ba [aeiou]", text), text


def test_tails_are_what_the_command_line_appends(captions: list[tuple[SceneParams, str]]) -> None:
    seen = set()
    for params, text in captions:
        tails = dict(TAIL.findall(text))
        seen |= tails.keys()
        body = TAIL.sub("", text)
        scores = Scores(
            aes=float(tails["aesthetic score"]) if "aesthetic score" in tails else None,
            motion=motion_score(params) if "motion score" in tails else None,
            camera=params.camera if "camera motion" in tails else None,
        )
        assert text == append_scores(body, scores)
        assert scores.aes is None or 5.5 <= scores.aes <= 7.0
    assert seen == {"aesthetic score", "motion score", "camera motion"}


def test_motion_score_grows_with_what_moves() -> None:
    still = draw_params(random.Random(1), "city", photogenic=1)
    assert motion_score(replace(still, speed=1.0)) == 4.5
    assert motion_score(replace(still, speed=1.5)) > motion_score(replace(still, speed=1.0))
    assert motion_score(replace(still, camera="pan left", camera_amplitude=0.5)) > motion_score(still)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_flipped_clip_pans_the_other_way(camera: str) -> None:
    swap = {"left": "right", "right": "left"}
    params = replace(draw_params(random.Random(2), "hills"), camera=camera, camera_amplitude=0.5)
    flipped = mirrored(params)
    assert mirrored(flipped) == params
    assert flipped.camera == " ".join(swap.get(word, word) for word in camera.split())
    for index in range(200):
        ours, theirs = (write_caption(clip, random.Random(index)) for clip in (params, flipped))
        # The two word lists are written alike, so the same random choices give mirrored sentences.
        assert theirs == re.sub("left|right", lambda match: swap[match[0]], ours)


@pytest.mark.parametrize(
    ("scene", "prompt"),
    [
        ("waterfall", "a waterfall"),
        ("ocean", "the ocean"),
        ("rain", "rain"),
        ("snow", "snow"),
        ("fire", "fire"),
        ("clouds", "clouds"),
        ("aurora", "aurora borealis"),
        ("hills", "a sunset"),
        ("fireworks", "fireworks"),
        ("ball", "a red ball"),
        ("city", "a city"),
        ("flowers", "flowers"),
    ],
)
def test_plain_clips_get_prompts_as_short_as_people_type(scene: str, prompt: str) -> None:
    params = draw_params(random.Random(3), scene, photogenic=1)
    assert params.is_photogenic
    written = {TAIL.sub("", write_caption(params, random.Random(index))).rstrip(".") for index in range(400)}
    assert prompt in written


def test_clips_that_need_words_never_get_less_than_a_subject() -> None:
    moving = replace(draw_params(random.Random(4), "ball"), camera="zoom in", camera_amplitude=0.6)
    assert not moving.is_photogenic
    assert all(len(write_caption(moving, random.Random(index))) > 3 for index in range(200))


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_what_nobody_expects_is_always_told(colour: str) -> None:
    """Otherwise a campfire without a colour would be green in one of three clips."""
    blue = "blue|bluish|azure|sapphire|cobalt|indigo|gas|propane|methane"
    words = {"blue": blue, "green": "green|emerald|jade"}[colour]
    for seed in range(300):
        attributes = {"colour": colour, "setting": ("campfire", "fireplace")[seed % 2]}
        params = SceneParams("fire", seed, "night", attributes)
        assert re.search(words, write_caption(params, random.Random(seed)))


def test_captions_use_no_state_but_their_generator() -> None:
    params = clip_params(1, 4)
    random.seed(1)
    first = write_caption(params, random.Random(8))
    random.seed(2)
    assert write_caption(params, random.Random(8)) == first
    assert len({write_caption(params, random.Random(index)) for index in range(100)}) > 60


def test_every_scene_has_words() -> None:
    for scene in SCENES:
        for index in range(30):
            assert write_caption(draw_params(random.Random(index), scene), random.Random(index))
