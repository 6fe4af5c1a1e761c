"""The doctor: libraries that break are named, runtimes are really run, what is missing comes with a way."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest
from torch import nn

from slimcv import cli
from slimcv.doctor import libraries, machine, runtimes, trial
from slimcv.doctor.findings import Diagnosis, Library, Runtime
from slimcv.doctor.missing import gather
from slimcv.measure import environment
from slimcv.models import capture
from slimcv.report.doctor import render_diagnosis
from slimcv.runtimes import eager
from slimcv.step import InputSpec, Variant

MACHINE = dataclasses.replace(
    machine.describe(), isa=(), cores=4, affinity=(0, 1, 2, 3), threads_allowed=4, allocator_tunable=True
)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Modules found by every Python process: one raises, one ends its process."""
    (tmp_path / "brokenlib.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    (tmp_path / "fatallib.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "finelib.py").write_text("print('chatter')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("brokenlib", "RuntimeError: operator nms does not exist"),
        ("fatallib", "the process that imports it ends with -11"),
        ("finelib", None),
        ("absentlib", "ModuleNotFoundError: No module named 'absentlib'"),
    ],
)
def test_a_library_is_imported_in_a_process_of_its_own(broken, module, problem):
    assert libraries.problem(module) == problem


def test_a_library_is_imported_by_the_name_of_its_module():
    owners = importlib.metadata.packages_distributions()
    installed = {name.lower() for names in owners.values() for name in names}
    looked_at = {name: libraries.module_of(name, owners) for name in libraries.wanted() if name in installed}
    assert looked_at["torch-pruning"] == "torch_pruning"
    assert looked_at["scikit-learn"] == "sklearn"
    assert looked_at["pyyaml"] == "yaml"
    assert all(importlib.util.find_spec(module.partition(".")[0]) for module in looked_at.values())


def test_the_libraries_are_those_slimcv_asks_for_and_none_for_developers():
    wanted = libraries.wanted()
    assert wanted["torch"] is None
    assert wanted["timm"] == "timm"
    assert "pytest" not in wanted
    assert wanted.keys() >= libraries.CORE


def test_what_every_page_is_written_with_belongs_to_the_core():
    code = "import json, sys, slimcv.report.html.writing; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    roots = {module.partition(".")[0] for module in json.loads(done.stdout)}
    owners = importlib.metadata.packages_distributions()
    needed = {name.lower() for root in roots for name in owners.get(root, ())}
    assert {"jinja2", "markupsafe"} <= needed & libraries.wanted().keys() <= libraries.CORE


def test_a_tiny_model_is_run_in_pytorch():
    found = trial.attempt("eager")
    assert found.works
    assert found.precision == "fp32"
    assert "fp32" in found.precisions
    assert found.start_seconds > 0
    assert "kernels for" in found.details


def test_a_runtime_that_fails_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    found = trial.attempt("inductor")
    assert not found.works
    assert "C++ compiler" in found.problem
    assert "g++" in found.hint


def test_a_runtime_that_computes_something_else_says_what_to_do(monkeypatch):
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    three = Variant(capture.capture(layers.eval(), InputSpec(3, 8, 8)), InputSpec(3, 8, 8))
    monkeypatch.setattr(eager, "tiny", lambda: three)
    found = trial.attempt("eager")
    assert found.problem == "the answer has another shape than the model's"
    assert "another version" in found.hint


def test_a_runtime_tried_in_its_own_process_comes_back_as_a_value():
    found = runtimes.tried("eager")
    assert (found.name, found.works) == ("eager", True)
    assert "fp32" in found.precisions


def test_a_runtime_whose_process_dies_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = runtimes.tried("openvino")
    assert not found.works
    assert found.problem == "the process ended with 1"
    assert "pip install openvino" in found.hint


def test_what_is_missing_comes_with_the_command_that_brings_it():
    found = gather(
        MACHINE,
        (
            Library("torch", "2.13.0", None, core=True),
            Library("onnx", None, None, core=False),
            Library("mlxtend", None, "demo", core=False),
            Library("timm", "1.0", "timm", core=False, problem="operator torchvision::nms does not exist"),
        ),
        (Runtime("inductor", works=False, problem="no compiler", hint="apt install g++"),),
    )
    ways = {one.what.partition(" ")[0]: one.get for one in found}
    assert ways["onnx"] == "pip install 'onnx'"
    assert ways["mlxtend"] == "pip install 'slimcv[demo]'"
    assert "torchvision that was built for this torch" in ways["timm"]
    assert [one.get for one in found if "inductor" in one.what] == ["apt install g++"]


