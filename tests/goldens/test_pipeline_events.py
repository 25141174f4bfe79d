"""Golden topic `pipeline`, events: whole runs with stand-in networks.

Compared are the calls of the sampler (prompts, what each latent frame holds, masks, sizes) and what is written (frames
of which clip, at which rate, video or picture). Names of outputs and watermarks are the reference's own. A reference is
read once, and only as far as it is needed; a language model is asked for all prompts before the first is sampled.
"""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_server import failure, serve
from loader import HERE, cases

from sora_cli.video.shapes import resolutions

TOPIC, GROUP = "pipeline", "events"
#: Frames of five latent frames of `vae_1_2`.
PIECE = 17


def arguments_of(case):
    """`sora generate` with the options of the reference in our words."""
    options = case["options"]
    parts = options.get("loop", 1)
    overlap = options.get("condition_frame_length", 5)
    size = options.get("image_size")
    frames = options["num_frames"]
    named = {
        "--model": f"stand-in-{case['vae']}",
        "--len" if isinstance(frames, str) else "--frames": frames,
        "--fps": options["fps"],
        "--save-fps": options.get("save_fps", options["fps"] // options.get("frame_interval", 1)),
        "--aes": options.get("aes"),
        "--motion": options.get("flow"),
        "--camera": options.get("camera_motion"),
        "--align": options.get("align"),
        "--guidance": 1,
        "--batch-size": options["batch_size"],
        "--num-samples": options.get("num_sample"),
        "--start-index": options.get("start_index"),
        "--end-index": options.get("end_index"),
        "--segments": parts,
        "--overlap": overlap * PIECE // 5 if case["vae"] == "vae_1_2" else overlap,
        "--overlap-strength": options.get("condition_frame_edit"),
        "--prompt-file": "prompts.txt" if "prompt_file" in case else None,
    }
    of_table = next(
        (
            {"--res": name, "--aspect-ratio": key}
            for name, table in resolutions().items()
            for key, known in table.sizes.items()
            if list(known) == size and any(side % 8 for side in size)
        ),
        None,
    )
    if of_table:  # of 240x426 the file has 240x424
        named |= of_table
    elif size:
        named["--size"] = f"{size[0]}x{size[1]}"
    else:
        height, width = options["aspect_ratio"].split(":")
        named |= {"--res": options["resolution"], "--aspect-ratio": f"{width}:{height}"}
    repeated = {"--reference": options.get("reference_path", ()), "--mask-strategy": options.get("mask_strategy", ())}
    return [
        *options.get("prompt", ()),
        *(["--refine"] if options.get("llm_refine") else []),
        *(str(text) for pair in named.items() if pair[1] is not None for text in pair),
        *(text for flag, values in repeated.items() for value in values for text in (flag, value)),
    ]


@pytest.fixture
def stand_ins(install_plugin, monkeypatch):
    """The installed module, with reading and writing of files replaced."""
    from safetensors.torch import save_file

    from sora_cli.video.io import open_video  # noqa: F401  # loaded before it is replaced

    module = importlib.import_module(install_plugin("stand-ins", (HERE / "stand_ins.py").read_text()))
    save_file({"weight": torch.zeros(1)}, "stand_in.safetensors")

    def load_reference(path, size, most, fps=None):
        frames = min(most, module.LENGTHS.get(path.name, 1))
        module.EVENTS.append({"event": "load_reference", "path": path.name, "size": list(size), "frames": frames})
        return torch.full((1, 1, frames, *size), float(module.number_of(path.name))).expand(-1, 3, -1, -1, -1)

    def saved(path, fps, frames):
        assert (frames == frames[:, :1]).all(), "one colour a frame"
        runs = itertools.groupby(module.SOURCES[colour - 1] for colour in frames[:, 0])
        parts = [[source, len(list(run))] for source, run in runs]
        record = {"event": "save", "suffix": path.suffix, "fps": fps, "total_frames": len(frames), "parts": parts}
        module.EVENTS.append(record)

    class Written:
        def __init__(self, path, fps, settings, **of_the_file):
            self.path, self.fps, self.frames = path, fps, []

        def __enter__(self):
            return lambda piece: self.frames.append(piece[:, ::40, ::40, 0].reshape(len(piece), -1))

        def __exit__(self, *error):
            if error[0] is None:
                saved(self.path, self.fps, np.concatenate(self.frames))

    monkeypatch.setattr("sora_cli.tasks.clip_file.open_video", Written)
    monkeypatch.setattr(
        "sora_cli.tasks.clip_file.write_image",
        lambda path, image, settings, **of_the_file: saved(path, None, image[None, ::40, ::40, 0].reshape(1, -1)),
    )
    monkeypatch.setattr("sora_cli.tasks.given.load_reference", load_reference)
    monkeypatch.setattr("sora_cli.tasks.given.count_frames", lambda path, fps, *_: module.LENGTHS.get(path.name, 1))
    monkeypatch.setattr("sora_cli.video.clips.changes_in_clip", lambda path, fps, *_: [])
    return module


def wanted_events(case):
    """The events of a case as they are written down here."""
    events = [dict(event) for event in case["events"] if event["event"] not in ("watermark", "load_reference", "llm")]
    if "note" in case:  # it says what is wanted where the reference fails
        assert "28 frames, parts clip0 16 and clip1 12" in case["note"]
        parts = [["clip0[0]", 16], ["clip1[0]", 12]]
        events.append({"event": "save", "path": "a.mp4", "fps": 8, "total_frames": 28, "parts": parts})
    for event in events:
        if event["event"] == "save":
            event["suffix"] = Path(event.pop("path")).suffix
    return events


@pytest.mark.parametrize("case", cases(TOPIC, GROUP))
def test_events(case, sora, stand_ins, monkeypatch):
    wanted = wanted_events(case)
    references = {event["path"]: event for event in case["events"] if event["event"] == "load_reference"}
    stand_ins.LENGTHS = case.get("video_frames", {})
    for name in references:
        Path(name).write_bytes(name.encode())
    if "prompt_file" in case:
        Path("prompts.txt").write_text(case["prompt_file"])
    replies = iter(case.get("llm_replies", ()))
    with serve(lambda _: next(replies) or failure(400)) as chat:
        monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
        run = (*arguments_of(case), "--weights", "stand_in.safetensors", "--device", "cpu", "-o", "out")
        done = sora("generate", *run)
    assert done.code == 0, done.err
    asked = [event for event in case["events"] if event["event"] == "llm"]
    assert len(chat.questions) == len(asked)
    for question, event in zip(chat.questions, asked, strict=True):
        assert question.body["model"] == event["model"]
        assert ("Invent one prompt" in question.system) is (event["kind"] == "random")
        assert question.user == event.get("user", question.user)
    found = [event for event in stand_ins.EVENTS if event["event"] != "load_reference"]
    assert [event["event"] for event in found] == [event["event"] for event in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        for name, value in theirs.items():
            if name == "model_args":
                for argument, numbers in value.items():
                    expected = np.array(numbers)
                    got = np.array(ours[name][argument]).reshape(expected.shape)
                    np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=argument)
            else:
                assert ours[name] == value, name
    read = [event for event in stand_ins.EVENTS if event["event"] == "load_reference"]
    assert {event["path"] for event in read} == set(references)
    for event in read:
        assert event["size"] == references[event["path"]]["size"]
        assert event["frames"] <= references[event["path"]]["frames"]
