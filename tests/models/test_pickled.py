"""Pickled models: the allow-list lets networks in and nothing run."""

import os
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import models
from slimcv.errors import SlimcvError
from slimcv.models import pickled

NET = """
from torch import nn
from blocks import Block

def scaled(x):
    return x * 2

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.scale = scaled
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.scale(self.block(x)).mean((2, 3)))
"""
BLOCKS = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)
"""


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A pickle of a network of the user's own classes, saved where their modules were called otherwise."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own_net.py").write_text(NET)
    (folder / "blocks.py").write_text(BLOCKS)
    monkeypatch.syspath_prepend(str(folder))
    import own_net

    model = own_net.Net()
    torch.save(model, tmp_path / "model.pt")
    monkeypatch.setattr(own_net.Net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Net", own_net.Net, raising=False)
    torch.save(model, tmp_path / "script.pt")
    monkeypatch.undo()
    for name in ("own_net", "blocks"):
        del sys.modules[name]
    yield model
    for name in ("own_net", "blocks"):
        sys.modules.pop(name, None)


def test_a_pickled_sequential_is_loaded_equal(tmp_path):
    model = network().eval()
    torch.save(model, tmp_path / "m.pt")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(models.load(str(tmp_path / "m.pt"), input="3x16x16").model(x), model(x))


def test_an_architecture_beside_a_whole_network_is_not_used(tmp_path):
    torch.save(network(), tmp_path / "m.pt")
    variant = models.load(str(tmp_path / "m.pt"), arch="torchvision:resnet999", input="3x16x16")
    assert variant.details["form"] == "pickled module"


@pytest.mark.parametrize("file", ["model.pt", "script.pt"])
def test_a_class_of_the_users_own_needs_its_code(tmp_path, own_code, file):
    path = str(tmp_path / file)
    with pytest.raises(SlimcvError) as caught:
        models.load(path, input="3x16x16")
    assert "Net" in caught.value.message
    assert "blocks.Block" in caught.value.message
    assert "--code path/to/net.py" in caught.value.hint
    loaded = models.load(path, input="3x16x16", code=(str(tmp_path / "project" / "own_net.py"),))
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(loaded.model(x), own_code(x), atol=1e-6)


def test_code_that_does_not_define_the_class_is_said_so(tmp_path, own_code):
    (tmp_path / "other.py").write_text("x = 1\n")
    with pytest.raises(SlimcvError) as caught:
        models.load(str(tmp_path / "model.pt"), input="3x16x16", code=(str(tmp_path / "other.py"),))
    assert "does not define" in caught.value.hint


@pytest.mark.parametrize("content", ["import nowhere_to_be_found\n", "1 +\n", "raise SystemExit(3)\n"])
def test_code_that_cannot_be_imported_is_an_error_of_the_users(tmp_path, own_code, content):
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(SlimcvError, match="cannot be imported"):
        models.load(str(tmp_path / "model.pt"), input="3x16x16", code=(str(tmp_path / "broken.py"),))


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_a_hostile_pickle_never_runs(tmp_path, new_format):
    victim = tmp_path / "victim"
    torch.save({"state_dict": Touch(victim)}, tmp_path / "m.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(SlimcvError, match=r"asks for (posix|nt)\.system"):
        models.load(str(tmp_path / "m.pt"))
    assert not victim.exists()
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert victim.exists(), "plain unpickling would have run it: the test means something"


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_never_runs(tmp_path, protocol):
    victim = tmp_path / "victim"
    (tmp_path / "m.pt").write_bytes(pickle.dumps(Touch(victim), protocol=protocol))
    with pytest.raises(SlimcvError):
        models.load(str(tmp_path / "m.pt"))
    assert not victim.exists()


def test_code_is_imported_only_when_named(tmp_path, own_code):
    with pytest.raises(SlimcvError):
        models.load(str(tmp_path / "model.pt"), input="3x16x16")
    assert "own_net" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "torch.hub.load", "torch.nn.modules.module.os.system", "torch.nn.functional.boolean_dispatch",
        "torch.load",
        "torch.nn.modules.conv.Tensor", "timm.layers.helpers.os",
        "timm.models._builder.build_model_with_cfg",
        "timm.models._hub.load_state_dict_from_hf", "torchvision.models._api.load_state_dict_from_url",
        "torch.fx.graph_module.GraphModule", "torch.fx.graph_module.reduce_graph_module",
        "torch.nn.parallel.distributed.DistributedDataParallel", "torch.jit._script.RecursiveScriptModule",
        "torchvision.models.feature_extraction.DualGraphModule", "builtins.eval", "builtins.getattr",
        "os.system",
        "torch._utils.os", "torch.nn.modules.nothing.Here", "torch.nn.__main__.X", "importlib.import_module",
        "numpy.load", "torch.utils.data.dataset.Dataset", "torch.nn.utils.prune.identity",
    ],
)  # fmt: skip
def test_what_is_no_network_is_not_resolved(name):
    assert pickled._resolve(name, ()) is None


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.modules.conv.Conv2d", "torchvision.models.resnet.BasicBlock", "timm.models.resnet.ResNet",
        "torch.nn.functional.relu", "torch._C._nn.gelu", "torch._utils._rebuild_parameter_with_state",
        "functools.partial",
        "timm.layers.norm_act.BatchNormAct2d",
    ],
)  # fmt: skip
def test_networks_and_activations_are_resolved(name):
    assert pickled._resolve(name, ()) is not None


def test_a_partial_of_an_allowed_class_is_kept(tmp_path):
    model = network()
    model[0].norm_layer = partial(nn.BatchNorm2d, eps=1e-3)
    torch.save(model, tmp_path / "m.pt")
    assert pickled.read(tmp_path / "m.pt")[0].norm_layer(4).eps == 1e-3


class Called:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


STORED = torch.storage.TypedStorage(
    wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32, _internal=True
)
HELPER = """
from pathlib import Path

