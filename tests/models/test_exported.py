"""Hostile and foreign `.pt2` files: nothing in them runs."""

import io
import json
import logging
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from slimcv import models
from slimcv.errors import SlimcvError
from slimcv.models import exported
from slimcv.step import InputSpec, Variant

NETWORK = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
).eval()


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def archive(tmp_path):
    program = torch.export.export(
        NETWORK, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
    )
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    return path


def rewrite(path, **changes):
    """The archive with records replaced or added; `__` in a keyword stands for `/`, `DOT` for `.`."""
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    root = next(iter(records)).partition("/")[0]
    for name, content in changes.items():
        key = f"{root}/{name.replace('__', '/').replace('DOT', '.')}"
        records[key] = content(records.get(key, b"")) if callable(content) else content
    with zipfile.ZipFile(path, "w") as new:
        for name, content in records.items():
            new.writestr(name, content)


def everywhere(value, key, change):
    """`value` with `change` applied to every entry called `key`, however deep."""
    if isinstance(value, dict):
        return {k: change(v) if k == key else everywhere(v, key, change) for k, v in value.items()}
    return [everywhere(item, key, change) for item in value] if isinstance(value, list) else value


def edit(key, change):
    return lambda content: json.dumps(everywhere(json.loads(content), key, change)).encode()


def refused(path):
    with pytest.raises(SlimcvError, match="could run code") as caught:
        models.load(str(path))
    return caught.value.message


def test_a_pickle_among_the_example_inputs_is_not_run(archive, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    rewrite(archive, data__sample_inputs__modelDOTpt=pickled(((Touch(victim),), {})))
    assert "example inputs" in refused(archive)
    assert not victim.exists()
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
    torch.export.load(archive)
    assert victim.exists(), "torch itself would have run it: the test means something"


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Called:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_example_inputs_of_any_size_are_not_made(archive):
    rewrite(archive, data__sample_inputs__modelDOTpt=pickled(((Called(bytearray, 10**6),), {})))
    assert "example inputs" in refused(archive)


def test_weights_larger_than_what_is_stored_are_refused(archive):
    sizes = [{"as_int": 10**4}, {"as_int": 10**4}]
    rewrite(
        archive,
        data__weights__model_weights_configDOTjson=edit("sizes", lambda _: sizes),
        data__weights__weight_0=b"",
    )
    with pytest.raises(SlimcvError, match="larger than what is stored"):
        models.load(str(archive))


def test_an_expression_that_is_code_is_not_evaluated(archive, tmp_path):
    victim = tmp_path / "victim"
    code = f"__import__('pathlib').Path('{victim}').touch()"
    rewrite(archive, models__modelDOTjson=edit("expr_str", lambda _: code))
    assert "expression" in refused(archive)
    assert not victim.exists()
    import sympy

    with pytest.raises((TypeError, AttributeError, sympy.SympifyError)):
        sympy.sympify(code) + "never a number"
    assert victim.exists(), "sympy itself would have run it: the test means something"


def test_pickled_weights_are_not_loaded(archive, tmp_path):
    victim = tmp_path / "victim"
    rewrite(
        archive,
        data__weights__model_weights_configDOTjson=edit("use_pickle", lambda _: True),
        data__weights__weight_0=pickle.dumps(Touch(victim)),
    )
    assert "pickled object" in refused(archive)
    assert not victim.exists()


@pytest.mark.parametrize(
    "record",
    [
        "data__aotinductor__model__codeDOTso",
        "data__constants__custom_obj_0",
        "data__weights__modelDOTpt",
        "models__otherDOTjson",
    ],
)
def test_records_a_plain_program_does_not_need_are_refused(archive, record):
    rewrite(archive, **{record: b"whatever"})
    assert "record" in refused(archive)


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.os.system",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "#x:y",
    ],
)
def test_operators_that_do_more_than_compute_are_refused(archive, target):
    rewrite(archive, models__modelDOTjson=edit("target", lambda _: target))
    assert target in refused(archive)


