"""How good nano's clips are: scenes, camera, colours, motion, flicker, blocks, seams, variety; without any download.

    python benchmarks/nano_quality -o outputs/nano-quality [--weights RUN] [--quick] [--json FILE]

Clips are made with `sora generate`, compared with renders that nano was not trained on, and judged by a network that
is trained here on other renders. Rows "renders" are the same measure of real renders: the best that can be expected.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import classifier
import measures
import numpy as np
import torch
from clips import Clip, Rendered, contact_sheet, generated, reconstructed, rendered, retold
from prompts import COLOURS, FAST, HELD_OUT, MOTION_SCENES, SLOW, Question, questions, unseen_words

from sora_plugins.nano.scenes.captions import SPEED_SCORE
from sora_plugins.nano.scenes.catalogue import SCENES, clip_params, draw_params
from sora_plugins.nano.scenes.renderer import render

SCENE_NAMES = list(SCENES)
#: Seeds of the sets of renders.
TRAIN_SEED, TEST_SEED, OTHER_SEED = 101, 102, 103
#: What nano was trained on: seed, number of clips, and scenes that take turns.
TRAINING_SETS = (
    (1, 1764, SCENE_NAMES),
    (3, 1400, SCENE_NAMES),
    (5, 1600, SCENE_NAMES),
    (7, 900, ("ball", "ball", "ball", "city", "fireworks", "snow")),
    (8, 900, ("ball",)),
    (900, 968, SCENE_NAMES),
    (901, 1936, SCENE_NAMES),
    *((902 + index, count, SCENE_NAMES) for index, count in enumerate((44, 88, 33, 66, 33, 66, 22, 44))),
    (910, 160, ("ball",)),
    (911, 9000, SCENE_NAMES),
    (912, 1500, ("hills",)),
    (913, 120, ("hills",)),
)
#: How many times the change of a slow clip a fast one has to have.
CLEARLY = 1.2
Row = dict[str, Any]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/nano-quality"))
    parser.add_argument("--weights", help="weights of the diffusion model, default those in the package")
    parser.add_argument("--vae-weights", help="weights of the autoencoder, default those in the package")
    parser.add_argument("--quick", action="store_true", help="fewer renders and prompts, for trying it out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, folder = time.perf_counter(), arguments.output
    per_scene = 3 if arguments.quick else 12
    train = rendered(folder / "train", len(SCENES) * (8 if arguments.quick else 40), TRAIN_SEED)
    test = rendered(folder / "test", len(SCENES) * per_scene, TEST_SEED)
    other = rendered(folder / "other", len(SCENES) * per_scene, OTHER_SEED)
    asked = questions(arguments.quick)
    options = [text for name in ("weights", "vae_weights") if (value := getattr(arguments, name))
               for text in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    made = generated(folder / "made", [question.prompt for question in asked], options)
    network = classifier.train(
        [each.clip for each in train], [SCENE_NAMES.index(each.scene["scene"]) for each in train]
    )
    rows = [
        *scene_rows(network, asked, made, test),
        *camera_rows(asked, made, test),
        *colour_rows(asked, made, test, arguments.quick),
        strength_row(asked, made),
        *motion_rows(asked, made, test),
        *smoothness_rows([clip for question, clip in zip(asked, made, strict=True) if question.kind != "motion"], test),
        distance_row(
            network,
            retold(folder / "retold", other, options),
            test,
            other,
            reconstructed(folder / "other", len(other)),
        ),
        memory_row(made, test, arguments.quick),
    ]
    for scene in HELD_OUT:
        chosen = [
            clip
            for question, clip in zip(asked, made, strict=True)
            if (question.kind, question.scene) == ("scene", scene)
        ]
        if chosen:
            contact_sheet(folder / "sheets" / f"{scene}.jpg", [chosen])
    report(rows, time.perf_counter() - start, arguments.json)


def row(measure: str, nano: float, renders: float | None, target: str, is_met: Callable[[float], bool]) -> Row:
    """One line of the table."""
    return {"measure": measure, "nano": nano, "renders": renders, "target": target, "met": bool(is_met(nano))}


def of_kind(kind: str, asked: Sequence[Question], made: Sequence[Clip]) -> list[tuple[Question, Clip]]:
    """The questions of a kind with their clips."""
    return [(question, clip) for question, clip in zip(asked, made, strict=True) if question.kind == kind]


def scene_rows(network: Any, asked: Sequence[Question], made: Sequence[Clip], test: Sequence[Rendered]) -> list[Row]:
    """How often the classifier names the scene that was asked for."""
    mine = of_kind("scene", asked, made)
    names, _ = classifier.judge(network, [clip for _, clip in mine])
    right = [SCENE_NAMES[name] == question.scene for name, (question, _) in zip(names, mine, strict=True)]
    real, _ = classifier.judge(network, [each.clip for each in test])
    real_right = np.mean([SCENE_NAMES[name] == each.scene["scene"] for name, each in zip(real, test, strict=True)])
    for is_right, name, (question, _) in zip(right, names, mine, strict=True):
        if not is_right:
            print(f"  {question.prompt!r} looks like {SCENE_NAMES[name]}, not {question.scene}")
    seen = training_words()
    count = sum(bool(unseen_words(question.prompt, seen)) for question, _ in mine)
    print(f"  {count} of {len(mine)} prompts have words that no training caption has")
    return [row("scene recognised", float(np.mean(right)), float(real_right), ">= 0.90", lambda x: x >= 0.9)]


def training_words() -> set[str]:
    """All words of training captions."""
    from importlib.resources import files

    text = (files("sora_plugins.nano.scenes") / "caption_words.txt").read_text(encoding="utf-8").lower()
    return set("".join(letter if letter.isalpha() else " " for letter in text).split())


def camera_rows(asked: Sequence[Question], made: Sequence[Clip], test: Sequence[Rendered]) -> list[Row]:
    """How often the picture moves as the camera was told to."""
    right = [measures.follows_camera(clip, question.answer) for question, clip in of_kind("camera", asked, made)]
    moving = [each for each in test if each.scene["camera"] != "static"]
    real = [measures.follows_camera(each.clip, each.scene["camera"]) for each in moving]
    return [row("camera direction right", float(np.mean(right)), float(np.mean(real)), ">= 0.85", lambda x: x >= 0.85)]


def colour_rows(asked: Sequence[Question], made: Sequence[Clip], test: Sequence[Rendered], quick: bool) -> list[Row]:
    """How often the colour is the one that was named, as a network sees it that knows renders of every colour."""
    names = [(scene, colour) for scene, (_, colours) in COLOURS.items() for colour in colours]
    clips, labels = [], []
    for label, (scene, colour) in enumerate(names):
        for index in range(8 if quick else 24):
            params = draw_params(random.Random(f"{TRAIN_SEED}-{scene}-{colour}-{index}"), scene, photogenic=0.0)
            params = replace(params, attributes={**params.attributes, "colour": colour})
            clips.append(render(params, 9, classifier.HEIGHT, classifier.WIDTH).numpy())
            labels.append(label)
    network = classifier.train(clips, labels, steps=900)

    def is_right(scene: str, clip: Clip, colour: str) -> bool:
        among = [label for label, (each, _) in enumerate(names) if each == scene]
        return names[classifier.judge(network, [clip], among)[0][0]] == (scene, colour)

    mine = [is_right(question.scene, clip, question.answer) for question, clip in of_kind("colour", asked, made)]
    shown = [(each.scene["scene"], each.clip, each.scene["attributes"].get("colour")) for each in test]
    real = [is_right(*each) for each in shown if (each[0], each[2]) in names]
    return [row("named colour right", float(np.mean(mine)), float(np.mean(real)), ">= 0.80", lambda x: x >= 0.8)]


def strength_row(asked: Sequence[Question], made: Sequence[Clip]) -> Row:
    """In how many scenes clearly more moves with a high motion score than with a low one."""

    def share(pairs: Sequence[tuple[Clip, Clip]]) -> float:
        return float(np.mean([measures.change(fast) > CLEARLY * measures.change(slow) for slow, fast in pairs]))

    mine = {(question.scene, question.answer): clip for question, clip in of_kind("motion", asked, made)}
    pairs = [(clip, mine[scene, str(FAST)]) for (scene, score), clip in mine.items() if score == str(SLOW)]
    real = []
    for scene in MOTION_SCENES:
        params = draw_params(random.Random(f"{TEST_SEED}-{scene}"), scene, photogenic=1.0)
        slow, fast = (replace(params, speed=score / SPEED_SCORE) for score in (SLOW, FAST))
        real.append((render(slow, 13, 144, 256).numpy(), render(fast, 13, 144, 256).numpy()))
    return row("more moves when told to", share(pairs), share(real), ">= 0.90", lambda x: x >= 0.9)


def motion_rows(asked: Sequence[Question], made: Sequence[Clip], test: Sequence[Rendered]) -> list[Row]:
    """Whether water falls, snow sinks and flames rise; picture heights a second, down positive."""
    rows = []
    for name, scene, sign in (("water falls", "waterfall", 1), ("snow sinks", "snow", 1), ("flames rise", "fire", -1)):
        mine = [
            measures.vertical_motion(clip)
            for question, clip in of_kind("scene", asked, made)
            if question.scene == scene
        ]
        still = [each for each in test if each.scene["scene"] == scene and each.scene["camera"] == "static"]
        real = [measures.vertical_motion(each.clip) for each in still]
        value = float(np.median(mine)) * sign if mine else float("nan")
        rows.append(row(name, value, float(np.median(real)) * sign if real else None, "> 0", lambda x: x > 0))
    return rows


def smoothness_rows(made: Sequence[Clip], test: Sequence[Rendered]) -> list[Row]:
    """Flicker, steps at the borders of tokens, and jolts between latents."""
    real = [each.clip for each in test]
    ratio = np.mean([measures.flicker(clip) for clip in made]) / np.mean([measures.flicker(clip) for clip in real])
    edges, real_edges = (float(np.mean([measures.edge_ratio(clip) for clip in group])) for group in (made, real))
    seams, real_seams = (float(np.mean([measures.seam_ratio(clip) for clip in group])) for group in (made, real))
    return [
        row("flicker, of the renders'", float(ratio), 1.0, "<= 1.5", lambda x: x <= 1.5),
        row("block edges", edges, real_edges, "< 1.3", lambda x: x < 1.3),
        row("piece borders", seams, real_seams, "< 1.3", lambda x: x < 1.3),
    ]


def distance_row(
    network: Any,
    made: Sequence[Clip],
    test: Sequence[Rendered],
    other: Sequence[Rendered],
    through: Sequence[Clip],
) -> Row:
    """Frechet distance to renders of clips made from the captions of other renders, over that of those renders'
    reconstructions: as many clips of the same scenes, times of day, attributes and cameras on both sides."""
    real = classifier.judge(network, [each.clip for each in test])[1]
    ours, theirs, floor = (
        measures.frechet_distance(classifier.judge(network, clips)[1], real)
        for clips in (made, through, [each.clip for each in other])
    )
    print(f"  Frechet distances: made {ours:.3f}, reconstructed {theirs:.3f}, rendered {floor:.3f}")
    return row("Frechet distance, of the autoencoder's", ours / theirs, floor / theirs, "<= 2", lambda x: x <= 2)


def memory_row(made: Sequence[Clip], test: Sequence[Rendered], quick: bool) -> Row:
    """Distance of first frames to the nearest training clip's, over that of renders that were not trained on."""

    def small(picture: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
        return torch.nn.functional.interpolate(tensor, (18, 32), mode="area").flatten().double().numpy()

    first = [
        render(clip_params(seed, index, scenes), 1, 72, 128).numpy()[0]
        for seed, count, scenes in TRAINING_SETS
        for index in range(count // (10 if quick else 1))
    ]
    training = np.stack([small(picture) for picture in first])
    mine = measures.nearest(np.stack([small(clip[0]) for clip in made]), training)
    real = measures.nearest(np.stack([small(each.clip[0]) for each in test]), training)
    value = float(np.median(mine) / np.median(real))
    return row("nearest training clip, of the renders'", value, 1.0, "> 0.8", lambda x: x > 0.8)


def report(rows: Sequence[Row], seconds: float, path: Path | None) -> None:
    """Print the table, and the same as JSON."""
    print(f"{'measure':40} {'nano':>8} {'renders':>8}  target")
    for each in rows:
        real = "" if each["renders"] is None else f"{each['renders']:.3f}"
        print(
            f"{each['measure']:40} {each['nano']:8.3f} {real:>8}  {each['target']:8} {'yes' if each['met'] else 'NO'}"
        )
    document = {"rows": list(rows), "seconds": round(seconds, 1)}
    print(json.dumps(document))
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
