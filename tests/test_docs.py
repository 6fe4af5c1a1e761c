"""The documentation says what the product does: pages for every step and command, recipe lines that parse."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from slimcv import cli, recipe
from slimcv.errors import SlimcvError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STEPS = sorted(path.stem for path in (DOCS / "steps").glob("*.md") if path.stem != "index")
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
OWN_STEPS = sorted(path.stem for path in (ROOT / "slimcv" / "steps").glob("*.py"))
COMMANDS = typer.main.get_command(cli.app).commands
WITH_A_STEP_OF_ITS_OWN = "adding-a-step.md"


def page(name):
    return (DOCS / name).read_text("utf-8")


def blocks(text, language):
    """The fenced blocks of a language, those in lists without their margin."""
    found = re.findall(rf"^( *)```{language}[^\n]*\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{margin}", "", block, flags=re.MULTILINE) for margin, block in found]


def recipes_in(text):
    """Whole recipes and recipe lines, each as a recipe."""
    found = []
    for block in blocks(text, "yaml"):
        values = yaml.safe_load(block)
        if isinstance(values, list):
            found.append(yaml.safe_dump({"steps": values}, sort_keys=False))
        elif "steps" in values:
            found.append(block)
    return found


def test_pictures_are_there_and_say_what_they_show():
    shown = {}
    for path in (ROOT / "README.md", *DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        found = [(source, words) for words, source in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)]
        found += re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]*)"', text)
        assert len(found) == text.count("![") + text.count("<img")
        shown |= {(path.parent / source).resolve(): words for source, words in found}
    assert shown.keys() == set((DOCS / "pictures").iterdir())
    assert all(len(words) > 20 for words in shown.values())


@pytest.fixture
def generated(monkeypatch):
    """The modules that MkDocs' hook is made of, imported as it imports them."""
    monkeypatch.syspath_prepend(str(DOCS / "_generated"))
    import hosts
    import markers
    import navigation

    return {"hosts": hosts, "markers": markers, "navigation": navigation}


# Pages


def test_every_step_has_a_page_and_every_page_a_step():
    assert OWN_STEPS == STEPS


@pytest.mark.parametrize("name", STEPS)
def test_a_step_s_page_shows_it_in_a_recipe_and_says_what_there_is_to_know(name):
    text = page(f"steps/{name}.md")
    assert text.startswith(f"# {name}\n")
    for heading in ("What it costs", "When it is skipped or rejected", "Source", "Parameters"):
        assert f"\n## {heading}\n" in text, heading
    assert f"<!-- parameters: {name} -->" in text
    used = {key for one in recipes_in(text) for entry in yaml.safe_load(one)["steps"] for key in _keys(entry)}
    assert name in used


def _keys(entry):
    return [entry] if isinstance(entry, str) else list(entry)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_with_its_options(name):
    text = page(f"commands/{name}.md")
    inner = getattr(COMMANDS[name], "commands", {})
    for command in [f"{name} {one}" for one in inner] or [name]:
        assert f"<!-- options: {command} -->" in text, command


# What stands in them


# The page with a step of its own is read by the test of its example, which installs the step.
@pytest.mark.parametrize("name", [name for name in PAGES if name != WITH_A_STEP_OF_ITS_OWN])
def test_recipe_lines_are_taken_by_the_parser(name, tmp_path):
    for number, text in enumerate(recipes_in(page(name))):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        try:
            recipe.load(str(path))
        except SlimcvError as error:
            pytest.fail(f"{error.message}; {error.hint}\n{text}")


def test_a_wrong_recipe_line_would_be_found(tmp_path):
    text = "Do this:\n\n   ```yaml\n   - prune_chanels: {macs: 0.5}\n   ```\n"
    (tmp_path / "wrong.yaml").write_text(recipes_in(text)[0])
    with pytest.raises(SlimcvError, match="prune_chanels"):
        recipe.load(str(tmp_path / "wrong.yaml"))


