"""The README says what the product does: commands, options, recipes and exit codes cannot drift apart."""

import re
from pathlib import Path

import pytest
import yaml

from slimcv import cli, recipe, sidecar
from slimcv.cli.optimize import EXIT_GATE_MISSED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_recipe_has_a_row_and_every_row_a_recipe():
    rows = re.findall(r"^\| `(cpu_\w+)` \|", README, re.MULTILINE)
    assert sorted(rows) == recipe.names()


def test_every_option_named_is_one_the_command_line_knows():
    folder = Path(cli.__file__).parent
    source = "\n".join(path.read_text("utf-8") for path in sorted(folder.glob("*.py")))
    known = {"--" + name.replace("_", "-") for name in re.findall(r"^    (\w+): ", source, re.MULTILINE)}
    known |= set(re.findall(r'"(--[\w-]+)"', source))
    known |= {"--install-completion", "--show-completion"}  # typer's own
    commands = re.sub(r"`benchmarks/[^`]*`", "", README)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", commands))
    assert named <= known, named - known


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) <= targets


def test_the_sidecar_shown_is_valid():
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert sidecar.Sidecar.model_validate(yaml.safe_load(shown[1])).input == "3x224x224"


@pytest.mark.parametrize(
    ("code", "value"),
    [(2, cli.EXIT_BAD_INPUT), (3, EXIT_GATE_MISSED), (130, cli.EXIT_INTERRUPTED)],
)
def test_the_exit_codes_are_those_of_the_command_line(code, value):
    assert code == value
    assert re.search(rf"\b{code} [a-z]", README)


def test_every_step_of_a_shipped_recipe_stands_in_the_list_of_steps():
    used = {entry.name for name in recipe.names() for entry in recipe.load(name).entries}
    assert used <= set(recipe.step_names())
