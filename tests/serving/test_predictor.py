"""A bundle answers for whatever a picture comes as, without torch where it needs none."""

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slimcv
from slimcv import bench, bundle
from slimcv.data.decoding import PictureError
from slimcv.errors import SlimcvError
from slimcv.manifest import signed


@pytest.fixture
def predictor(folder):
    return slimcv.load(folder, threads=1)


def test_a_path_an_image_and_an_array_get_the_same_answer(predictor, pictures):
    path = pictures / "green" / "0.png"
    image = Image.open(path)
    answers = [predictor.predict(each) for each in (path, str(path), image, np.asarray(image))]
    assert {answer.label for answer in answers} == {"green"}
    assert len({answer.probability for answer in answers}) == 1


def test_a_sequence_and_a_batch_get_a_list(predictor, pictures):
    paths = [pictures / name / "1.png" for name in ("blue", "<red>", "green")]
    assert [found.label for found in predictor.predict(paths)] == ["blue", "<red>", "green"]
    batch = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert [found.label for found in predictor.predict(batch)] == ["blue", "<red>", "green"]
    assert predictor.predict([]) == []


def test_the_classes_come_ranked_with_probabilities_that_add_up(predictor, pictures):
    found = predictor.predict(pictures / "blue" / "0.png", top=9)
    assert len(found.labels) == 3
    assert found.labels[0] == found.label == "blue"
    assert sum(found.probabilities) == pytest.approx(1.0)
    assert list(found.probabilities) == sorted(found.probabilities, reverse=True)
    assert [predictor.classes[index] for index in found.indices] == list(found.labels)


def test_every_runtime_of_the_bundle_says_the_same(folder, pictures):
    path = pictures / "<red>" / "2.png"
    answers = [slimcv.load(folder, runtime=name, threads=1).predict(path) for name in
               ("onnxruntime", "openvino", "eager")]  # fmt: skip
    assert {answer.label for answer in answers} == {"<red>"}
    assert np.ptp([answer.probability for answer in answers]) < 1e-5


def test_a_runtime_that_the_bundle_has_no_file_for_is_refused(folder):
    with pytest.raises(SlimcvError, match="no file for tensorrt") as refused:
        slimcv.load(folder, runtime="tensorrt")
    assert "openvino" in refused.value.hint


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "eager"])
def test_a_picture_that_may_not_be_written_to_is_answered(folder, runtime):
    """As one is that numpy reads from a Pillow image."""
    pixels = np.full((16, 12, 3), 200, np.uint8)
    pixels.setflags(write=False)
    load = slimcv.load(folder, runtime=runtime, threads=1)
    assert load.predict(pixels) == load.predict(pixels.copy())


def test_machine_code_is_not_run_unless_it_is_asked_for_by_name(folder):
    """A file that is no package shows whether loading it was tried."""
    place = folder / bundle.PLACES["aotinductor"]
    place.parent.mkdir()
    place.write_bytes(b"\x7fELF")
    manifest = json.loads((folder / "slimcv.json").read_text())
    manifest["serve"].update(runtime="aotinductor", path=bundle.PLACES["aotinductor"])
    manifest["files"][bundle.PLACES["aotinductor"]] = {"bytes": 4, "sha256": bundle.sha256(place)}
    (folder / "slimcv.json").write_bytes(signed(manifest))
    with pytest.raises(SlimcvError, match="machine code that loading would run"):
        slimcv.load(folder)
    with pytest.raises(SlimcvError, match="AOTInductor does not load"):
        slimcv.load(folder, runtime="aotinductor")
    assert place not in {target.path for target in bench.targets(str(folder), folder, runtime="all")}


def test_a_broken_picture_is_named(predictor, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        predictor.predict(tmp_path / "broken.jpg")


def test_threads_may_share_a_predictor(folder, pictures):
    predictor = slimcv.load(folder, runtime="openvino", threads=1)
    names = ("blue", "green", "<red>") * 20
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: predictor.predict(pictures / name / "0.png").label, names))
    assert found == list(names)


class Watched:
    """A picture that remembers the filters of warnings, which all threads share, while it is decoded."""

    def __init__(self, path):
        self.path, self.filters = path, None

    def read(self):
        self.filters = list(warnings.filters)
        return self.path.read_bytes()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "eager"])
def test_threads_may_ask_for_lists_and_no_filter_of_warnings_changes(folder, pictures, runtime):
    predictor = slimcv.load(folder, runtime=runtime, threads=1)
    names = ("blue", "green", "<red>") * 12
    before = list(warnings.filters)

    def asked(turn):
        chosen = names[turn : turn + 20]
        given = [Watched(pictures / name / "0.png") for name in chosen]
        found = predictor.predict(given)
        assert all(picture.filters == before for picture in given)
        return [one.label for one in found] == list(chosen)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(asked, range(12)))
    assert list(warnings.filters) == before


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_bundle_is_served_without_torch(folder, pictures, runtime):
    code = (
        "import sys, slimcv\n"
        f"found = slimcv.load(sys.argv[1], runtime='{runtime}').predict(sys.argv[2])\n"
        "loaded = {'torch', 'onnx', 'pandas', 'rich', 'typer'} & set(sys.modules)\n"
        "print(found.label, sorted(loaded))\n"
    )
    path = pictures / "blue" / "0.png"
    done = subprocess.run(
        [sys.executable, "-c", code, folder, path], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split("\n")[0] == "blue []"


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(SlimcvError, match=r"slimcv\.json is missing"):
        slimcv.load(tmp_path)


def test_there_is_nothing_else_in_the_package(folder):
    assert Path(folder).is_dir()
    with pytest.raises(AttributeError, match="predict"):
        slimcv.predict  # noqa: B018
