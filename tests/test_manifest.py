"""A manifest covers itself, and says when it is not for this version."""

import json

import pytest

from slimcv.errors import SlimcvError
from slimcv.manifest import parsed, signed

VALUES = {
    "schema_version": 1,
    "slimcv": "9.8",
    "created": "2026-01-01T00:00:00+00:00",
    "serve": {"path": "model.onnx", "runtime": "onnxruntime", "precision": "int8", "threads": 2},
    "input": {"channels": 1, "height": 8, "width": 8, "mean": [0.48500000000000001], "std": [1e-05]},
    "classes": ["leaf", "é"],
    "files": {name: {"bytes": 3, "sha256": "a" * 64} for name in ("model.onnx", "golden.npz")},
    "environment": {},
    "threads": 2,
    "seed": 0,
    "recipe": {},
    "golden": {"path": "golden.npz", "tolerance": 0.1},
}


def test_what_is_signed_is_read_back():
    found = parsed(signed(VALUES), source="slimcv.json")
    assert found.classes == ("leaf", "é")
    assert found.golden is not None
    content = signed(found.model_dump(mode="json"))
    assert signed(parsed(content, source="slimcv.json").model_dump(mode="json")) == content


def test_no_bit_of_it_can_be_flipped():
    """The case of an exponent, the last digit of a float, the name of a key and a blank included."""
    whole = signed(VALUES)
    for place in range(len(whole)):
        for bit in (0, 5) if place % 3 else range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            with pytest.raises(SlimcvError):
                parsed(bytes(content), source="slimcv.json")


@pytest.mark.parametrize(
    "change",
    [
        {"serve": {**VALUES["serve"], "path": "../other/model.onnx"}},
        {"serve": {**VALUES["serve"], "path": "/model.onnx"}},
        {"golden": {"path": "../golden.npz", "tolerance": 0.1}},
    ],
)
def test_what_it_uses_is_among_the_files_whose_hashes_it_holds(change):
    with pytest.raises(SlimcvError, match="is not among its files"):
        parsed(signed({**VALUES, **change}), source="slimcv.json")


def test_a_class_whose_folder_has_a_name_that_is_no_utf_8_is_written_with_a_mark():
    assert parsed(signed({**VALUES, "classes": ["caf\udce9"]}), source="slimcv.json").classes == ("caf?",)


def test_one_without_its_hash_is_refused():
    values = json.loads(signed(VALUES))
    del values["sha256"]
    for content in (values, {**values, "sha256": None}, {**values, "sha256": "\ud800" * 64}):
        with pytest.raises(SlimcvError, match="SHA-256 is missing") as refused:
            parsed(json.dumps(content).encode(), source="slimcv.json")
        assert refused.value.hint


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"schema_version": 2}, "in form 2 and not 1"),
        ({"colour": "red"}, "with 'colour'"),
        ({"serve": {**VALUES["serve"], "streams": 4}}, "with 'serve.streams'"),
    ],
)
def test_one_of_a_newer_slimcv_says_so(change, how):
    with pytest.raises(SlimcvError, match=f"written by slimcv 9.8 {how}") as refused:
        parsed(signed({**VALUES, **change}), source="slimcv.json")
    assert "update slimcv" in refused.value.hint