def test_a_container_that_imports_a_module_is_refused(archive, tmp_path):
    spec = {
        "type": "collections.defaultdict",
        "context": '{"default_factory_module": "antigravity"}',
        "children_spec": [],
    }
    rewrite(archive, models__modelDOTjson=edit("out_spec", lambda _: json.dumps([1, spec])))
    assert "container" in refused(archive)


def renamed(value, old, new):
    """`value` with a name replaced wherever it stands, as a key too."""
    if isinstance(value, dict):
        return {new if k == old else k: renamed(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else value


def rename(old, new):
    return lambda content: json.dumps(renamed(json.loads(content), old, new)).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("input", "input={code}"),
        ("relu", "relu = {code}; relu"),
        ("p_0_weight", "p_0_weight={code}"),
        ("0.weight", 'a"+str({code})+"'),
        ("0.weight", "a\\"),
        ("0.weight", 'a\n{code}\n"'),
        ("input", "class"),
    ],
)
def test_a_name_that_is_code_does_not_become_source(archive, tmp_path, old, new):
    victim = tmp_path / "victim"
    name = new.format(code=f"__import__('pathlib').Path('{victim}').touch()")
    change = rename(old, name)
    rewrite(archive, models__modelDOTjson=change, data__weights__model_weights_configDOTjson=change)
    assert "the name" in refused(archive)
    assert not victim.exists()


@pytest.mark.parametrize(
    "named",
    [
        lambda code: {"forward_arg_names": [f"input={code}"]},
        lambda code: {"in_spec": spec_of_arguments(f"x': {code}, 'y")},
        lambda code: {"in_spec": spec_of_arguments(f"x={code}")},
    ],
)
def test_arguments_that_are_code_do_not_become_source(archive, tmp_path, named):
    victim = tmp_path / "victim"
    entries = named(f"__import__('pathlib').Path('{victim}').touch()")
    for key, entry in entries.items():
        rewrite(archive, models__modelDOTjson=edit(key, lambda _, entry=entry: entry))
    assert "could run code" in refused(archive)
    assert not victim.exists()


def spec_of_arguments(name):
    """The container of a call with one keyword argument."""
    leaf = {"type": None, "context": None, "children_spec": []}
    positional = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    keywords = {"type": "builtins.dict", "context": json.dumps([name]), "children_spec": [leaf]}
    return json.dumps(
        [1, {"type": "builtins.tuple", "context": "null", "children_spec": [positional, keywords]}]
    )


def test_a_range_of_a_symbol_with_a_long_number_is_refused(archive):
    rewrite(
        archive,
        models__modelDOTjson=edit(
            "range_constraints", lambda _: {"u99999999999": {"min_val": 0, "max_val": 9}}
        ),
    )
    assert "u99999999999" in refused(archive)


def test_source_that_torch_cannot_compile_is_a_damaged_file(archive):
    names = ["input", "input"]
    rewrite(archive, models__modelDOTjson=edit("forward_arg_names", lambda _: names))
    with pytest.raises(SlimcvError, match="damaged"):
        models.load(str(archive))


