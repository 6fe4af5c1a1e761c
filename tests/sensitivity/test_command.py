"""`slimcv sensitivity`: what it writes and prints, that it goes on, and how it refuses."""

import json
import sys
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from slimcv import cli


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, pictures):
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.save(nn.Sequential(*network, nn.Linear(8, 2)), tmp_path / "net.pt")

    def run(*words):
        common = ("net.pt", "--input", "3x12x12", "--threads", "1", "--format", "json")
        monkeypatch.setattr(sys, "argv", ["slimcv", "sensitivity", *common, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_it_writes_a_table_a_document_and_a_picture_and_reads_them_back(call, tmp_path, pictures):
    words = ("--data", pictures / "pictures", "--images", 8)
    code, out, err = call(*words)
    assert code == 0, err
    folder = tmp_path / "net-sensitivity"
    found = json.loads(out)
    assert json.loads((folder / "sensitivity.json").read_text("utf-8")) == found
    assert [row["name"] for row in found["layers"]] == ["0", "4"]
    assert found["data"]["measured_images"] == found["data"]["fitted_images"] == 8
    assert (folder / "sensitivity.md").read_text("utf-8").startswith("# net.pt")
    assert ElementTree.parse(folder / "sensitivity.svg").getroot().get("role") == "img"
    assert json.loads(call(*words)[1]) == found

    code, _, err = call(*words[:2], "--images", 9)
    assert code == 2
    assert "belongs to another run (another images)" in err


def test_without_pictures_it_is_refused(call):
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "give them with --data DIR" in err
