"""The command line: what it prints, how it ends, and that bad input is one sentence and a hint."""

import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import bundle, cli, runtimes
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.run import Run
from slimcv.step import InputSpec, Variant

SMALL = ("--input", "3x16x16", "--threads", "1", "--quick", "--format", "json")


def call(monkeypatch, capsys, *words):
    """Run the command in this process: its exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["slimcv", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture
def slimcv(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: call(monkeypatch, capsys, *words)


@pytest.fixture
def model(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    torch.save(network, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(10):
            path = tmp_path / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def refused(result, message, hint=""):
    """Exit code 2, nothing on stdout, one error line and one hint line at the end of stderr."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    lines = err.splitlines()
    assert "Traceback" not in err
    assert [line.split(":")[0] for line in lines[-2:]] == ["error", "hint"], err
    assert message in lines[-2]
    assert hint in lines[-1]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("optimise",), "no such command 'optimise'", "did you mean 'optimize'?"),
        (("zzz",), "no such command 'zzz'", "--help`"),
        (("recipes", "shwo", "x"), "no such command 'shwo'", "did you mean 'show'?"),
        (("optimize",), "missing argument 'MODEL'", " optimize --help`"),
        (("optimize", "m.pt", "--recpie", "x"), "no such option: --recpie", "did you mean '--recipe'?"),
        (("profile", "m.pt", "--zzz"), "no such option: --zzz", " profile --help`"),
        (("--versoin",), "no such option: --versoin", "did you mean '--version'?"),
        (("optimize", "m.pt", "--threads", "0"), "'--threads': input should be greater", "--help`"),
        (("optimize", "m.pt", "--max-drop", "a"), "'--max-drop': input should be a valid number", "--help`"),
        (("profile", "m.pt", "--format", "xml"), "'--format': 'xml' is not one of", "--help`"),
        (("profile", "m.pt", "--arch"), "option '--arch' requires an argument", "--help`"),
        (("verify", "m", "n"), "unexpected extra argument", "--help`"),
        (("profile", "m.pt", "n.pt"), "one model wanted, 2 given", "--diff"),
        (("profile", "--diff", "m.pt"), "two models or bundles wanted, 1 given", "--diff A B"),
        (("profile", "m.pt", "--runtime", "openvin"), "not timed in 'openvin'", "'openvino'?"),
        (
            ("profile", "m.pt", "--training", "--runtime", "openvino"),
            "--runtime is not for",
            "--training away",
        ),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_sentence_and_a_hint(slimcv, words, message, hint):
    result = slimcv(*words)
    refused(result, message, hint)
    assert len(result[2].splitlines()) == 2


def test_without_a_command_the_help_is_shown_beside_the_result(slimcv):
    code, out, err = slimcv()
    assert (code, out) == (2, "")
    assert "optimize" in err


def test_what_is_done_on_termination_ends_with_the_command(slimcv):
    before = signal.getsignal(signal.SIGTERM)
    for words in (("--version",), ("optimise",), ("profile", "none.pt")):
        slimcv(*words)
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("profile",), "the same command starts anew"),
        (("optimize",), "the same command goes on from the last finished step"),
        (("sensitivity", "--data", "."), "the same command goes on from the last finished layer"),
    ],
)
def test_an_interruption_ends_with_130_and_says_what_the_same_command_will_do(
    command, said, slimcv, tmp_path
):
    (tmp_path / "stopped.py").write_text("raise KeyboardInterrupt")
    code, out, err = slimcv(*command, "stopped.py:build", "--input", "3x8x8")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == f"interrupted: {said}"


def test_a_run_that_is_refused_leaves_its_folder_to_the_next_one(slimcv, model, tmp_path):
    """With the pictures that are asked for the same command is another run, which may have that folder."""
    words = ("optimize", model, "--recipe", "cpu_lossless", "--strict", *SMALL)
    refused(slimcv(*words), "there are no pictures", "--data DIR")
    assert not (tmp_path / "model-slim" / "journal.jsonl").exists()


def test_after_an_interruption_overwriting_is_not_what_goes_on(slimcv, tmp_path):
    (tmp_path / "stopped.py").write_text("raise KeyboardInterrupt")
    _, _, err = slimcv("optimize", "stopped.py:build", "--input", "3x8x8", "--overwrite")
    assert "interrupted: the same command, without --overwrite, goes on" in err


