"""Captions for rendered clips: a new random sentence each time, always true for the clip's parameters.

The words and their template language are in `caption_words.txt`, those people are likely to type for these scenes, and
`rare_words.txt`, so that the word table of the text encoder has less to guess. Nothing but the camera words may mention
a side, so that a clip can be flipped by `mirrored`. Templates write the article "a"; "an" is put in afterwards.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

from .catalogue import SCENES, SceneParams

WORD_FILES = ("caption_words.txt", "rare_words.txt")
#: How many of the longer captions have a subject in rare words.
RARE_SHARE = 0.3
_INNER = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"\[(\w+)\]")
_ARTICLE = re.compile(r"\ba (?=[aeiou])")
#: A phrase that starts like this may follow without a comma.
_PREPOSITION = re.compile(
    "(with|in|on|at|over|under|by|between|above|near|during|as|after|before|from|around|among|out|of|without) "
)
#: What a clip's speed, and a picture height of camera travel, add to its motion score.
SPEED_SCORE, TRAVEL_SCORE = 4.5, 1.5
_MIRROR = {"pan left": "pan right", "pan right": "pan left"}


def motion_score(params: SceneParams) -> float:
    """How much the picture moves: 4.5 x speed + 1.5 x camera travel in picture heights.

    A clip of speed 1 scores 4.5 with a still camera and 5.1 to 5.9 with a moving one, so 5 is the middle;
    the whole range is about 2.5 to 9.5.
    """
    return SPEED_SCORE * params.speed + TRAVEL_SCORE * params.camera_amplitude


def mirrored(params: SceneParams) -> SceneParams:
    """The parameters that describe the horizontally flipped clip: only pan left and pan right change places.

    They are for captions; rendering them gives another clip, not the flipped one.
    """
    return replace(params, camera=_MIRROR.get(params.camera, params.camera))


def write_caption(params: SceneParams, rng: random.Random) -> str:
    """Write a new random caption for a clip. Uses no state but `rng`."""
    if params.is_photogenic and rng.random() < 0.6:
        text = _tidy(_pick(f"bare {params.scene}", rng)) + rng.choice((".", ""))
        return text + (f" aesthetic score: {_aesthetic(rng):.1f}." if rng.random() < 0.5 else "")
    draw = rng.random()
    camera = "tail" if draw < 0.45 else "sentence" if draw < 0.75 else "nothing"
    if params.camera == "static":
        camera = "nothing" if draw < 0.5 else "tail" if draw < 0.75 else "sentence"
    return _body(params, rng, camera == "sentence") + _tails(params, rng, camera == "tail")


def _body(params: SceneParams, rng: random.Random, with_camera: bool) -> str:
    """The part before the score tails: subject, phrases, and perhaps a sentence about the camera."""
    subject, told = _subject(params, rng)
    # Some people type no more than the subject; that must be enough to get the scene.
    is_short = rng.random() < 0.12 and not _untold(params, told)
    phrases = [] if is_short else _phrases(params, rng, told)
    camera_leads = with_camera and rng.random() < 0.2
    if camera_leads:
        subject = f"{_pick(f'camera lead {params.camera}', rng)} {subject}"
    elif rng.random() < 0.3:
        subject = f"{_pick('lead', rng)} {subject}"
    text, rest = subject, ""
    for phrase in phrases:
        if rng.random() < 0.25:
            text = f"{phrase}, {text}"
        elif _PREPOSITION.match(phrase) and rng.random() < 0.6:
            rest += f" {phrase}"
        else:
            rest += rng.choice((", ", ", ", ", ", ". ")) + phrase
    text += rest
    if with_camera and not camera_leads:
        sentence = _pick(f"camera sentence {params.camera}", rng)
        joint = rng.choice((". ", ". ", ", "))
        text = f"{sentence}{joint}{text}" if rng.random() < 0.2 else f"{text}{joint}{sentence}"
    return _tidy(text) + ("." if rng.random() < 0.8 else "")


def _subject(params: SceneParams, rng: random.Random) -> tuple[str, set[str]]:
    """What the clip shows, and the attributes ("time" among them) that this already tells."""
    values = {"time": params.time_of_day, **params.attributes}
    kind = "rare" if rng.random() < RARE_SHARE else "subject"
    rules = [rule for rule in _rules(kind, params.scene) if _holds(rule, values)]
    # General subjects twice as often as those that give an attribute away.
    rule = rng.choices(rules, weights=[1 if _told(rule) else 2 for rule in rules])[0]
    told = _told(rule)
    template = _pick(f"{kind} {params.scene} {rule}".strip(), rng)

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        section = f"adjective {params.scene} {name}={params.attributes[name]}"
        if name in told or section not in _words() or rng.random() > 0.55:
            return ""
        told.add(name)
        return _pick(section, rng)

    return _SLOT.sub(fill, template), told


def _phrases(params: SceneParams, rng: random.Random, told: set[str]) -> list[str]:
    """The optional phrases in random order: attributes not told yet, time of day, speed, decoration."""
    sections = []
    for name, value in params.attributes.items():
        section = f"phrase {params.scene} {name}={value}"
        if name in told or section not in _words():
            continue
        if rng.random() < 0.65 or name in _untold(params, told):
            sections.append(section)
    # A scene that exists at one time of day only does not need to say so as often.
    if "time" not in told and rng.random() < (0.75 if len(SCENES[params.scene].times) > 1 else 0.35):
        sections.append(_time_section(params))
    pace = "slow" if params.speed < 0.8 else "fast" if params.speed > 1.25 else "normal"
    if rng.random() < (0.1 if pace == "normal" else 0.7):
        sections.append(f"speed {pace}")
    if rng.random() < 0.12:
        sections.append("decoration")
    rng.shuffle(sections)
    return [_pick(section, rng) for section in sections]


def _untold(params: SceneParams, told: set[str]) -> set[str]:
    """The attributes with an unusual value that is not told yet."""
    unusual = SCENES[params.scene].unusual
    return {name for name, values in unusual.items() if params.attributes[name] in values} - told


def _time_section(params: SceneParams) -> str:
    """Where the words for the time of day are; those about the sky are kept from scenes where they would be wrong."""
    if params.scene == "fire":
        return "time dark"
    if params.time_of_day == "day" and params.scene in ("clouds", "snow", "ball"):
        return "time plain day"
    return f"time {params.time_of_day}"


def _tails(params: SceneParams, rng: random.Random, with_camera: bool) -> str:
    """Score phrases as the command line appends them: aesthetic, motion, camera."""
    tails = f" aesthetic score: {_aesthetic(rng):.1f}." if rng.random() < 0.5 else ""
    tails += f" motion score: {motion_score(params):.1f}." if rng.random() < 0.4 else ""
    return tails + (f" camera motion: {params.camera}." if with_camera else "")


def _aesthetic(rng: random.Random) -> float:
    """All clips are equally good, so the score only has to be familiar: 6.5 mostly, else 5.5 to 7."""
    return 6.5 if rng.random() < 0.6 else rng.uniform(5.5, 7.0)


def _told(rule: str) -> set[str]:
    """The attributes whose value a rule fixes."""
    return {part.split("=")[0] for part in rule.split(",") if "=" in part and "!=" not in part}


def _holds(rule: str, values: Mapping[str, str]) -> bool:
    """Whether a rule such as "time=night,setting!=city" holds; the empty rule always does."""
    for part in filter(None, rule.split(",")):
        name, value = part.replace("!=", "=").split("=")
        if (values[name] == value) == ("!=" in part):
            return False
    return True


@cache
def _words() -> Mapping[str, Sequence[str]]:
    """Section name -> templates, from the files of words."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    texts = [(files(__package__) / name).read_text(encoding="utf-8") for name in WORD_FILES]
    for line in "\n".join(texts).splitlines():
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        elif line and not line.startswith("#"):
            current += line.split(" / ")
    return sections


@cache
def _rules(kind: str, scene: str) -> Sequence[str]:
    """The rules under which the files have subjects of a kind for a scene; "" is the one without a rule."""
    head = f"{kind} {scene}"
    return [section[len(head) :].strip() for section in _words() if section.split()[:2] == head.split()]


def _pick(section: str, rng: random.Random) -> str:
    """A random template of a section with its alternatives picked, innermost first."""
    template = rng.choice(_words()[section])
    while "{" in template:
        template = _INNER.sub(lambda match: rng.choice(match[1].split("|")), template)
    return template


def _tidy(text: str) -> str:
    """Single spaces, no space before punctuation, "an" before a vowel."""
    text = re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", text)).strip()
    return _ARTICLE.sub("an ", text)