def test_a_library_that_does_not_import_is_installed_again_and_only_a_cpu_is_another_cpu(monkeypatch):
    monkeypatch.setattr(environment, "has_int8_instructions", lambda: False)
    found = gather(
        dataclasses.replace(MACHINE, isa=("sse2",)),
        (Library("openvino", "2026.1", None, core=False, problem="undefined symbol"),),
        (Runtime("eager", works=False, problem="it hangs"),),
    )
    assert found[0].get == "pip install --force-reinstall 'openvino'"
    values = dataclasses.replace(diagnosis(), missing=found).as_json()
    lines = render_diagnosis(values, "markdown").splitlines()
    (hanging,) = [line for line in lines if line.startswith("| the runtime eager: it hangs")]
    assert hanging.endswith("| – |")
    (int8,) = [line for line in lines if line.startswith("| instructions for 8-bit")]
    assert int8.endswith("| another CPU |")


def test_cores_that_may_not_be_used_are_missing():
    (found,) = gather(dataclasses.replace(MACHINE, threads_allowed=1), (), ())
    assert found.what == "3 of 4 cores"
    assert "quota" in found.get


def diagnosis(*, works=True):
    libraries = (Library("torch", "2.13.0", None, core=True), Library("timm", None, "timm", core=False))
    running = (
        Runtime("eager", True, "fp32", ("fp32",), 1.5, "kernels for AVX2"),
        Runtime("inductor", works=False, problem="no <b>compiler</b>", hint="apt install g++"),
    )
    return Diagnosis(works, machine.describe(), libraries, running, gather(MACHINE, libraries, running))


def test_text_fits_a_terminal_and_says_it_first():
    text = render_diagnosis(diagnosis().as_json(), "text")
    assert text.startswith("slimcv works here")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "not installed" in text
    assert "pip install 'slimcv[timm]'" in " ".join(text.split())
    broken = render_diagnosis(diagnosis(works=False).as_json(), "text")
    assert broken.startswith("slimcv does not work here")


def test_json_is_strict_and_complete():
    values = json.loads(render_diagnosis(diagnosis().as_json(), "json"), parse_constant=pytest.fail)
    assert values["schema_version"] == 1
    assert values["works"] is True
    assert values["libraries"][1]["works"] is False
    assert {"cpu", "caches", "affinity", "quota_cpus", "memory_limit_bytes"} <= set(values["machine"])
    assert [runtime["name"] for runtime in values["runtimes"]] == ["eager", "inductor"]


def test_markdown_escapes_what_libraries_say():
    text = render_diagnosis(diagnosis().as_json(), "markdown")
    assert r"\<b\>compiler" in text
    assert "| runtime |" in text


def test_the_doctor_itself_needs_no_library():
    code = (
        "import sys; import slimcv.doctor; "
        "sys.exit(bool(set(sys.modules) & {'torch', 'numpy', 'pydantic', 'rich', 'yaml'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def called(monkeypatch, capsys):
    """Exit code and output of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["slimcv", "doctor", "--format", "json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_where_slimcv_works_every_runtime_is_run_and_the_exit_code_is_0(monkeypatch, capsys):
    # Of all its libraries one is imported: the example in docs/commands/doctor.md imports them all.
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["safetensors>=0.4"])
    code, found = called(monkeypatch, capsys)
    assert (code, found["works"]) == (0, True)
    running = {runtime["name"]: runtime for runtime in found["runtimes"]}
    assert list(running) == ["eager", "inductor", "aotinductor", "onnxruntime", "openvino"]
    assert all(runtime["works"] for name, runtime in running.items() if not name.endswith("inductor"))
    assert {"fp32", "int8"} <= set(running["openvino"]["precisions"])


def test_without_a_library_of_the_core_the_exit_code_is_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["safetensors>=0.4"])
    (tmp_path / "safetensors.py").write_text("raise ImportError('built for another Python')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, found = called(monkeypatch, capsys)
    assert (code, found["works"], found["runtimes"]) == (2, False, [])
    assert "built for another Python" in found["missing"][0]["what"]
