"""Completion as a shell asks for it: the real command, started with what has been typed so far."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slimcv import recipe

COMMAND = str(Path(sys.executable).with_name("slimcv"))


def completed(line, *, shell="bash"):
    """What the command offers for the last word of `line`; a trailing space begins a new one."""
    words = line.split()
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - (not line.endswith(" "))),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_SLIMCV_COMPLETE": f"complete_{shell}",
    }
    done = subprocess.run(
        [COMMAND], env={**os.environ, **asked}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1] if shell == "bash" else done.stdout


def test_commands_and_options():
    assert completed("slimcv opt") == ["optimize"]
    assert completed("slimcv recipes s") == ["show", "steps", "schema"]
    assert "--recipe" in completed("slimcv optimize model.pt --re")


@pytest.mark.parametrize("line", ["slimcv optimize m.pt --recipe ", "slimcv recipes show "])
def test_recipes_by_name(line):
    assert completed(line) == recipe.names()
    assert completed(f"{line}cpu_l") == ["cpu_lossless"]


def test_a_path_is_left_to_the_shell():
    assert completed("slimcv optimize m.pt --recipe ./my") == [""]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (
            "slimcv optimize m.pt --runtime op",
            ["openvino", "openvino:bf16", "openvino:fp32", "openvino:nncf"],
        ),
        ("slimcv bench m.pt --runtime ea", ["eager", "eager_channels_last"]),
        ("slimcv bench m.pt --runtime al", ["all"]),
        ("slimcv profile m.pt --runtime i", ["inductor"]),
        ("slimcv verify m-slim --runtime e", ["eager"]),
        ("slimcv profile m.pt --format ", ["json", "markdown", "text"]),
        ("slimcv export m-slim out --layout t", ["triton"]),
        ("slimcv optimize m.pt --target-isa am", ["amx"]),
        ("slimcv optimize m.pt --keep onnx,p", ["onnx,pt2"]),
        ("slimcv ladder m.pt --rows original,", None),
        ("slimcv optimize m.pt --set prune_c", ["prune_channels."]),
        ("slimcv optimize m.pt --set prune_channels.ma", ["prune_channels.macs="]),
        ("slimcv optimize m.pt --set gate.max_d", ["gate.max_drop="]),
        ("slimcv optimize m.pt --set nothing.r", [""]),
    ],
)
def test_values_of_options(line, offered):
    found = completed(line)
    if offered is None:
        assert "original,pooling" in found
        assert "original,original" not in found
    else:
        assert sorted(found) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_too(shell):
    assert "cpu_lossless" in completed("slimcv optimize m.pt --recipe cpu_l", shell=shell)


def test_bash_itself_completes_with_what_is_installed():
    bash = shutil.which("bash")
    assert bash, "the tests need bash"
    script = (
        f'PATH="{Path(COMMAND).parent}:$PATH"\n'
        'eval "$(_SLIMCV_COMPLETE=source_bash slimcv)"\n'
        "complete -p slimcv\n"
        "COMP_WORDS=(slimcv optimize model.pt --recipe cpu_t)\nCOMP_CWORD=4\n_slimcv_completion slimcv\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["cpu_tiny"]


@pytest.mark.parametrize(
    "line",
    [
        "slimcv optimize m.pt --recipe ",
        "slimcv optimize m.pt --set quantize_int8.",
        "slimcv bench m.pt --runtime ",
        "slimcv export m out --layout ",
        "slimcv ladder m.pt --rows ",
    ],
)
def test_nobody_waits_for_torch(line):
    word = len(line.split()) - (not line.endswith(" "))
    code = (
        "import os, sys\nfrom slimcv import cli\nsys.argv = ['slimcv']\n"
        f"os.environ.update(COMP_WORDS={line!r}, COMP_CWORD='{word}', "
        "_SLIMCV_COMPLETE='complete_bash')\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'onnx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
