"""What a profile makes of the words it is given: models, bundles, zipped bundles, and where each is timed."""

import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from slimcv import bundle
from slimcv.cli.opening import Opened, opened, runtimes
from slimcv.errors import SlimcvError
from slimcv.manifest import Serve, signed


@pytest.fixture
def slim(tmp_path):
    """A function that writes a bundle served by OpenVINO, with the network beside it or without."""

    def make(*, network=True):
        folder = tmp_path / "model-slim"
        folder.mkdir()
        files = {"model.pt2" if network else "model.onnx": b"a network", "openvino/model.xml": b"a graph"}
        (folder / "openvino").mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        manifest = {
            "schema_version": 1, "slimcv": "0.1.0", "created": "",
            "serve": {"path": "openvino/model.xml", "runtime": "openvino", "precision": "int8", "threads": 1},
            "input": {"channels": 3, "height": 8, "width": 8, "mean": [0, 0, 0], "std": [1, 1, 1]},
            "classes": None, "environment": {}, "threads": 1, "seed": 0, "recipe": {},
            "files": {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            },
        }  # fmt: skip
        (folder / "slimcv.json").write_bytes(signed(manifest))
        return folder

    return make


def served(runtime):
    return Opened("model.pt2", Serve(path="x", runtime=runtime, precision="fp32", threads=1))


def test_a_bundle_is_timed_in_what_serves_it_and_a_model_beside_it_too():
    model = Opened("model.pt")
    assert runtimes(None, [model, served("openvino")]) == ["openvino", "openvino"]
    assert runtimes(None, [served("onnxruntime"), model]) == ["onnxruntime", "onnxruntime"]
    assert runtimes(None, [served("onnxruntime"), served("openvino")]) == ["onnxruntime", "openvino"]
    assert runtimes(None, [model, model]) == ["eager", "eager"]
    assert runtimes("eager", [model, served("openvino")]) == ["eager", "eager"]


def test_every_runtime_that_serves_has_one_that_counts():
    from slimcv.profile import RUNTIMES

    assert {served(name).runtime for name in bundle.PLACES} == set(RUNTIMES)


def test_what_is_served_beside_what_was_profiled_is_told(slim):
    with opened(str(slim())) as found:
        assert found.file.endswith("model-slim/model.pt2")
        assert found.as_json() == {
            "file": "model.pt2",
            "serves": {"path": "openvino/model.xml", "runtime": "openvino", "precision": "int8"},
        }
    with opened("model.pt") as found:
        assert found.as_json() == {"file": "model.pt", "serves": None}


def test_a_zipped_bundle_is_unpacked_for_as_long_as_it_is_read(slim):
    packed = bundle.archive(slim())
    with opened(str(packed)) as found:
        assert found.runtime == "openvino"
        assert Path(found.file).read_bytes() == b"a network"
    assert not Path(found.file).exists()


def test_what_is_no_bundle_or_was_changed_is_refused(slim, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(SlimcvError, match="not a zipped bundle"), opened(str(tmp_path / "other.zip")):
        pass
    folder = slim()
    (folder / "model.pt2").write_bytes(b"another n")
    with pytest.raises(SlimcvError, match="changed since"), opened(str(folder)):
        pass


def test_a_zipped_bundle_that_was_damaged_is_told(slim):
    packed = bundle.archive(slim())
    whole = packed.read_bytes()
    for at in (30, len(whole) // 3, len(whole) // 2):
        packed.write_bytes(whole[:at] + bytes(8 * [255]) + whole[at + 8 :])
        with pytest.raises(SlimcvError), opened(str(packed)):
            pass
    encrypted = re.sub(rb"(?<=PK\x01\x02.{4})\x00", b"\x01", whole, flags=re.DOTALL)
    packed.write_bytes(encrypted)
    with pytest.raises(SlimcvError, match=r"cannot be unzipped: .*encrypted"), opened(str(packed)):
        pass


def test_a_zip_that_would_lead_elsewhere_stays_in_its_folder(slim, tmp_path):
    folder = slim()
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as archive:
        for name in ("slimcv.json", "model.pt2"):
            archive.write(folder / name, f"../../{name}")
    with opened(str(tmp_path / "deep.zip")) as found:
        assert "slimcv-profile-" in found.file
        assert ".." not in found.file


def test_a_bundle_without_a_network_that_names_its_layers_says_what_to_do(slim):
    with pytest.raises(SlimcvError, match=r"has no model\.pt2") as refused, opened(str(slim(network=False))):
        pass
    assert "--keep onnx,pt2" in refused.value.hint
