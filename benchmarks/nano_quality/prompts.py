"""What nano is asked for: wordings that no training caption has, and questions about camera, colour and motion."""

from __future__ import annotations

from dataclasses import dataclass

from sora_plugins.nano.scenes.catalogue import CAMERAS, SCENES

#: Scene -> a bare wording as people type it, and four with words that no training caption has.
HELD_OUT = {
    "waterfall": (
        "a tall cataract",
        "a torrent plunging into a gorge",
        "whitewater thundering down a precipice",
        "a hidden chute of water behind ferns",
        "a brook gushing over a boulder",
    ),
    "ocean": (
        "a seascape",
        "the atlantic, tidal swell",
        "saltwater ripples, maritime view",
        "waves seen from a yacht",
        "nautical scenery with rollers",
    ),
    "rain": (
        "a monsoon downpour",
        "a drizzle falling on a pond",
        "it is pouring outside, puddles everywhere",
        "raindrops hitting a marsh",
        "a cloudburst, soaked and miserable weather",
    ),
    "snow": (
        "a blizzard",
        "a frosty december afternoon with flurries",
        "snowflakes drifting past firs",
        "powdery flakes in siberia",
        "a snowstorm at christmas in canada",
    ),
    "fire": (
        "a bonfire",
        "a blazing pyre at midnight",
        "an inferno of scorching flames",
        "combustion: burning twigs",
        "kindling ablaze, roaring heat",
    ),
    "clouds": (
        "fluffy clouds",
        "cumulus drifting overhead",
        "cloudscape timelapse, stratus",
        "billowing vapour in the atmosphere",
        "a hazy firmament with cirrus",
    ),
    "aurora": (
        "northern lights",
        "aurora borealis over a fjord",
        "polar lights in lapland",
        "celestial ribbons shimmering over scandinavia",
        "geomagnetic glow in an alaskan night",
    ),
    "hills": (
        "sunset over mountains",
        "sundown behind a ridge",
        "the sun rising over highlands",
        "an appalachian vista at nightfall",
        "a panorama of the andes at twilight, silhouettes",
    ),
    "fireworks": (
        "fireworks",
        "a festive firecracker show",
        "pyrotechnics for the carnival",
        "skyrockets detonating above the crowd",
        "a birthday salute of exploding shells",
    ),
    "ball": (
        "a bouncing ball",
        "a toy sphere rebounding",
        "a dribbling football",
        "a squishy balloon-like ball leaping",
        "a marble orb trundling",
    ),
    "city": (
        "a city street",
        "manhattan avenue, rush hour",
        "tokyo crossroads with pedestrians",
        "chicago skyscrapers and commuters",
        "gridlock on an expressway between towers",
    ),
    "flowers": (
        "a flower meadow",
        "blossoms in april, botanical",
        "a florist's dream: peonies and lilies",
        "hyacinths and marigolds",
        "petunias sprouting in a pasture",
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
#: Scene -> prompt; what moves by itself.
MOTION_SCENES = {
    **CAMERA_SCENES,
    "rain": "rain on a lake",
    "fire": "a campfire at night",
    "fireworks": "fireworks over a city",
    "ball": "a red ball bouncing",
}
#: Motion scores to compare.
SLOW, FAST = 3.0, 8.0


@dataclass(frozen=True)
class Question:
    """One clip to make. kind: "scene", "camera", "colour" or "motion"; answer: what is right."""

    kind: str
    scene: str
    prompt: str
    answer: str


def questions(quick: bool = False) -> list[Question]:
    """All of them, in order, or a quarter."""
    part = slice(None, None, 4 if quick else 1)
    assert HELD_OUT.keys() == SCENES.keys()
    found = [Question("scene", scene, prompt, scene) for scene, prompts in HELD_OUT.items() for prompt in prompts]
    for scene, prompt in CAMERA_SCENES.items():
        for camera in CAMERAS[1:]:
            found.append(Question("camera", scene, f"{prompt}. camera motion: {camera}.", camera))
    for scene, (template, colours) in COLOURS.items():
        found += [Question("colour", scene, template.format(colour), colour) for colour in colours]
    found = found[part]
    for scene, prompt in list(MOTION_SCENES.items())[part]:
        found += [Question("motion", scene, f"{prompt}. motion score: {score}.", str(score)) for score in (SLOW, FAST)]
    return found


def unseen_words(prompt: str, seen: set[str]) -> list[str]:
    """Words of a prompt that no training caption has."""
    words = "".join(letter if letter.isalpha() else " " for letter in prompt.lower()).split()
    return [word for word in words if word not in seen]
