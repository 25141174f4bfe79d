"""What can be rendered: the scenes, their attributes, and how the parameters of one clip are drawn.

This file holds words and numbers only; pictures are made in `renderer.py` and the scene files,
sentences in `captions.py`. It imports nothing heavy, so that captions can be written without torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SceneKind:
    """One kind of scene. `times` weighs the times of day; `attributes` lists the allowed values of each attribute."""

    times: Mapping[str, float]
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unusual: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values that nobody expects who does not ask for them, so that every caption tells them."""


#: name -> what may vary. The first value of each attribute is the one a bare prompt ("a waterfall") gets.
SCENES: dict[str, SceneKind] = {
    "waterfall": SceneKind(
        {"day": 4, "sunset": 2, "dawn": 1, "overcast": 1.5, "night": 1.5},
        {"rock": ("grey", "mossy", "red"), "width": ("narrow", "wide")},
    ),
    "ocean": SceneKind(
        {"day": 3, "sunset": 3, "dawn": 1, "overcast": 1, "night": 2},
        {"shore": ("open", "beach"), "waves": ("gentle", "rough")},
    ),
    "rain": SceneKind({"overcast": 3, "night": 3, "dawn": 1}, {"setting": ("lake", "forest", "city")}),
    "snow": SceneKind(
        {"day": 2, "overcast": 2, "dawn": 1, "sunset": 1, "night": 2},
        {"setting": ("pines", "cabin", "hills")},
    ),
    "fire": SceneKind(
        {"night": 1},
        {"colour": ("orange", "blue", "green"), "setting": ("campfire", "fireplace")},
        {"colour": ("blue", "green")},
    ),
    "clouds": SceneKind(
        {"day": 4, "sunset": 2, "dawn": 1, "overcast": 1},
        {"cover": ("scattered", "thick"), "ground": ("hills", "none")},
    ),
    "aurora": SceneKind({"night": 1}, {"colour": ("green", "purple", "teal", "pink", "none")}),
    "hills": SceneKind(
        {"sunset": 3, "dawn": 2, "day": 2},
        {"terrain": ("mountains", "green hills", "golden hills")},
    ),
    "fireworks": SceneKind(
        {"night": 1},
        {"colour": ("mixed", "red", "gold", "blue", "green", "purple"), "backdrop": ("city", "lake")},
    ),
    "ball": SceneKind(
        {"day": 1},
        {
            "colour": ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white"),
            "floor": ("wooden", "tiled", "grass", "blue"),
            "motion": ("bouncing", "rolling"),
        },
    ),
    "city": SceneKind({"night": 4, "sunset": 1.5, "day": 2, "overcast": 1}, {"traffic": ("busy", "quiet")}),
    "flowers": SceneKind(
        {"day": 3, "sunset": 1.5, "dawn": 1, "overcast": 1},
        {"colour": ("red", "yellow", "white", "purple", "pink", "orange")},
    ),
}

#: The camera words of the released Open-Sora models.
CAMERAS = ("static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out")


@dataclass(frozen=True)
class SceneParams:
    """Everything that decides one clip. The same parameters give the same pixels.

    seed: layout and noise. speed: multiplier of time, 1 is normal. camera: one of CAMERAS.
    camera_amplitude: travel of the camera in two seconds, in picture heights (log scale for zoom), 0.4 to 1.
    """

    scene: str
    seed: int
    time_of_day: str
    attributes: Mapping[str, str]
    speed: float = 1.0
    camera: str = "static"
    camera_amplitude: float = 0.0

    @property
    def is_photogenic(self) -> bool:
        """Whether a caption may be as bare as "a waterfall": nothing about the clip needs saying."""
        kind = SCENES[self.scene]
        plain = all(self.attributes[name] == values[0] for name, values in kind.attributes.items())
        is_usual_time = self.time_of_day == next(iter(kind.times))
        return plain and self.camera == "static" and 0.8 <= self.speed <= 1.25 and is_usual_time


def draw_params(rng: random.Random, scene: str | None = None, *, photogenic: float = 0.15) -> SceneParams:
    """Draw the parameters of one clip; `photogenic` is the share of clips made for bare prompts."""
    scene = scene or rng.choice(list(SCENES))
    kind = SCENES[scene]
    seed = rng.randrange(2**31)
    if rng.random() < photogenic:
        attributes = {name: values[0] for name, values in kind.attributes.items()}
        return SceneParams(scene, seed, next(iter(kind.times)), attributes, speed=rng.uniform(0.85, 1.2))
    attributes = {name: rng.choice(values) for name, values in kind.attributes.items()}
    time_of_day = rng.choices(list(kind.times), weights=list(kind.times.values()))[0]
    camera = "static" if rng.random() < 0.4 else rng.choice(CAMERAS[1:])
    amplitude = 0.0 if camera == "static" else rng.uniform(0.4, 0.9)
    speed = math.exp(rng.uniform(-0.6, 0.6))
    return SceneParams(scene, seed, time_of_day, attributes, speed, camera, amplitude)


def clip_params(seed: int, index: int, scenes: Sequence[str] = tuple(SCENES)) -> SceneParams:
    """The parameters of clip `index` of a set; they depend on the seed and the index only. The scenes take turns."""
    return draw_params(random.Random(f"{seed}-{index}"), scenes[index % len(scenes)])
