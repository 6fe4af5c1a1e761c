"""A command line that cannot be read, answered like any other fault: what is wrong, and what to do next."""

from __future__ import annotations

import difflib
from typing import Any

import typer

from slimcv.errors import SlimcvError, nearest

_NO_COMMAND = "No such command"


def explained(error: typer.TyperException) -> SlimcvError:
    """What Typer says of a missing, unknown or unreadable argument, with the nearest option or command."""
    # Typer shows the base class alone; what its children know beyond a message is looked for by name.
    context: Any = getattr(error, "ctx", None)
    message = _sentence(error)
    if context is None:
        return SlimcvError(message, "see `slimcv COMMAND --help`")
    word, choices = _mistyped(error, context)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return SlimcvError(message, nearest(word, close))
    return SlimcvError(message, f"see `{context.command_path} --help`")


def _sentence(error: typer.TyperException) -> str:
    """Typer's words on one line, without its suggestions and what the library it checks with puts before."""
    words = error.message if hasattr(error, "option_name") else error.format_message()
    text = " ".join(words.split()).rstrip(".").replace(": Value error, ", ": ").replace(": Input", ": input")
    return text[:1].lower() + text[1:]


def _mistyped(error: typer.TyperException, context: Any) -> tuple[str, list[str]]:
    """An option or command that does not exist, and those that do; nothing for any other fault."""
    if hasattr(error, "option_name"):
        options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        return error.option_name, options
    if error.message.startswith(_NO_COMMAND):
        word = error.message.removeprefix(_NO_COMMAND).strip(" '\".")
        return word, context.command.list_commands(context)
    return "", []
