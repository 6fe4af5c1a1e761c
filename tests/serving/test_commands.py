"""predict, verify and export on the command line: what they print and how they end."""

import csv
import ctypes
import io
import json
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import zipfile
from xml.etree import ElementTree

import pytest

from slimcv import bundle, cli
from slimcv.measure import allocator
from slimcv.train import progress


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["slimcv", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_predict_as_json_is_strict_and_has_a_row_for_a_broken_picture(call, folder, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    code, out, _ = call(
        "predict", folder, pictures / "<red>", tmp_path / "broken.jpg", "--top", 2, "--format", "json"
    )
    rows = json.loads(out)
    assert code == 0
    assert [row["classes"][0]["label"] for row in rows[:-1]] == ["<red>"] * 6
    assert all(len(row["classes"]) == 2 for row in rows[:-1])
    assert rows[-1]["classes"] == []
    assert "not a picture" in rows[-1]["error"]


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_file_whose_name_is_no_utf_8_is_answered(folder, pictures, tmp_path, form):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(pictures / "blue" / "0.png", path)
    command = [sys.executable, "-c", "from slimcv import cli; cli.main()", "predict", folder, path]
    done = subprocess.run([*command, "--format", form], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "blue" in done.stdout.decode()


def test_predict_as_csv_has_a_line_a_picture(call, folder, pictures):
    code, out, _ = call("predict", folder, pictures, "--format", "csv", "--batch", 5)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == 18
    places = range(1, 4)
    named = {f"{kind}_{place}" for kind in ("label", "probability") for place in places}
    assert set(rows[0]) == {"path", "error", *named}, "five classes are named, of three that there are"
    assert all(row["label_1"] == row["path"].split("/")[-2] for row in rows)


def test_predict_as_text_reads_a_list_from_stdin(call, folder, pictures, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{pictures}/blue/0.png\n{pictures}/green/0.png\n"))
    code, out, err = call("predict", folder, "-")
    assert code == 0
    assert [line.split("  ")[1].split(" ")[0] for line in out.splitlines()] == ["blue", "green"]
    assert "error" not in err


@pytest.mark.parametrize(("runtime", "said"), [("eager", True), ("onnxruntime", False)])
def test_where_pytorch_predicts_the_allocator_is_tuned_or_said_not_to_be(
    call, folder, pictures, monkeypatch, runtime, said
):
    real = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *more, **how: object() if name is None else real(name, *more, **how)
    )
    for words in (("predict", folder, pictures / "blue"), ("verify", folder)):
        code, _, err = call(*words, "--runtime", runtime)
        assert (code, err.count(allocator.UNTUNED)) == (0, int(said)), words


def test_predict_draws_a_bar_on_a_terminal_and_rows_take_its_place(call, folder, pictures, monkeypatch):
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = call("predict", folder, pictures)
    assert code == 0
    assert len(out.splitlines()) == 18
    assert f"[{'#' * 24}]  18/18 pictures" in err
    assert err.endswith("\r\x1b[K"), "nothing of it is left"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert call("predict", folder, pictures)[2].count("\r\x1b[K") >= 18


def test_predict_ends_with_2_where_nothing_can_be_read(call, folder, tmp_path):
    code, out, _ = call("predict", folder, tmp_path / "absent.png")
    assert code == 2
    assert "absent.png  error: no such file" in out


def test_predict_refuses_a_batch_that_is_no_number(call, folder, pictures):
    code, out, err = call("predict", folder, pictures, "--batch", "many")
    assert (code, out) == (2, "")
    assert "--batch many" in err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_predict_imports_neither_torch_nor_reports_where_the_runtime_needs_none(folder, pictures, runtime):
    code = (
        "import sys\n"
        "from slimcv import cli\n"
        f"sys.argv = ['slimcv', 'predict', {str(folder)!r}, {str(pictures)!r}, '--runtime', {runtime!r}]\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit as ended:\n"
        "    print(ended.code, {'torch', 'rich', 'slimcv.report'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
    assert len(done.stdout.splitlines()) == 19


def test_nothing_in_a_bundle_is_a_pickle(folder):
    """Files as they are, and the members of those that are archives (`.pt2`, `.npz`)."""
    contents = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
            assert members
            contents |= members
    assert is_pickle(pickle.dumps({"a": 1}))
    assert [name for name, content in contents.items() if is_pickle(content)] == []
    assert not [name for name in contents if name.endswith((".pkl", ".pickle"))]


def is_pickle(content):
    """Opcodes up to the one that stops, as the unpickler reads them."""
    try:
        return bool(content) and list(pickletools.genops(content))[-1][0].name == "STOP"
    except (ValueError, UnicodeDecodeError, OverflowError):
        return False


def test_verify_ends_with_0_3_and_2(call, folder, tmp_path):
    code, out, _ = call("verify", folder, "--format", "json", "--junit", tmp_path / "checks.xml")
    assert (code, json.loads(out)["passed"]) == (0, True)
    suite = ElementTree.parse(tmp_path / "checks.xml").getroot()
    assert (suite.tag, suite.get("failures")) == ("testsuite", "0")

    code, out, _ = call("verify", folder, "--max-latency-ms", "1e-6")
    assert code == 3
    assert "failed (latency p50)" in " ".join(out.split())

    (folder / "model.onnx").write_bytes(b"")
    code, out, _ = call("verify", folder, "--format", "markdown")
    assert code == 2
    assert "damaged" in out


def test_verify_of_no_bundle_ends_with_2_and_is_a_failed_test_too(call, tmp_path):
    code, out, err = call("verify", tmp_path, "--format", "json", "--junit", tmp_path / "checks.xml")
    (check,) = json.loads(out)["checks"]
    assert (code, err) == (2, "")
    assert "slimcv.json is missing" in check["detail"]
    suite = ElementTree.parse(tmp_path / "checks.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")


def test_what_ends_verify_early_is_an_error_among_the_tests(call, folder, tmp_path):
    code, out, err = call("verify", folder, "--runtime", "tensorrt", "--junit", tmp_path / "checks.xml")
    assert (code, out) == (2, "")
    assert "no file for tensorrt" in err
    (failure,) = ElementTree.parse(tmp_path / "checks.xml").getroot().iter("error")
    assert "no file for tensorrt" in failure.get("message")


def test_a_zipped_bundle_has_to_be_unzipped_first(call, folder, pictures):
    path = bundle.archive(folder)
    code, out, err = call("predict", path, pictures)
    assert (code, out) == (2, "")
    assert "unzipped first" in err
    code, out, err = call("export", path, folder / "server", "--layout", "onnx")
    assert (code, out) == (2, "")
    assert "unzipped first" in err
    code, out, _ = call("verify", path)
    assert code == 2
    assert "unzipped first" in " ".join(out.split())


def test_export_names_what_it_wrote(call, folder, tmp_path):
    code, out, _ = call("export", folder, tmp_path / "server", "--layout", "triton")
    assert code == 0
    assert out.splitlines()[-1].endswith("config.pbtxt")


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_terminals_and_not_with_no_color(
    call, folder, monkeypatch, terminal, no_color, coloured
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    _, out, err = call("pack", folder)
    assert ("\x1b" in out) is coloured
    assert "\x1b" not in err
