"""What a command left is checked once, when it is read: drawing it then meets no surprise."""

import copy
import json

import pytest

from slimcv.errors import SlimcvError
from slimcv.report.html import render_html
from slimcv.report.reading import read
from slimcv.report.showing import show

KINDS = ("ladder", "bench", "profile", "training", "difference")


def places(value, path=()):
    """Where a document has keys, the first entry of each list standing for all."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def without(document, path):
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_any_one_key_is_drawn_or_refused_in_a_sentence(results, kind):
    path = results(kind)
    document = json.loads(path.read_text())
    refused = []
    for place in places(document):
        path.write_text(json.dumps(without(document, place)))
        try:
            found = read(path)
        except SlimcvError as error:
            refused.append(error.message)
            continue
        show([found], "md")
        show([found], "csv")
        render_html([found])
    said = ("another version of slimcv wrote it", "not a report of slimcv")
    assert all(message.endswith(said) for message in refused)
    assert len(refused) > 10


def test_an_older_profile_is_refused_with_what_is_missing_and_what_to_do(results):
    path = results("profile")
    document = json.loads(path.read_text())
    del document["predictions"]
    path.write_text(json.dumps(document))
    with pytest.raises(SlimcvError, match=r"predictions: Field required; another version") as refused:
        read(path)
    assert "again with this version of slimcv" in refused.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_that_is_a_word_is_refused(results, kind):
    path = results(kind)
    document = json.loads(path.read_text())
    where, key = {
        "ladder": ("rows", "ratios"),
        "bench": ("rows", "p50_ms"),
        "profile": ("layers", "ms"),
        "training": ("training", "step_ms"),
        "difference": ("totals", "call_ms"),
    }[kind]
    one = document[where][0] if isinstance(document[where], list) else document[where]
    one[key] = "soon"
    path.write_text(json.dumps(document))
    with pytest.raises(SlimcvError, match=f"{where}.*{key}: Input should be a"):
        read(path)


def test_newer_keys_are_left_alone(results):
    path = results("profile")
    document = json.loads(path.read_text())
    document["layers"][0]["colour"] = "green"
    path.write_text(json.dumps(document))
    assert read(path).document == document