from torch import nn

def touch(path, *rest):
    Path(path).touch()
    return nn.Identity()

class Net(nn.Sequential):
    pass
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """The user's own code, which has a function that a file must not get hold of."""
    (tmp_path / "helper_of_net.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    import helper_of_net

    yield helper_of_net
    sys.modules.pop("helper_of_net", None)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("smuggled", "message"),
    [
        (lambda touch, victim: Called(touch, victim), "passes|calls"),
        (lambda touch, victim: partial(touch, victim), "passes"),
        (
            lambda touch, victim: Called(
                torch._tensor._rebuild_from_type_v2, touch, torch.Tensor, (victim,), {}
            ),
            "passes",
        ),
    ],
    ids=["call", "partial", "of-a-type"],
)
def test_a_file_does_not_call_the_users_functions(tmp_path, helper, smuggled, message, new_format):
    victim = tmp_path / "victim"
    content = {"model": smuggled(helper.touch, str(victim))}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(SlimcvError, match=rf"({message}) helper_of_net\.touch"):
        pickled.read(tmp_path / "m.pt", code=(str(tmp_path / "helper_of_net.py"),))
    assert not victim.exists()


def test_a_file_does_not_put_the_users_functions_in_place_of_methods(tmp_path, helper):
    model = helper.Net()
    model.__dict__["__setstate__"] = helper.touch
    torch.save(model, tmp_path / "m.pt")
    with pytest.raises(SlimcvError, match="__setstate__ of its own"):
        pickled.read(tmp_path / "m.pt", code=(str(tmp_path / "helper_of_net.py"),))