@pytest.fixture
def locked(tmp_path):
    """A folder closed to this process; root, who may read everything, is somebody else for a while."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    yield folder
    if as_root:
        os.seteuid(0)
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        ("profile", "{}/model.pt"),
        ("optimize", "m.pt", "--recipe", "{}/mine.yaml"),
        ("optimize", "m.pt", "--dry-run", "--recipe", "{}/mine.yaml"),
    ],
)
def test_what_may_not_be_read_is_one_sentence(words, locked, monkeypatch, capsys):
    found = call(monkeypatch, capsys, *(word.format(locked) for word in words))
    refused(found, "ermission denied", "permissions")


def test_an_out_folder_that_is_closed_is_refused(locked):
    with pytest.raises(SlimcvError, match="cannot be written: Permission denied"):
        Run.open(locked, identity={})


def test_help_and_version_do_not_import_torch_nor_draw(tmp_path):
    code = (
        "import sys\nfrom slimcv import cli\nsys.argv = ['slimcv', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'rich', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "optimize" in done.stdout


def test_the_version_is_printed(slimcv):
    code, out, _ = slimcv("--version")
    assert (code, out.split()[0]) == (0, "slimcv")


def test_recipes_are_listed_shown_and_their_steps_explained(slimcv):
    assert "cpu_fast" in slimcv("recipes")[1]
    assert "depthwise_separable" in slimcv("recipes", "show", "cpu_fast")[1]
    out = slimcv("recipes", "steps")[1]
    assert "depthwise_separable (surgery): " in out
    assert "rank = 1" in out


def test_a_dry_run_prints_the_resolved_plan_and_touches_nothing(slimcv, tmp_path):
    code, out, err = slimcv(
        "optimize", "none.pt", "--dry-run", "--set", "depthwise_separable.rank=2", "--max-drop", "0.5"
    )
    assert (code, err) == (0, "")
    assert "rank: 2" in out
    assert "max_drop: 0.5" in out
    assert list(tmp_path.iterdir()) == []


def test_limits_of_training_reach_the_plan(slimcv):
    words = ("optimize", "none.pt", "--dry-run", "--memory", "3GB", "--checkpoint-every", "5s")
    code, out, err = slimcv(*words)
    assert (code, err) == (0, "")
    plan = " ".join(out.split())
    assert plan.count("memory: 3000000000") == plan.count("checkpoint_every: 5.0") > 0
    refused(slimcv(*words[:-1], "soon"), "checkpoint_every = 'soon'", "time between two states")


@pytest.mark.slow
def test_decoded_pictures_are_kept_where_and_as_far_as_it_is_said(slimcv, model, pictures, tmp_path):
    (tmp_path / "only.yaml").write_text("gate: {max_drop: 100}\nsteps: [export_onnx]")
    words = ("optimize", model, "--recipe", "./only.yaml", "--data", pictures, *SMALL)
    for name, more, kept in (("a", (), 1), ("b", ("--cache-limit", "1kB"), 0), ("c", ("--no-cache",), 0)):
        cache = tmp_path / f"cache-{name}"
        code, _, err = slimcv(*words, "--out", tmp_path / name, "--cache", cache, *more)
        assert code == 0, err
        assert len(list(cache.glob("*.npy"))) == kept
        assert ("they are decoded anew whenever they are needed" in err) == (name == "b")
    refused(slimcv(*words, "--cache-limit", "much"), "--cache-limit")


def test_a_mistyped_recipe_is_answered_before_anything_else(slimcv):
    refused(slimcv("optimize", "none.pt", "--recipe", "cpu_fats"), "cpu_fats", "did you mean 'cpu_fast'")


def test_a_missing_file_is_named(slimcv):
    refused(slimcv("optimize", "none.pt"), "none.pt")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_model_is_named(slimcv, tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    refused(slimcv("optimize", "model.pt", "--input", "3x16x16"), "model.pt")
    assert not (tmp_path / "model-slim").exists()


def test_a_directory_is_no_model(slimcv, tmp_path):
    (tmp_path / "model.pt").mkdir()
    refused(slimcv("profile", "model.pt"), "model.pt")


def test_a_truncated_file_is_named(slimcv, model):
    model.write_bytes(model.read_bytes()[:-100])
    refused(slimcv("profile", model, "--input", "3x16x16"), "model.pt")


class Hostile:
    """Unpickling this runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def test_a_hostile_pickle_is_refused_and_never_run(slimcv, tmp_path):
    torch.save(Hostile(tmp_path / "owned"), tmp_path / "model.pt")
    refused(slimcv("optimize", "model.pt", "--input", "3x16x16"), "system")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    pickle.loads(content)
    assert (tmp_path / "owned").exists(), "the pickle would not have done anything in the first place"