def test_names_that_modules_and_arguments_really_have_are_read(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({"3x3-a b": nn.Conv2d(3, 4, 3), "größe": nn.Conv2d(4, 4, 1)})
            self.head = nn.Linear(4, 2)

        def forward(self, größe):
            for block in self.blocks.values():
                größe = block(größe)
            noise = torch.empty_like(größe).uniform_(0, 0)
            return {"the logits": self.head((größe + noise).mean((2, 3)))}

    program = torch.export.export(Odd(), (torch.randn(2, 3, 16, 16),), strict=False)
    torch.export.save(program, tmp_path / "m.pt2")
    read, _ = exported.read(tmp_path / "m.pt2")
    assert {"blocks.3x3-a b.weight", "blocks.größe.weight"} <= read.state_dict.keys()


@pytest.mark.parametrize(
    "text",
    [
        "s77", "Symbol('s77', positive=True, integer=True)", "Mul(Integer(4), Symbol('s0', integer=True))",
        "s0*4 + 1", "FloorDiv(s0, 2)", "Eq(s0, 2)", "s0 >= 2", "Pow(Symbol('s1'), Integer(2))", "-1", "u0",
        "Pow(s0, -2)", "s0**2", "Float('0.5', precision=53)", "Mul(Rational(1, 2), zuf0)",
    ],
)  # fmt: skip
def test_sizes_are_expressions(text):
    assert exported.harmless_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "s0.__class__", "().__class__", "lambda: 0", "[x for x in s0]", "open('x')",
        "Symbol('x y')", "Symbol(open('x'))", "9**9**9", "Pow(Integer(9), Integer(9))",
        "Integer.__init__(s0)",
        "(s0)(s1)", "f'{s0}'", "Symbol('s0', positive=open('x'))", "eval", "'s0'", "",
        "Symbol('s0', open('x'))", "Symbol('s0', *[open('x')])", "Float('1.0', open('x'))",
        "Float(open('x'))", "Float('1.0', precision=10000000000)", "Pow(Symbol('s0'), exit(3))",
        "Pow(s0, open('x')(3))", "Pow(s0, Integer(3, open('x')))", "Pow(s0, Integer(3, x=open('x')))",
        "Pow(s0, -open('x'))", "Pow(s0, 2, evaluate=False)", "Add(s0, 1, evaluate=open('x'))", "s0 in s1",
        "Add(s0, # )\n open('x'))", "Symbol('s99999999999')",
    ],
)  # fmt: skip
def test_anything_else_is_not(text):
    assert not exported.harmless_expression(text)


def test_a_program_exported_by_somebody_else_is_read_and_checked(archive):
    variant = models.load(str(archive))
    assert str(variant.input) == "3x16x16"
    x = torch.randn(5, 3, 16, 16)
    assert torch.allclose(variant.model(x), NETWORK(x), atol=1e-6)
    assert variant.classes is None


@pytest.mark.parametrize("training", [True, False])
def test_a_program_exported_for_one_picture_takes_any_number(tmp_path, training):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )
    torch.export.save(
        torch.export.export(network.train(training), (torch.randn(1, 3, 16, 16),)), tmp_path / "m.pt2"
    )
    x = torch.randn(5, 3, 16, 16)
    model = models.load(str(tmp_path / "m.pt2")).model
    assert torch.allclose(model(x), network.eval()(x), atol=1e-6)


def test_a_strict_export_keeps_its_names(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 2)
    )
    program = torch.export.export(network, (torch.randn(2, 3, 16, 16),), strict=True)
    torch.export.save(program, tmp_path / "m.pt2")
    model = models.load(str(tmp_path / "m.pt2")).model
    called = [node.target for node in model.graph.nodes if node.op == "call_module"]
    assert called == ["0", "3", "4"]
    assert isinstance(model.get_submodule("3"), nn.Dropout)


def test_a_quantised_graph_is_kept_as_it_is(tmp_path):
    from torch.ao.quantization.fx import _decomposed  # noqa: F401

    quantised = torch.ops.quantized_decomposed

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(-127, 127, (4, 3, 3, 3), dtype=torch.int8))

        def forward(self, x):
            x = quantised.quantize_per_tensor(x, 0.05, 0, -128, 127, torch.int8)
            x = quantised.dequantize_per_tensor(x, 0.05, 0, -128, 127, torch.int8)
            weight = quantised.dequantize_per_tensor(self.weight, 0.01, 0, -128, 127, torch.int8)
            return torch.conv2d(x, weight).mean((2, 3))

    spec = InputSpec(3, 16, 16)
    graph = models.capture.lift(models.capture.export(Quantised().eval(), spec))
    variant = Variant(graph, spec, precision="int8", runtime="onnxruntime", int8_mac_share=1.0)
    models.checkpoint.save(variant, tmp_path / "q.pt2")
    again = models.checkpoint.read(tmp_path / "q.pt2")
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(again.model(x), graph(x))
    assert again.model.weight.dtype == torch.int8
    assert (again.precision, again.runtime, again.int8_mac_share) == ("int8", "onnxruntime", 1.0)


def test_a_checkpoint_of_another_tool_is_no_checkpoint_of_slimcv(archive):
    with pytest.raises(SlimcvError, match="not written by slimcv"):
        models.checkpoint.read(archive)