def test_what_torch_reads_is_what_is_looked_at(tmp_path, helper):
    """An archive behind an old file: `zipfile` sees the one, torch the other."""
    victim = tmp_path / "victim"
    torch.save(Called(helper.touch, str(victim)), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": helper.touch}, tmp_path / "harmless.pt")
    with (tmp_path / "m.pt").open("ab") as file:
        file.write((tmp_path / "harmless.pt").read_bytes())
    with pytest.raises(SlimcvError, match="calls"):
        pickled.read(tmp_path / "m.pt", code=(str(tmp_path / "helper_of_net.py"),))
    assert not victim.exists()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "call",
    [
        Called(nn.Linear, 20, 20),
        Called(range, 10**11),
        Called(list, range(9)),
        Called(frozenset, Called(range, 0, 10**8)),
        Called(bytearray, 10**6),
        Called(torch.Tensor, 10**6),
        Called(torch.FloatTensor, 10**6),
        Called(torch._utils._rebuild_tensor_v2, STORED, 0, (10**10,), (0,), False, {}),
    ],
    ids=["module", "range", "list", "set", "bytes", "tensor", "floats", "expanded"],
)
def test_a_short_file_takes_little_memory(tmp_path, call, new_format):
    torch.save({"model": call}, tmp_path / "m.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(SlimcvError, match=r"nothing of it was loaded or run|not safe to read"):
        pickled.read(tmp_path / "m.pt")


def test_what_saved_networks_hold_is_read(tmp_path):
    model = network()
    model[0].weight.note = "of a parameter"
    model[0].act = nn.functional.relu
    model[0].make = partial(nn.functional.leaky_relu, negative_slope=0.2)
    model[0].sides = range(3), slice(1, 2**40), {1, 2}, frozenset({3}), torch.Size([1, 2]), 2**40, 1 + 2j
    model[0].where = Path("a/b"), torch.float16, torch.device("cpu"), b"bytes", bytearray(b"more")
    model[0].register_buffer("mask", torch.ones(1).expand(4, 5), persistent=False)
    model[0].register_parameter("none", None)
    model[0].register_parameter("part", nn.Parameter(torch.randn(4, 4)[:, 1:]))
    torch.save(
        {"model": model, "optimizer": torch.optim.Adam(model.parameters()).state_dict()}, tmp_path / "m.pt"
    )
    loaded = pickled.read(tmp_path / "m.pt")["model"][0]
    assert loaded.weight.note == "of a parameter"
    assert (loaded.sides, loaded.where) == (model[0].sides, model[0].where)
    assert loaded.make.keywords == {"negative_slope": 0.2}
    assert torch.equal(loaded.part, model[0].part)


def test_numbers_of_numpy_beside_the_weights_are_read_and_objects_are_not(tmp_path):
    torch.save(
        {"state_dict": network().state_dict(), "best": np.float64(0.5), "epoch": np.int64(3)},
        tmp_path / "m.pt",
    )
    content = pickled.read(tmp_path / "m.pt")
    assert (content["best"], content["epoch"]) == (0.5, 3)
    with pytest.raises(pickle.UnpicklingError):
        pickled._number(np.dtype("O"), b"")


def test_a_whole_network_in_the_legacy_format_is_refused_with_a_way_out(tmp_path):
    torch.save(network(), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(SlimcvError) as caught:
        models.load(str(tmp_path / "m.pt"), input="3x16x16")
    assert "torch.save" in caught.value.hint


def test_graph_modules_are_refused(tmp_path):
    torch.save(torch.fx.symbolic_trace(network()), tmp_path / "m.pt")
    with pytest.raises(SlimcvError, match="reduce_graph_module") as caught:
        models.load(str(tmp_path / "m.pt"), input="3x16x16")
    assert ".pt2" in caught.value.hint


def test_a_network_in_half_precision_or_data_parallel_is_unwrapped(tmp_path):
    model = network().eval()
    torch.save({"model": nn.DataParallel(model).half()}, tmp_path / "m.pt")
    loaded = models.load(str(tmp_path / "m.pt"), input="3x16x16").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert list(loaded.state_dict()) == list(model.state_dict())