def commands_in(text):
    """What a page tells to type, in blocks and in the middle of a sentence."""
    lines = [
        line for language in ("sh", "console") for one in blocks(text, language) for line in one.split("\n")
    ]
    typed = [line.removeprefix("$ ").partition("  #")[0] for line in lines]
    return [line for line in typed if line.startswith("slimcv ")] + re.findall(r"`(slimcv [a-z][^`]*)`", text)


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_that_a_page_names_exist(name):
    for typed in commands_in(page(name)):
        words = shlex.split(typed.replace("\n", " ").replace("<Tab>", "").split(" > ")[0].rstrip("\\"))
        command, known = typer.main.get_command(cli.app), set()
        for word in words[1:]:
            if word.startswith("-"):
                break
            if word not in getattr(command, "commands", {}):
                break
            command = command.commands[word]
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        with command.make_context(words[0], [], resilient_parsing=True) as context:
            known = {option for one in command.get_params(context) for option in one.opts}
        assert words[1] in COMMANDS or words[1].startswith("--") or words[1].isupper(), typed
        assert named <= known, f"{typed}: {named - known}"


# The pipeline


def test_the_pipeline_goes_on_with_a_run_that_was_stopped_and_with_no_other():
    (workflow,) = blocks(page("pipelines.md"), "yaml")
    steps = yaml.safe_load(workflow)["jobs"]["optimize"]["steps"]
    kinds = [step.get("uses", step.get("run", "")).partition("@")[0] for step in steps]
    restore, save = kinds.index("actions/cache/restore"), kinds.index("actions/cache/save")
    (work,) = [at for at, kind in enumerate(kinds) if kind.startswith("slimcv optimize")]
    assert restore < work < save
    assert steps[save]["if"] == "always()"
    earlier, later = steps[restore]["with"], steps[save]["with"]
    assert earlier["path"] == later["path"]
    assert later["key"] == f"${{{{ steps.{steps[restore]['id']}.outputs.cache-primary-key }}}}"
    assert earlier["key"].startswith(earlier["restore-keys"])
    assert "github.run_id" in earlier["key"].removeprefix(earlier["restore-keys"])
    words = shlex.split(kinds[work])
    named = [words[2], words[words.index("--data") + 1], "slimcv.yaml", ".github/workflows/slim.yaml"]
    for name in named:
        assert f"'{name}" in earlier["restore-keys"], "what a run is known by is in the key"
    assert any(re.search(r"pip install .*slimcv==", kind) for kind in kinds)
    assert all(words[words.index(option) + 1] in earlier["path"].split() for option in ("--cache",))


def test_the_command_lines_of_the_pipeline_are_taken_as_they_stand():
    (workflow,) = blocks(page("pipelines.md"), "yaml")
    jobs = yaml.safe_load(workflow)["jobs"].values()
    lines = [step.get("run", "") for job in jobs for step in job["steps"]]
    commands = [shlex.split(line) for line in lines if line.startswith("slimcv ")]
    assert [words[1] for words in commands] == ["optimize", "verify"]
    for _, name, *words in commands:
        with COMMANDS[name].make_context(name, words) as context:
            assert context.params["junit"] is not None


# What is filled in


@pytest.mark.parametrize("name", PAGES)
def test_every_marker_of_a_page_means_something(generated, name):
    filled = generated["markers"].fill(page(name))
    assert not re.search(r"^<!--", filled, re.MULTILINE)


@pytest.mark.parametrize(
    "marker", ["options: optimise", "parameters: prune_chanels", "paramters: finetune", "step", "options"]
)
def test_a_marker_that_means_nothing_is_refused(generated, marker):
    with pytest.raises(ValueError, match=re.escape(f"<!-- {marker} -->")):
        generated["markers"].fill(f"text\n\n<!-- {marker} -->\n")


def test_every_option_stands_in_its_command_s_table(generated):
    for name, command in COMMANDS.items():
        text = generated["markers"].fill(f"<!-- options: {name} -->")
        with command.make_context(name, [], resilient_parsing=True) as context:
            options = [one.opts[0] for one in command.get_params(context) if one.opts[0].startswith("--")]
        for option in set(options) - {"--help"}:
            assert re.search(rf"^\| `{option}[ `]", text, re.MULTILINE), f"{name} {option}"


def test_an_option_s_row_has_its_default_and_its_words(generated):
    rows = generated["markers"].fill("<!-- options: optimize -->").splitlines()
    assert "| `--recipe <str>` | `cpu_fast` | A shipped recipe's name, or a path to a YAML file. |" in rows
    assert "| `--out <path>` | &lt;model&gt;-slim/ | Where the result goes. |" in rows
    assert any(row.startswith("| `MODEL` | required |") for row in rows)


