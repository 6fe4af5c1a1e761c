"""slimcv.yaml beside a model."""

import pytest

from slimcv import sidecar
from slimcv.errors import SlimcvError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def test_without_a_file_everything_is_left_to_the_command_line(tmp_path):
    assert sidecar.find(str(tmp_path / "model.pt")) == sidecar.Sidecar()


def test_data_is_relative_to_the_file(tmp_path):
    (tmp_path / "leaves").mkdir()
    (tmp_path / "slimcv.yaml").write_text("data: leaves\ninput: 3x64x64\nmean: [0.5]\nclasses: [a, b]\n")
    found = sidecar.find(str(tmp_path / "model.pt"))
    assert found.data == str(tmp_path / "leaves")
    assert (found.input, found.mean, found.classes) == ("3x64x64", (0.5,), ("a", "b"))


def test_the_working_directory_is_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimcv.yaml").write_text("input: 1x28x28\n")
    assert sidecar.find("timm:resnet18").input == "1x28x28"


@pytest.mark.parametrize("key", ["code: evil.py", "arch: evil.py:net"])
def test_a_sidecar_cannot_name_code(tmp_path, key):
    (tmp_path / "slimcv.yaml").write_text(key)
    with pytest.raises(SlimcvError, match="unknown key"):
        sidecar.find(str(tmp_path / "model.pt"))


def test_data_must_be_a_folder_not_a_factory(tmp_path):
    (tmp_path / "slimcv.yaml").write_text("data: evil:factory")
    with pytest.raises(SlimcvError, match="not a folder"):
        sidecar.find(str(tmp_path / "model.pt"))


def test_a_missing_folder_is_a_fault_only_where_it_is_used(tmp_path):
    (tmp_path / "slimcv.yaml").write_text("data: leaves\ninput: 3x64x64")
    found = sidecar.find(str(tmp_path / "model.pt"))
    assert found.input == "3x64x64"
    with pytest.raises(SlimcvError, match=r"slimcv.yaml: data: '.*leaves' is not a folder") as caught:
        found.folder()
    assert "--data" in caught.value.hint
    (tmp_path / "leaves").mkdir()
    assert found.folder() == str(tmp_path / "leaves")
    assert sidecar.Sidecar().folder() is None


@pytest.mark.parametrize("text", ["[1, 2", "- a", "mean: red", "input: 2024-02-30", "\x00"])
def test_a_broken_file_is_one_sentence(tmp_path, text):
    (tmp_path / "slimcv.yaml").write_text(text)
    with pytest.raises(SlimcvError) as caught:
        sidecar.find(str(tmp_path / "model.pt"))
    assert str(tmp_path) in caught.value.message
