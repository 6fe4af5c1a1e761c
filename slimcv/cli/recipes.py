"""`slimcv recipes`: what is shipped, and what a recipe may say."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from slimcv.cli import completion

app = typer.Typer(
    help="List the shipped recipes, show one, list the steps, print what a recipe may say.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is not None:
        return
    from slimcv import recipe
    from slimcv.report.terminal import wrapped

    for name in recipe.names():
        print(wrapped(f"{name:14} {' '.join(recipe.load(name).description.split())}", indent=15))


@app.command("show")
def _show(
    name: Annotated[
        str, typer.Argument(help="A shipped recipe's name, or a path.", autocompletion=completion.recipes)
    ],
) -> None:
    """Print a recipe's text."""
    from slimcv import recipe

    print(recipe.load(name).text, end="")


@app.command("steps")
def _steps() -> None:
    """List the steps a recipe may use, with their parameters and defaults."""
    from slimcv import recipe
    from slimcv.report.terminal import wrapped

    for name in recipe.step_names():
        kind = recipe.step_class(name)
        print(wrapped(f"{name} ({kind.stage.name.lower()}): {recipe.step_summary(name)}", indent=2))
        for key, field in kind.model_fields.items():
            default = field.get_default(call_default_factory=True)
            print(wrapped(f"    {key} = {default!r}  {field.description or ''}".rstrip(), indent=8))


@app.command("schema")
def _schema() -> None:
    """Print the JSON Schema of recipes, for editors that check and complete YAML."""
    from slimcv import recipe

    print(json.dumps(recipe.recipe_schema(), indent=2, ensure_ascii=False))
