from __future__ import annotations

import json

import pytest

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.evaluation.vbench_suite import DIMENSIONS, choose_dimensions, closest_crop, load_suite

T2V = [{"prompt_en": "a dog", "dimension": ["color", "scene"], "auxiliary_info": {"color": {"color": "red"}}}]
I2V = [{"prompt_en": "a dog", "dimension": ["i2v_subject"], "image_name": "a dog.jpg"}]


def written(tmp_path, content):
    path = tmp_path / "suite.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("{", SoraError, "cannot read the suite"),
        ([], SoraError, "no suite"),
        ([{"dimension": ["color"]}], SoraError, "entry 0: no prompt_en"),
        ([T2V[0], {"prompt_en": "a", "dimension": "color"}], SoraError, "entry 1: dimension"),
        ([{"prompt_en": "a/b", "dimension": ["color"]}], SoraError, "slash"),
        ([{"prompt_en": "a", "dimension": ["beauty"]}], UsageError, "unknown dimensions: beauty"),
        (I2V, UsageError, "suite of i2v"),
    ],
)
def test_what_is_no_suite(tmp_path, content, error, words):
    with pytest.raises(error, match=words):
        load_suite("t2v", written(tmp_path, content))


def test_entries_of_i2v_name_their_picture(tmp_path):
    assert load_suite("i2v", written(tmp_path, I2V)).entries[0].image_name == "a dog.jpg"
    with pytest.raises(SoraError, match="entry 0: no image_name"):
        load_suite("i2v", written(tmp_path, [{**I2V[0], "image_name": None}]))
    with pytest.raises(SoraError, match="without folder"):
        load_suite("i2v", written(tmp_path, [{**I2V[0], "image_name": "../x.jpg"}]))


def test_without_a_file_that_of_the_installed_package_is_read(tmp_path, add_site):
    (tmp_path / "site" / "vbench").mkdir(parents=True)
    (tmp_path / "site" / "vbench" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "site" / "vbench" / "VBench_full_info.json").write_text(json.dumps(T2V))
    add_site(tmp_path / "site")
    assert load_suite("t2v").entries[0].prompt == "a dog"


def test_without_a_file_and_package():
    with pytest.raises(MissingError) as missing:
        load_suite("i2v")
    assert "--suite FILE" in missing.value.hint


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        ([], range(16)),
        (["2:6"], [2, 3, 4, 5]),
        (["13:-1"], [13, 14, 15]),
        (["7", "color"], [7, 9]),
        (["14:99"], [14, 15]),
    ],
)
def test_dimensions_by_name_or_position(words, positions):
    assert choose_dimensions("t2v", words) == tuple(DIMENSIONS["t2v"][position] for position in positions)


@pytest.mark.parametrize("word", ["16", "-1", "colour", "3:2"])
def test_dimensions_that_are_not_there(word):
    with pytest.raises(UsageError):
        choose_dimensions("t2v", [word])


@pytest.mark.parametrize(
    ("size", "crop"),
    [((854, 480), "16-9"), ((256, 256), "1-1"), ((1024, 576), "16-9"), ((640, 400), "8-5"), ((480, 854), "1-1")],
)
def test_the_closest_crop(size, crop):
    assert closest_crop(*size) == crop