def test_a_model_without_a_known_input_is_refused(slimcv, model):
    refused(slimcv("optimize", model), "input", "--input")


@pytest.mark.parametrize("shape", ["3", "3x0x16", "axbxc", "224"])
def test_a_wrong_input_shape_is_refused(slimcv, model, shape):
    refused(slimcv("optimize", model, "--input", shape), shape)


def test_pictures_of_another_number_of_classes_are_refused_before_any_work(slimcv, model, pictures, tmp_path):
    (pictures / "bird").mkdir()
    Image.new("RGB", (16, 16)).save(pictures / "bird" / "0.png")
    Image.new("RGB", (16, 16), "red").save(pictures / "bird" / "1.png")
    refused(slimcv("optimize", model, "--input", "3x16x16", "--data", pictures), "3 classes")
    assert not (tmp_path / "model-slim").exists()


def test_no_pictures_and_one_class_are_refused(slimcv, model, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(slimcv("optimize", model, "--input", "3x16x16", "--data", "empty"), "empty")
    (tmp_path / "empty" / "cat").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "empty" / "cat" / "0.png")
    refused(slimcv("optimize", model, "--input", "3x16x16", "--data", "empty"), "class")


def test_pictures_that_are_all_broken_are_refused(slimcv, model, pictures):
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"broken")
    refused(slimcv("optimize", model, "--input", "3x16x16", "--data", pictures), "")


def test_an_out_folder_that_cannot_be_written_is_refused(slimcv, model, tmp_path):
    (tmp_path / "file").write_text("")
    refused(slimcv("optimize", model, "--input", "3x16x16", "--out", "file/out"), "file/out")


@pytest.fixture
def _soon(monkeypatch):
    """What is measured of this machine, and of layers a step would make, needs not be exact here."""
    monkeypatch.setattr("slimcv.profile.roofline.limits.SECONDS", 0.01)
    monkeypatch.setattr("slimcv.profile.prediction.SECONDS", 0.3)


