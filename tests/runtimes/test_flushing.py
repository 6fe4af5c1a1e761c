"""Denormal numbers are zero while a session runs, and what they were to its caller before and after."""

import platform
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from slimcv.runtimes import flushing, prepare_onnx

CALLER = """
import sys
import numpy as np
from slimcv.runtimes import prepare_onnx

def flushes():
    return float(np.float32(2e-38) * np.float32(0.1)) == 0.0

def product(prepared):
    return float(prepared.predict(np.full((1, 4), 2e-38, np.float32))[0, 0])

model = open(sys.argv[1], "rb").read()
seen = [flushes()]
first = prepare_onnx(model, "onnxruntime", threads=int(sys.argv[2]))
seen.append(flushes())
products = [product(first)]
seen.append(flushes())
second = prepare_onnx(model, "onnxruntime", threads=int(sys.argv[2]))
products.append(product(second))
seen.append(flushes())
assert "torch" not in sys.modules
print(seen, products)
"""


@pytest.fixture(scope="module")
def tenth():
    """A model that gives a tenth of its input."""
    shape = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["input", "tenth"], ["logits"])],
        "tenth",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32([0.1]), "tenth")],
    )
    opset = helper.make_opsetid("", 20)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def flushes():
    return float(np.float32(2e-38) * np.float32(0.1)) == 0.0


@pytest.fixture
def known():
    if platform.system() != "Linux" or platform.machine() not in flushing._SWITCHES:
        pytest.skip("the switch is not known on this machine")
    assert flushing._functions()[0] is not None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_flushes_while_it_runs_and_leaves_its_caller_as_it_was(tenth, tmp_path, known, threads):
    # The library sets the switch at the first session of a process alone.
    (tmp_path / "tenth.onnx").write_bytes(tenth)
    done = subprocess.run(
        [sys.executable, "-c", CALLER, tmp_path / "tenth.onnx", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[False, False, False, False] [0.0, 0.0]"


def test_a_caller_that_flushes_goes_on_flushing(tenth, known):
    assert torch.set_flush_denormal(True)
    try:
        prepared = prepare_onnx(tenth, "onnxruntime", threads=1)
        prepared.predict(np.ones((1, 4), np.float32))
        assert flushes()
    finally:
        torch.set_flush_denormal(False)
    assert not flushes()


def test_a_call_that_fails_leaves_the_switch_as_it_was(tenth, known):
    prepared = prepare_onnx(tenth, "onnxruntime", threads=1)
    with pytest.raises(Exception, match="Invalid"):
        prepared.predict(np.ones((1, 4, 4), np.float32))
    assert not flushes()


def test_the_switch_is_one_thread_s_own(known):
    seen = []
    with flushing.flushing():
        assert flushes()
        thread = threading.Thread(target=lambda: (torch.set_flush_denormal(False), seen.append(flushes())))
        thread.start()
        thread.join()
        assert flushes()
    assert (seen, flushes()) == ([False], False)


def test_where_the_switch_is_not_known_nothing_happens(monkeypatch):
    monkeypatch.setattr(flushing.platform, "machine", lambda: "riscv64")
    for known in (flushing._functions, flushing._own):
        known.cache_clear()
    try:
        with flushing.flushing():
            assert not flushes()
    finally:
        for known in (flushing._functions, flushing._own):
            known.cache_clear()
