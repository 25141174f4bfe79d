"""Tiny models of random weights that transformers runs here: batches, ends, and what cannot be loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from llava_tiny import END, WORDS, save_llama, save_llava, save_qwen_vl
from media import picture

from sora_cli.errors import SoraError, UsageError
from sora_cli.plugin.protocols import CaptionQuestion
from sora_plugins.captioners.local_model import LocalCaptioner, Options, load

LENGTH = 12


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder)
    return folder


def captioner(folder, **options):
    return load({}, "cpu", Options(model=str(folder), max_tokens=LENGTH, **options))


def frames(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(count)]


def by_hand(folder, prompt, pictures=()):
    """The likeliest letters after a prompt, by the model's own forward pass, one after the other."""
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    if pictures:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        batch = AutoProcessor.from_pretrained(folder)(
            text=prompt, images=[Image.fromarray(frame) for frame in pictures], return_tensors="pt"
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        batch = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    tokens, extra = batch.pop("input_ids"), {name: batch[name] for name in ("pixel_values",) if name in batch}
    letters = ""
    with torch.inference_mode():
        for _ in range(LENGTH):
            token = int(model(input_ids=tokens, **extra).logits[0, -1].argmax())
            if token == END:
                break
            letters += WORDS[token] if token > END + 2 else ""
            tokens = torch.cat([tokens, torch.tensor([[token]])], 1)
    return letters


def test_each_row_of_a_batch_is_answered_as_if_alone(llava):
    questions = [
        CaptionQuestion("what", frames(1)),
        CaptionQuestion("and what is it that goes on in here", frames(3, seed=1)),
        CaptionQuestion("no picture", ()),
    ]
    answers = captioner(llava)(questions)
    prompts = ["USER: <image>what", "USER: <image><image><image>and what is it that goes on in here"]
    for answer, question, prompt in zip(answers, questions[:2], prompts, strict=False):
        assert answer.text == by_hand(llava, f"{prompt} ASSISTANT:", question.frames)
    assert len({answer.text for answer in answers}) == 3
    # A picture is 4 tokens; the other tokens are letters.
    assert [answer.prompt_tokens for answer in answers] == [
        len("USER:  ASSISTANT:") + len(question.text) + 4 * len(question.frames) for question in questions
    ]


def test_frames_are_a_video_where_the_processor_and_the_template_know_videos(llava):
    """What is asked of the processor; those of transformers that know videos need torchvision."""
    plain = captioner(llava)

    class Processor:
        tokenizer, video_processor, chat_template = plain.tokenizer, object(), "{% if c['type'] == 'video' %}"

        def apply_chat_template(self, asked, **options):
            self.asked, self.options = [turn["content"] for (turn,) in asked], options
            raise KeyboardInterrupt

    shown, still = frames(3), frames(1)
    questions = [CaptionQuestion("clip", shown), CaptionQuestion("picture", still), CaptionQuestion("text")]
    processor = Processor()
    with pytest.raises(KeyboardInterrupt):
        LocalCaptioner(plain.model, processor, plain.options)(questions)
    (video, words), (picture_, _), (text,) = processor.asked
    assert (video["type"], picture_["type"], text["type"]) == ("video", "image", "text")
    assert (video["video"] == np.stack(shown)).all()
    assert words["text"] == "clip"
    assert processor.options["do_sample_frames"] is False
    with pytest.raises(KeyboardInterrupt):
        LocalCaptioner(plain.model, processor, plain.options)(questions[1:])
    assert "do_sample_frames" not in processor.options
    processor.chat_template = "{% if c['type'] == 'image' %}"
    with pytest.raises(KeyboardInterrupt):
        LocalCaptioner(plain.model, processor, plain.options)(questions)
    assert [part["type"] for part in processor.asked[0]] == ["image", "image", "image", "text"]


def test_a_model_that_sees_videos(tmp_path):
    """Each row of a batch as if alone; a video is fewer tokens than its frames as pictures."""
    pytest.importorskip("torchvision", reason="processors of transformers for videos need torchvision")
    save_qwen_vl(tmp_path)
    model = captioner(tmp_path)
    questions = [
        CaptionQuestion("what", frames(4)),
        CaptionQuestion("a picture of what", frames(1, seed=1)),
        CaptionQuestion("no picture"),
        CaptionQuestion("and what is it that goes on in here", frames(3, seed=2)),
    ]
    answers = model(questions)
    assert answers == [model([question])[0] for question in questions]
    assert len({answer.text for answer in answers}) == 4
    model.takes_videos = False
    assert model(questions[:1])[0].prompt_tokens > 2 * answers[0].prompt_tokens


def test_a_language_model_is_padded_on_the_left(llama):
    questions = [CaptionQuestion("x"), CaptionQuestion("a much longer question than the one before")]
    answers = captioner(llama)(questions)
    assert [answer.text for answer in answers] == [
        by_hand(llama, f"USER: {question.text} ASSISTANT:") for question in questions
    ]


def test_one_model_over_two_processes(llava):
    """In a process of its own, which is rank 0 then."""
    pytest.importorskip("accelerate", reason="needs the extra data")
    script = f"""
import numpy as np
from sora_plugins.captioners.local_model import Options, load
from sora_cli.plugin.protocols import CaptionQuestion
frames = [np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)]
captioner = load({{}}, "cpu", Options(model={str(llava)!r}, max_tokens={LENGTH}, tensor_parallel=2))
for _ in range(2):
    print(captioner([CaptionQuestion("what", frames), CaptionQuestion("longer question", frames)]))
weight = captioner.captioner.model.model.language_model.layers[0].mlp.gate_proj.weight
print(tuple(weight.shape), tuple(weight.to_local().shape), flush=True)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    alone = captioner(llava)([CaptionQuestion("what", frames(1)), CaptionQuestion("longer question", frames(1))])
    assert finished.stdout.splitlines() == [str(alone), str(alone), "(64, 32) (32, 32)"]


def test_where_answers_end(llama):
    model = captioner(llama)
    (cut,) = model([CaptionQuestion("x")])
    assert (cut.is_cut, cut.answer_tokens) == (True, LENGTH)
    # The fourth letter of the answer is made an end, as models have several.
    token = WORDS.index(cut.text[3])
    place = cut.text.index(cut.text[3])
    model.model.generation_config.eos_token_id = [END, token]
    ended = type(model)(model.model, model.processor, model.options)([CaptionQuestion("x")])[0]
    assert (ended.text, ended.is_cut, ended.answer_tokens) == (cut.text[:place], False, place + 1)


def test_what_cannot_be_loaded(tmp_path, llama):
    with pytest.raises(UsageError, match="which model is not said"):
        load({}, "cpu", Options())
    with pytest.raises(SoraError, match="cannot be loaded"):
        captioner(tmp_path)
    save_llava(tmp_path / "plain", template=None)
    with pytest.raises(SoraError, match="has no chat template"):
        captioner(tmp_path / "plain")
    with pytest.raises(SoraError, match="sees no pictures"):
        captioner(llama)([CaptionQuestion("x", frames(1))])


def test_code_of_a_model_is_not_run(tmp_path, llama):
    config = json.loads((llama / "config.json").read_text())
    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(SoraError, match="cannot be loaded"):
        captioner(tmp_path)


def test_captions_of_a_table(tmp_path, llava, sora):
    pl = pytest.importorskip("polars")
    pytest.importorskip("pebble")
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    (tmp_path / "clips.csv").write_text("path\nred.png\nblue.png\nnone.png\n")
    output = tmp_path / "out.csv"
    finished = sora(
        *("data", "caption", str(tmp_path / "clips.csv"), "-o", str(output), "--captioner", "transformers", "--json"),
        *("--model", str(llava), "-O", f"max_tokens={LENGTH}", "--prompt", "What is it?", "--keep-bad"),
    )
    # Letters by chance hardly ever end in a whole sentence.
    assert finished.code == 1
    assert "none.png: the file is missing" in finished.err
    assert finished.err.count("the answer was cut off") == 2
    assert f"2 requests, {2 * len('USER: What is it? ASSISTANT:') + 8} tokens asked and 24 answered" in finished.err
    assert not output.exists()
    assert pl is not None