def test_a_parameter_s_row_has_what_it_may_be(generated):
    rows = generated["markers"].fill("<!-- parameters: prune_channels -->").splitlines()
    assert any(
        row.startswith("| `macs` | number above 0, below 1 | `0.5` | share of the MACs") for row in rows
    )
    assert any(row.startswith("| `latency` | number above 0, below 1 or `null` | `null` |") for row in rows)
    assert any(row.startswith("| `importance` | `l2`, `l1`, `lamp`, `fpgm` or `taylor` |") for row in rows)


def test_a_step_that_trains_sends_its_reader_to_finetune_for_the_rest(generated):
    text = generated["markers"].fill("<!-- parameters: cluster_weights -->")
    assert "| `clusters` |" in text
    assert "| `epochs` |" in text  # Another default than finetune's.
    assert "| `temperature` |" not in text
    assert "[finetune](finetune.md)" in text


def test_exit_codes_are_those_of_the_command_s_own_help(generated):
    text = generated["markers"].fill("<!-- exit-codes: optimize -->")
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "1", "2", "3", "130"]
    assert "| 3 | finished but the gate was not met |" in text


def test_the_recipe_reference_has_every_shipped_recipe_word_for_word(generated):
    text = generated["markers"].fill("<!-- recipes -->")
    assert recipes_in(text) == [recipe.load(name).text for name in recipe.names()]


def test_a_section_that_is_a_folder_has_all_pages_there_and_an_empty_one_is_left_out(generated, tmp_path):
    for name in ("index.md", "a.md", "z.md", "steps/index.md", "steps/b.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    nav = ["index.md", {"Guides": ["z.md", "*.md"]}, {"Steps": "steps/*.md"}, {"Commands": "commands/*.md"}]
    assert generated["navigation"].filled(nav, tmp_path) == [
        "index.md",
        {"Guides": ["z.md", "a.md"]},
        {"Steps": ["steps/index.md", "steps/b.md"]},
    ]


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ('<script src="https://cdn.example/a.js"></script>', ["https://cdn.example/a.js"]),
        ('<link rel="stylesheet" href="//fonts.example/b.css">', ["//fonts.example/b.css"]),
        ('<img srcset="a.png 1x, https://x.example/b.png 2x" src="a.png">', ["https://x.example/b.png"]),
        ("<style>@import url(https://x.example/c.css);</style>", ["https://x.example/c.css"]),
        ("<p style=\"background: url('http://x.example/d.png')\">", ["http://x.example/d.png"]),
        ('<a href="https://x.example">read</a><link rel="canonical" href="https://x.example">', []),
        ('<script src="assets/a.js"></script><p>https://x.example</p>', []),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(generated, text, loaded):
    assert generated["hosts"].in_page(text) == loaded


# The site


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    pytest.importorskip("material", reason="make docs installs it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    html = (tmp_path / "site" / "steps" / "prune_channels.html").read_text("utf-8")
    assert "<td><code>round_to</code></td>" in html
    assert "commands/optimize.html" in html
    assert not list((tmp_path / "site").rglob("*.py"))


# The example of a package with a step


@pytest.fixture
def package(tmp_path):
    """The files of the page, installed: entry points are found where metadata stand on the path."""
    text = page(WITH_A_STEP_OF_ITS_OWN)
    found = re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL)
    files = dict(found)
    for title, body in files.items():
        (tmp_path / title).write_text(body)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(head)
    points = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in named.items())
        for group, named in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(points))
    return tmp_path


def run(folder, *words):
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])])
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_s_own_tests_pass(package):
    said = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_slimcv_hardswish.py")
    assert "3 passed" in said


def test_the_example_s_step_is_in_the_list_in_the_schema_and_in_a_plan(package):
    assert "silu_to_hardswish (surgery): SiLU activations become" in run(
        package, "-m", "slimcv", "recipes", "steps"
    )
    assert '"silu_to_hardswish"' in run(package, "-m", "slimcv", "recipes", "schema")
    plan = run(package, "-m", "slimcv", "optimize", "model.pt", "--recipe", "./hardswish.yaml", "--dry-run")
    assert plan.startswith("1. silu_to_hardswish {last: null}\n2. finetune {epochs: 6,")
