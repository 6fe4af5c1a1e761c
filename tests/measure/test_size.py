"""Parameters, float buffers and bytes are counted as they are shipped."""

from torch import nn

from slimcv.measure import size


def test_parameters_and_float_buffers_are_counted_without_counters():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert size.parameters(net) == 4 * 3 * 9 + 4 + 4 + 4
    assert size.buffers(net) == 4 + 4


def test_an_xml_counts_together_with_its_weights(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"x" * 10)
    (tmp_path / "model.bin").write_bytes(b"x" * 100)
    (tmp_path / "model.onnx").write_bytes(b"x" * 7)
    assert size.artifact_bytes(tmp_path / "model.xml") == 110
    assert size.artifact_bytes(tmp_path / "model.onnx") == 7
    assert size.artifact_bytes(tmp_path) == 117
    assert [file.name for file in size.artifact_files(tmp_path / "model.xml")] == ["model.xml", "model.bin"]
