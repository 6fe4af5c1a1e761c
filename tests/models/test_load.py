"""The intake table: every kind of file, and every kind of mistake."""

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimcv import models
from slimcv.errors import SlimcvError
from slimcv.models import metadata, torchscript

FACTORY = """
from torch import nn

def small(classes=2, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, classes),
    )

def broken():
    raise ValueError("no such thing")

number = 3

def not_a_network():
    return 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "factory_of_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    ).eval()


ARCH = "factory_of_nets.py:small"


def same(variant, model):
    x = torch.randn(3, 3, 16, 16)
    return torch.allclose(variant.model(x), model(x), atol=1e-6)


def half(state):
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize(
    "saved",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {"ema": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in state.items()}},
        lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
    ],
    ids=["plain", "nested", "data-parallel", "ema-compiled", "averaged", "no-counters"],
)
def test_a_state_dict_is_found_and_loaded(project, saved):
    model = network()
    torch.save(saved(model.state_dict()), "m.pth")
    assert same(models.load("m.pth", arch=ARCH, input="3x16x16"), model)


def test_half_precision_weights_become_float32(project):
    model = network()
    torch.save(half(model.state_dict()), "m.pth")
    variant = models.load("m.pth", arch=ARCH, input="3x16x16")
    assert {p.dtype for p in variant.model.parameters()} == {torch.float32}
    model.load_state_dict(half(model.state_dict()))
    assert same(variant, model)


def test_safetensors_are_recognised_by_content(project):
    model = network()
    save_file(model.state_dict(), "weights.bin")
    assert same(models.load("weights.bin", arch=ARCH, input="3x16x16"), model)


def test_the_architecture_may_be_a_module_and_take_arguments(project):
    variant = models.load("factory_of_nets:small?classes=5&width=8", input="3x16x16")
    assert variant.model(torch.randn(1, 3, 16, 16)).shape == (1, 5)
    assert not variant.model.training


def test_a_network_that_cannot_be_copied_is_refused_until_its_norm_is_removed():
    model = network()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[0])
    with pytest.raises(SlimcvError, match="cannot be copied") as caught:
        models.from_module(model, input="3x16x16")
    assert "remove_weight_norm" in caught.value.hint
    nn.utils.remove_weight_norm(model[0])
    nn.utils.parametrizations.weight_norm(model[0])
    assert same(models.from_module(model, input="3x16x16"), model)


def test_a_state_dict_without_an_architecture_is_refused(project):
    torch.save(network().state_dict(), "m.pth")
    with pytest.raises(SlimcvError) as caught:
        models.load("m.pth")
    assert "--arch" in caught.value.hint
    assert "timm:NAME" in caught.value.hint


def test_another_number_of_classes_is_pointed_out(project):
    torch.save(network(classes=7).state_dict(), "m.pth")
    with pytest.raises(SlimcvError, match=r"5.weight is \(7, 4\) instead of \(2, 4\)") as caught:
        models.load("m.pth", arch=ARCH)
    assert "7 classes" in caught.value.hint


def test_missing_and_unexpected_names_are_listed_with_the_nearest(project):
    state = {name.replace("5.", "head."): value for name, value in network().state_dict().items()}
    torch.save(state, "m.pth")
    with pytest.raises(
        SlimcvError, match=r"2 missing \(5.weight, 5.bias\); 2 unexpected \(head.weight, head.bias\)"
    ):
        models.load("m.pth", arch=ARCH)
    state = {name.replace("5.w", "5.kernel_w"): value for name, value in network().state_dict().items()}
    torch.save(state, "m.pth")
    with pytest.raises(SlimcvError) as caught:
        models.load("m.pth", arch=ARCH)
    assert "'5.kernel_weight' in the file is spelled most like '5.weight'" in caught.value.hint


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("factory_of_nets.py:smal", "has no 'smal'"),
        ("factory_of_nets.py:broken", "no such thing"),
        ("factory_of_nets.py:number", "has no 'number'"),
        ("factory_of_nets.py:not_a_network", "gave a int"),
        ("factory_of_nets.py:small?clases=3", "unexpected keyword"),
        ("factory_of_nets.py:small?classes", "not key=value"),
        ("nowhere.py:small", "no code at nowhere.py"),
        ("no.such.module:small", "cannot be imported"),
        ("small", "not an architecture"),
    ],
)
def test_a_wrong_architecture_is_answered(project, arch, message):
    torch.save(network().state_dict(), "m.pth")
    with pytest.raises(SlimcvError, match=message):
        models.load("m.pth", arch=arch, input="3x16x16")


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_is_converted(project, how):
    model = network()
    script = torch.jit.trace(model, torch.randn(1, 3, 16, 16)) if how == "trace" else torch.jit.script(model)
    torch.jit.save(script, "m.pt")
    variant = models.load("m.pt", input="3x16x16")
    assert same(variant, model)
    assert {type(m) for m in variant.model.modules()} >= {nn.Conv2d, nn.BatchNorm2d, nn.Linear}
    with pytest.raises(SlimcvError, match="input shape"):
        models.load("m.pt")


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_may_answer_with_its_scores_in_a_tuple(project, how):
    class InTuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: torch.Tensor):
            return (self.body(x),)

    model = InTuple().eval()
    script = torch.jit.trace(model, torch.randn(1, 3, 16, 16)) if how == "trace" else torch.jit.script(model)
    torch.jit.save(script, "m.pt")
    assert same(models.load("m.pt", input="3x16x16"), model.body)


def test_torchscript_with_two_outputs_is_no_classifier(project):
    class Two(nn.Module):
        def forward(self, x: torch.Tensor):
            return x.mean((2, 3)), x.mean(1)

    torch.jit.save(torch.jit.script(Two()), "m.pt")
    with pytest.raises(SlimcvError, match="puts out"):
        models.load("m.pt", input="3x16x16")


def test_torchscript_that_writes_files_is_not_loaded(project):
    class Writing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "victim")
            return x

    torch.jit.save(torch.jit.script(Writing()), "m.pt")
    with pytest.raises(SlimcvError, match=r"calls torch\.save"):
        models.load("m.pt", input="3x16x16")
    assert not (project / "victim").exists()


class Scaling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mul(x, 2)


def rewritten(change, *, rename=lambda name: name, compression=zipfile.ZIP_STORED):
    """The script of `Scaling` as m.pt, with its code and the names of its records changed."""
    torch.jit.save(torch.jit.script(Scaling()), "whole.pt")
    with zipfile.ZipFile("whole.pt") as old, zipfile.ZipFile("m.pt", "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(rename(name), change(content) if name.endswith(".py") else content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'torch.save(x, "victim")', r"calls torch\.save"),
        (b'torch .save(x, "victim")', r"calls torch\.save"),
        (b't = torch\n    t.save(x, "victim")', "calls save|something else of torch"),
        (b"t = torch", "something else of torch"),
        (b"t = ops", "something else of ops"),
        (b'ops.aten.save(x, "victim")', r"calls (ops\.aten|save)"),
        (b'getattr(torch, "save")(x, "victim")', "something else of (torch|getattr)"),
        (b'getattr(x, "save")("victim")', "something else of getattr"),
        (b'getattr(x, "\\163ave")("victim")', "something else of getattr"),
        (b"get = getattr", "something else of getattr"),
        (b'x.save("victim")', "calls save"),
        (b'torch.from_file("victim")', r"calls torch\.from_file"),
        (b'ops.prim.rpc_sync("a", "b")', r"calls ops\.prim\.rpc_sync"),
        (b"pass # \r    torch.mul(x, 2)", "holds '#'"),
    ],
)
def test_a_script_that_hides_what_it_calls_is_not_loaded(project, line, message):
    rewritten(lambda code: code.replace(b"    return", b"    " + line + b"\n    return"))
    with pytest.raises(SlimcvError, match=message):
        models.load("m.pt", input="3x16x16")
    assert not (project / "victim").exists()


@pytest.mark.parametrize(
    "rename",
    [lambda name: name.replace(".py", ".PY"), lambda name: name.replace("/code/", "/CODE/")],
    ids=["suffix", "folder"],
)
def test_code_in_a_record_of_another_case_is_not_loaded(project, rename):
    rewritten(lambda code: code, rename=rename)
    with pytest.raises(SlimcvError, match="is hidden in the record"):
        models.load("m.pt", input="3x16x16")


def test_code_that_is_there_twice_is_not_loaded(project):
    rewritten(lambda code: code)
    with zipfile.ZipFile("m.pt", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(next(name for name in archive.namelist() if name.endswith(".py")), b"")
    with pytest.raises(SlimcvError, match="is hidden in the record"):
        models.load("m.pt", input="3x16x16")


def test_code_of_any_length_is_not_read(project):
    rewritten(lambda code: code + b" " * (65 << 20), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SlimcvError, match="longer than 64 MB"):
        models.load("m.pt", input="3x16x16")


def test_code_that_is_damaged_is_refused(project):
    rewritten(lambda code: code, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(Path("m.pt").read_bytes())
    start = content.index(b".py") + 3
    content[start : start + 40] = b"\xff" * 40
    Path("m.pt").write_bytes(content)
    with pytest.raises(SlimcvError, match="cannot be read"):
        models.load("m.pt", input="3x16x16")


def test_a_script_of_a_network_with_all_kinds_of_layers_is_read(project):
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding="same"), nn.GELU(), nn.GroupNorm(2, 4),
                nn.Upsample(scale_factor=2), nn.Dropout2d(), nn.InstanceNorm2d(4), nn.ReflectionPad2d(1),
                nn.AdaptiveMaxPool2d(4),
            )  # fmt: skip
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(x).flatten(2).transpose(1, 2)
            if x.shape[1] != 16:
                raise ValueError("of another size")
            return self.head(self.attention(x, x, x)[0].mean(1))

    model = Wide().eval()
    x = torch.randn(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripts = torch.jit.script(model), torch.jit.trace(model, x, check_trace=False)
    for script in scripts:
        torch.jit.save(script, "m.pt")
        assert torch.allclose(torchscript.read(Path("m.pt"))(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"), (b"", "is empty"), (b"plain text\n", "not a model's file"),
        (b"PK\x03\x04 and no more", "damaged or cut short"), (b"\x80\x02 and no more", "cannot be read"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}" + b"x" * 9, "not a whole .safetensors"),
    ],
    ids=["missing", "empty", "text", "zip", "pickle", "safetensors"],
)  # fmt: skip
def test_a_file_that_is_no_model_is_refused(project, content, message):
    if content is not None:
        (project / "m.pt").write_bytes(content)
    with pytest.raises(SlimcvError, match=message):
        models.load("m.pt", arch=ARCH)


def test_a_truncated_file_is_refused(project):
    torch.save(network(), "m.pt")
    content = (project / "m.pt").read_bytes()
    (project / "m.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(SlimcvError, match="damaged"):
        models.load("m.pt")


def test_a_folder_is_refused(project):
    with pytest.raises(SlimcvError, match="is a folder"):
        models.load(str(project))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)], ids=["list", "dict", "tensor"])
def test_a_file_without_a_network_is_refused(project, content):
    torch.save(content, "m.pt")
    with pytest.raises(SlimcvError, match="without a network"):
        models.load("m.pt")


def test_what_holds_itself_is_searched_once(project):
    content = {}
    content.update(dict.fromkeys(("model", "state_dict", "net", "ema"), content))
    torch.save(content, "m.pt")
    with pytest.raises(SlimcvError, match="without a network"):
        models.load("m.pt")


def test_a_network_that_is_not_whole_is_refused(project):
    model = network()
    model.add_module("again", model)
    torch.save(model, "m.pt")
    with pytest.raises(SlimcvError, match="not whole"):
        models.load("m.pt", input="3x16x16")
    torch.save({"model": nn.Sequential.__new__(nn.Sequential)}, "m.pt")
    with pytest.raises(SlimcvError, match="not whole"):
        models.load("m.pt", input="3x16x16")


@pytest.mark.parametrize("text", ["224", "3x224", "3x0x3", "axbxc", "3x224x224x1", "3x99999x3", ""])
def test_a_wrong_input_shape_is_refused(project, text):
    with pytest.raises(SlimcvError, match="no input shape"):
        models.load(ARCH, input=text)


def test_an_input_the_model_cannot_take_is_refused(project):
    with pytest.raises(SlimcvError, match="does not run on 1x16x16"):
        models.load(ARCH, input="1x16x16")


def test_without_any_word_on_the_input_shape_the_user_is_asked(project):
    with pytest.raises(SlimcvError, match="input shape") as caught:
        models.load(ARCH)
    assert "--input 3x224x224" in caught.value.hint
    assert "slimcv.yaml" in caught.value.hint


def test_normalisation_and_classes_are_the_users(project):
    variant = models.load(
        ARCH, input="3x16x16", classes=("cat", "dog"), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)
    )
    assert (variant.classes, variant.input.mean, variant.input.std) == (
        ("cat", "dog"),
        (0.1, 0.2, 0.3),
        (1.0, 1.0, 1.0),
    )
    with pytest.raises(SlimcvError, match="3 class names for a model with 2 outputs"):
        models.load(ARCH, input="3x16x16", classes=("a", "b", "c"))
    with pytest.raises(SlimcvError, match="do not fit 3"):
        models.load(ARCH, input="3x16x16", mean=(0.1,))


def test_grey_pictures_have_one_mean_and_one_deviation():
    spec = metadata.describe(None, arch=None, input="1x28x28", mean=None, std=None)
    assert (len(spec.mean), len(spec.std)) == (1, 1)
