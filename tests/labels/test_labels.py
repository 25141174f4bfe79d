"""Class labels: numbers and names, and what is said of those that there are not."""

from __future__ import annotations

import pytest
import torch

from sora_cli.errors import UsageError
from sora_cli.plugin.manager import load_attribute
from sora_cli.weights.locate import locate_weights
from sora_plugins.labels import sora_text_encoders
from sora_plugins.labels.classes import Classes, imagenet, numbers, read_names, ucf101
from sora_plugins.labels.labels import ClassLabels, load_imagenet

CPU = torch.device("cpu")
IMAGENET = imagenet()
UCF101 = ucf101()
IDS = numbers()


def test_numbers_stay_whole_in_every_number_format():
    embeddings, mask = load_imagenet(None, CPU, torch.bfloat16).encode(["979", " 0 ", "Golden_Retriever"])
    assert embeddings.dtype == mask.dtype == torch.int64
    assert embeddings.shape == (3, 1, 1, 1)
    assert embeddings.flatten().tolist() == [979, 0, 207]
    assert mask.tolist() == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("labels", "text", "number"),
    [
        # The classes of DiT's sample pictures.
        (IMAGENET, "golden retriever", 207),
        (IMAGENET, "otter", 360),
        (IMAGENET, "red panda", 387),
        (IMAGENET, "geyser", 974),
        (IMAGENET, "macaw", 88),
        (IMAGENET, "valley", 979),
        (IMAGENET, "balloon", 417),
        (IMAGENET, "ARCTIC FOX", 279),
        (IMAGENET, "arctic fox, white fox, alopex lagopus", 279),
        (IMAGENET, "missile", 657),  # also a further name of 744
        (IMAGENET, "tank suit", 639),
        (UCF101, "ApplyEyeMakeup", 0),
        (UCF101, "horse riding", 41),
        (UCF101, "Hammer Throw", 34),
        (UCF101, "hammering", 35),
        (UCF101, "yo_yo", 100),
        (IDS, "123456", 123456),
    ],
)
def test_names(labels: Classes, text: str, number: int):
    assert labels.class_of(text) == number


def test_every_class_can_be_given_by_its_names_as_they_stand():
    for labels in (IMAGENET, UCF101):
        assert labels.names is not None
        for number, line in enumerate(labels.names):
            if line in ("cardigan", "crane", "maillot"):
                with pytest.raises(UsageError, match="names more than one"):
                    labels.class_of(line)
            else:
                assert labels.class_of(line) == number
    assert IMAGENET.class_of("maillot, tank suit") == 639


def test_the_lists():
    assert len(read_names("imagenet.txt")) == 1000
    ucf101 = read_names("ucf101.txt")
    assert len(set(ucf101)) == 101
    assert ucf101 == sorted(ucf101), "numbered as folders are sorted"


def test_the_empty_prompt_is_no_class():
    assert (IMAGENET.class_of(""), UCF101.class_of(" ")) == (1000, 101)


@pytest.mark.parametrize(
    ("labels", "text", "message", "hint"),
    [
        (IMAGENET, "1000", "there is no class of ImageNet 1000", "0 to 999"),
        (UCF101, "101", "there is no class of UCF101 101", "0 to 100"),
        (IMAGENET, "-1", "there is no class of ImageNet '-1'", "0 to 999"),
        (IMAGENET, "golden retreiver", "there is no class of ImageNet 'golden retreiver'", "mean 'golden retriever'"),
        (UCF101, "horse ridng", "there is no class of UCF101 'horse ridng'", "mean 'horse riding'"),
        (IMAGENET, "crane", r"more than one class of ImageNet: 134 \(crane\) and 517 \(crane\)", "give the number"),
        (IMAGENET, "panda", "more than one class of ImageNet: 387 .* and 388 ", "give the number"),
        (IDS, "a fox", "'a fox' is no number of a class", "for example: 7"),
        (IDS, "1" * 5000, "is no number of a class", "for example: 7"),
        (IDS, "", "'' is no number of a class", "for example: 7"),
        (IDS, str(2**63), f"there is no class of this model {2**63}", "0 to"),
    ],
)
def test_what_is_no_class(labels: Classes, text: str, message: str, hint: str):
    with pytest.raises(UsageError, match=message) as caught:
        ClassLabels(labels, CPU).encode(["7", text])
    assert hint in (caught.value.hint or "")


def test_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    weights = locate_weights(None, what="labels", override=str(tmp_path))
    with pytest.raises(UsageError, match="have no weights"):
        load_imagenet(weights, CPU, torch.float32)


def test_the_specs_name_what_loads():
    for spec in sora_text_encoders():
        labels = load_attribute(spec.target, what=spec.name)(None, CPU, torch.float32)
        assert labels.encode(["7"]).embeddings.shape[-1] == spec.width
