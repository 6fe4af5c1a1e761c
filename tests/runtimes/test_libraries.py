"""A library that is missing is told with what to install; a bug stays a bug."""

import sys

import pytest
from torch import nn

from slimcv import runtimes
from slimcv.errors import Rejected, SlimcvError
from slimcv.models import capture
from slimcv.runtimes.libraries import required
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.export_openvino import ExportOpenvino

INPUT = InputSpec(3, 8, 8)


@pytest.fixture
def variant():
    return Variant(capture.capture(nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten()), INPUT), INPUT)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_says_so_wherever_it_is_needed(
    variant, tmp_path, monkeypatch, runtime
):
    path = runtimes.write(variant, runtime, tmp_path)
    monkeypatch.setitem(sys.modules, runtime, None)
    monkeypatch.delitem(sys.modules, "onnxruntime.capi", raising=False)
    for needs in (
        lambda: runtimes.prepare(path, runtime, threads=1),
        lambda: runtimes.import_library(runtime),
        lambda: runtimes.input_shape(path, runtime),
    ):
        with pytest.raises(SlimcvError, match=runtime) as caught:
            needs()
        assert caught.value.hint == f"pip install '{runtime}'"


def test_an_export_without_its_library_is_a_rejected_step(variant, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Rejected, match="openvino is not installed"):
        ExportOpenvino().apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))


def test_what_another_module_lacks_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError), required("a test"):
        import slimcv.no_such_module  # noqa: F401


def test_a_library_that_is_there_but_broken_is_told_as_such():
    with pytest.raises(SlimcvError, match=r"needs nncf, which cannot be imported: libnncf\.so") as caught:  # noqa: SIM117
        with required("NNCF's form"):
            raise ImportError("libnncf.so: no such file", name="nncf")
    assert caught.value.hint == "pip install 'slimcv[nncf]'"
