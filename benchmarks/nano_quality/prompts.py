"""What nano is asked for: wordings that no training caption has, and questions about camera, colour and motion."""

from __future__ import annotations

from dataclasses import dataclass

from sora_plugins.nano.scenes.catalogue import CAMERAS, SCENES

#: Scene -> wordings with words that training captions never use, beside bare ones as people type them.
HELD_OUT = {
    "waterfall": (
        "a tall cataract",
        "a torrent plunging into a gorge",
        "whitewater thundering down a precipice",
        "a stream spilling off a ledge into a basin",
        "a hidden chute of water behind ferns",
    ),
    "ocean": (
        "the pacific coastline",
        "swell out at sea under a bright horizon",
        "breakers and surf at dusk",
        "saltwater ripples, maritime view",
        "a seascape in the evening",
    ),
    "rain": (
        "a drizzle falling on a pond",
        "a monsoon downpour",
        "it is pouring outside, puddles everywhere",
        "a gloomy wet afternoon with showers",
        "raindrops hitting a marsh",
    ),
    "snow": (
        "a blizzard in the arctic",
        "a frosty december afternoon with flurries",
        "snowflakes drifting past firs",
        "powdery flakes in a frozen valley",
        "a wintry landscape, christmas mood",
    ),
    "fire": (
        "a bonfire crackling",
        "flames licking at logs",
        "an inferno in the dark",
        "burning embers in a hearth",
        "a blazing pyre at midnight",
    ),
    "clouds": (
        "cumulus drifting overhead",
        "fluffy puffs in the heavens",
        "cloudscape timelapse",
        "billowing vapour in the atmosphere",
        "a hazy firmament with cirrus",
    ),
    "aurora": (
        "northern lights",
        "aurora borealis over a fjord",
        "polar lights in lapland",
        "ribbons of light in an arctic night",
        "a starry sky with glowing curtains",
    ),
    "hills": (
        "sundown behind a ridge",
        "alpine peaks at daybreak",
        "the sun rising over highlands",
        "a mountainous skyline in the evening",
        "rolling countryside in warm light",
    ),
    "fireworks": (
        "new year pyrotechnics",
        "rockets exploding in the sky",
        "a festive firecracker show",
        "colourful explosions at midnight on independence day",
        "sparkling bursts during a celebration",
    ),
    "ball": (
        "a rubber ball hopping",
        "a beach ball on the ground",
        "a toy sphere rebounding",
        "a basketball bouncing indoors",
        "a round orb rolling along",
    ),
    "city": (
        "downtown traffic",
        "skyscrapers and automobiles after dark",
        "a metropolis boulevard with vehicles",
        "manhattan avenue, rush hour",
        "an urban road with taxis",
    ),
    "flowers": (
        "a field of tulips",
        "daisies swaying in a garden",
        "a prairie in bloom",
        "poppies in the grass",
        "blossoms in spring, botanical",
    ),
}
#: Scene -> colour -> prompt.
COLOURS = {
    "aurora": ("{} northern lights", ("green", "purple", "teal", "pink")),
    "fire": ("a {} fire burning", ("orange", "blue", "green")),
    "fireworks": ("{} fireworks over a city", ("red", "gold", "blue", "green", "purple")),
    "ball": ("a {} ball bouncing", ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white")),
    "flowers": ("a meadow of {} flowers", ("red", "yellow", "white", "purple", "pink", "orange")),
}
#: Scene -> prompt; the scenes whose whole picture follows the camera.
CAMERA_SCENES = {
    "waterfall": "a waterfall",
    "ocean": "ocean waves",
    "snow": "snow falling on pine trees",
    "clouds": "clouds in the sky",
    "hills": "sunset over the mountains",
    "city": "a busy city street at night",
    "flowers": "a meadow of flowers",
    "aurora": "northern lights over a lake",
}


@dataclass(frozen=True)
class Question:
    """One clip to make. kind: "scene", "camera" or "colour"; answer: what is right."""

    kind: str
    scene: str
    prompt: str
    answer: str


def questions() -> list[Question]:
    """All of them, in order."""
    assert HELD_OUT.keys() == SCENES.keys()
    found = [Question("scene", scene, prompt, scene) for scene, prompts in HELD_OUT.items() for prompt in prompts]
    for scene, prompt in CAMERA_SCENES.items():
        for camera in CAMERAS[1:]:
            found.append(Question("camera", scene, f"{prompt}. camera motion: {camera}.", camera))
    for scene, (template, colours) in COLOURS.items():
        found += [Question("colour", scene, template.format(colour), colour) for colour in colours]
    return found


def unseen_words(prompt: str, seen: set[str]) -> list[str]:
    """Words of a prompt that no training caption has."""
    words = "".join(letter if letter.isalpha() else " " for letter in prompt.lower()).split()
    return [word for word in words if word not in seen]