@pytest.mark.usefixtures("_soon")
def test_profile_as_json_is_json_and_nothing_else(slimcv, model):
    code, out, _ = slimcv("profile", model, "--input", "3x16x16", "--threads", "1", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert found["totals"]["parameters"] == 122
    assert found["command"] == [
        "slimcv",
        "profile",
        str(model),
        *["--input", "3x16x16", "--threads", "1", "--format", "json"],
    ]
    assert found["environment"]["versions"]["torch"] == torch.__version__


@pytest.mark.usefixtures("_soon")
def test_profile_needs_no_pictures_and_optimize_says_which_file_names_them(slimcv, model, tmp_path):
    (tmp_path / "slimcv.yaml").write_text("data: moved\ninput: 3x16x16\n")
    assert slimcv("profile", model, "--threads", "1")[0] == 0
    refused(slimcv("optimize", model), "slimcv.yaml: data: ", "--data")


@pytest.mark.usefixtures("_soon")
def test_profile_lists_the_layers(slimcv, model):
    code, out, _ = slimcv("profile", model, "--input", "3x16x16", "--threads", "1")
    assert code == 0
    assert "convolution" in out


@pytest.mark.usefixtures("_soon")
def test_two_models_are_set_against_each_other_layer_by_layer(slimcv, model):
    words = ("profile", "--diff", model, model, "--input", "3x16x16", "--threads", "1")
    code, out, _ = slimcv(*words, "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert all(pair["before"]["macs"] == pair["after"]["macs"] for pair in found["layers"])
    assert sum(pair["before"]["parameters"] for pair in found["layers"]) == 122
    assert found["command"][:3] == ["slimcv", "profile", "--diff"]
    assert [one["runtime"] for one in found["totals"]] == ["eager", "eager"]


@pytest.mark.slow
@pytest.mark.usefixtures("_soon")
def test_a_bundle_is_set_against_its_model_in_the_runtime_that_serves_it(slimcv, model, tmp_path):
    (tmp_path / "export.yaml").write_text("steps: [export_onnx]")
    words = ("--recipe", "export.yaml", "--runtime", "onnxruntime", "--keep", "onnx,pt2", "--zip")
    assert slimcv("optimize", model, *words, *SMALL)[0] == 0
    sides = (model, tmp_path / "model-slim.zip")
    words = ("profile", "--diff", *sides, "--input", "3x16x16", "--threads", "1", "--html", "page.html")
    code, out, _ = slimcv(*words, "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert [one["runtime"] for one in found["totals"]] == ["onnxruntime", "onnxruntime"]
    assert found["models"][1]["serves"]["path"] == "model.onnx"
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "its model.pt2 in ONNX Runtime fp32; it serves model.onnx (onnxruntime fp32)" in page


@pytest.mark.usefixtures("_soon")
def test_a_profile_draws_the_roofline_where_it_is_told(slimcv, model, tmp_path):
    words = ("profile", model, "--input", "3x16x16", "--threads", "1", "--roofline")
    assert slimcv(*words, tmp_path / "new" / "roof.svg")[0] == 0
    assert (tmp_path / "new" / "roof.svg").read_text("utf-8").startswith("<svg")
    code, out, err = slimcv(*words, tmp_path / "new")
    assert code == 2
    assert "error: cannot write" in err
    assert "3x16x16, batch 1" in out, "what was measured is not lost"


@pytest.mark.slow
def test_the_lossless_recipe_needs_no_pictures_and_the_same_command_repeats_its_report(
    slimcv, model, tmp_path
):
    words = ("optimize", model, "--recipe", "cpu_lossless", *SMALL)
    code, out, _ = slimcv(*words)
    report = json.loads(out)
    assert code == 0
    assert report["original"]["top1"] is None
    assert report["optimized"]["agreement"] == 100.0
    assert report["gate"]["met"] is True
    assert report["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    folder = tmp_path / "model-slim"
    for name in (
        "model.pt2",
        "model.onnx",
        "openvino/model.xml",
        "openvino/model.bin",
        "report.json",
        "report.md",
        "report.html",
        "MODEL_CARD.md",
        "golden.npz",
        "slimcv.json",
    ):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "report.json").read_text()) == report
    assert json.loads(slimcv(*words)[1])["optimized"] == report["optimized"]
    refused(slimcv(*words, "--seed", "1"), "another seed", "--overwrite")


@pytest.fixture
def export_only(tmp_path):
    (tmp_path / "export.yaml").write_text("steps: [export_onnx]")
    return tmp_path / "export.yaml"


def test_what_is_kept_is_named_and_the_folder_is_one_file_too(slimcv, model, export_only, tmp_path):
    words = ("optimize", model, "--recipe", export_only, *SMALL)
    refused(slimcv(*words, "--keep", "onnx,onnxx"), "no file 'onnxx'", "onnx")
    code, _, err = slimcv(*words, "--runtime", "onnxruntime", "--keep", "onnx", "--zip")
    folder = tmp_path / "model-slim"
    manifest = bundle.read(folder)
    assert code == 0
    assert str(folder.with_name("model-slim.zip")) in err
    assert "model.onnx" in manifest.files
    assert "model.pt2" not in manifest.files
    assert not (folder / "model.pt2").exists()
    assert not (folder / "checkpoints").exists()
    with zipfile.ZipFile(tmp_path / "model-slim.zip") as zipped:
        assert {*zipped.namelist()} == {f"model-slim/{name}" for name in (*manifest.files, "slimcv.json")}
        zipped.extractall(tmp_path / "elsewhere")
    assert bundle.read(tmp_path / "elsewhere" / "model-slim") == manifest


def test_without_pictures_lossy_steps_are_skipped_and_the_network_is_shipped_unchanged(slimcv, model):
    _, out, _ = slimcv("optimize", model, "--recipe", "cpu_fast", *SMALL)
    report = json.loads(out)
    lossy = [step for step in report["steps"] if step["name"] in ("depthwise_separable", "quantize_int8")]
    assert [(step["outcome"], step["reason"]) for step in lossy] == [("skipped", "needs data")] * 2
    assert report["optimized"]["parameters"] == report["original"]["parameters"]


def test_a_gate_that_cannot_be_met_ends_with_3_and_still_ships(slimcv, model, tmp_path):
    (tmp_path / "int8.yaml").write_text("steps: [quantize_int8, export_openvino]")
    words = (
        "--runtime",
        "onnxruntime",
        "--min-speedup",
        "1e6",
        "--junit",
        "gate.xml",
        "--input-format",
        "float-nchw",
        "--license",
        "mit",
    )
    code, out, _ = slimcv("optimize", model, "--recipe", "./int8.yaml", *words, *SMALL)
    report = json.loads(out)
    assert code == 3
    assert '<testcase classname="slimcv optimize' in (tmp_path / "gate.xml").read_text()
    manifest = json.loads((tmp_path / "model-slim" / "slimcv.json").read_text())
    assert (manifest["input"]["format"], manifest["license"]) == ("float-nchw", "mit")
    assert report["gate"]["met"] is False
    names = [step["name"] for step in report["steps"]]
    assert names == ["original", "quantize_int8", "export_onnx", "ship"], "nothing is measured twice"
    assert Path(tmp_path / "model-slim" / "slimcv.json").is_file()


class Tiny(nn.Module):
    """Goes through numbers so small that ONNX Runtime takes them for zero."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head((x * 1e-20 * 1e-20 * 1e20 * 1e20).mean((2, 3)))


def test_a_runtime_that_the_network_cannot_be_exported_to_ends_with_3_and_the_reason(slimcv, tmp_path):
    spec = InputSpec(3, 16, 16)
    path = runtimes.write(Variant(capture.capture(Tiny(), spec), spec), "eager", tmp_path)
    (tmp_path / "export.yaml").write_text("steps: [export_onnx]")
    words = ("optimize", path, "--recipe", "./export.yaml", "--threads", "1", "--quick", "--format", "json")
    code, out, _ = slimcv(*words, "--runtime", "onnxruntime")
    report = json.loads(out)
    assert (code, report["gate"]["met"], report["optimized"]["runtime"]) == (3, False, "eager")
    reason = report["steps"][-1]["reason"]
    assert "there is no file for onnxruntime: rejected: onnxruntime answers otherwise" in reason


def test_a_runtime_that_is_not_installed_is_refused_before_the_work(
    slimcv, model, export_only, tmp_path, monkeypatch
):
    words = ("optimize", model, "--recipe", export_only, *SMALL)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    refused(slimcv(*words, "--runtime", "inductor"), "needs a C++ compiler", "g++")
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused(slimcv(*words, "--runtime", "openvino:fp32"), "openvino is not installed", "pip install")
    assert not (tmp_path / "model-slim").exists()


def test_a_folder_that_another_process_works_in_is_refused(slimcv, model, export_only, tmp_path):
    with Run.open(tmp_path / "model-slim", identity={}):
        found = slimcv("optimize", model, "--recipe", export_only, *SMALL)
    refused(found, "another slimcv is working in this folder", "--out")


class Interruption(logging.Filter):
    """Ctrl-C when a line of the log has these words, once."""

    def filter(self, record):
        if self.name in record.getMessage():
            logging.getLogger("slimcv").removeFilter(self)
            raise KeyboardInterrupt
        return True


@pytest.mark.slow
def test_an_interrupted_run_goes_on_counting_its_budget(slimcv, model, pictures, tmp_path):
    (tmp_path / "train.yaml").write_text(
        "gate: {max_drop: 100}\nsteps: [{finetune: {epochs: 1}}, export_onnx]"
    )
    words = ("optimize", model, "--recipe", "./train.yaml", "--data", pictures, "--budget", "1h", *SMALL)
    logging.getLogger("slimcv").addFilter(Interruption("finetune: applying"))
    code, out, _ = slimcv(*words)
    assert (code, out) == (130, "")
    clock = tmp_path / "model-slim" / "work" / "clock.json"
    assert json.loads(clock.read_text())["seconds"] > 0
    clock.write_text('{"seconds": 3600.0}')  # As if it had been stopped after an hour.
    report = json.loads(slimcv(*words)[1])
    step = next(step for step in report["steps"] if step["name"] == "finetune")
    assert (step["outcome"], step["reason"]) == ("skipped", "the run's time budget is used up")
