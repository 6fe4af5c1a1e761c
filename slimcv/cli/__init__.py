"""The command line: parse, call, print. Nothing else in slimcv prints or exits.

One file a command; what several share is in options.py (the words) and intake.py (what they become).
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from slimcv import __version__
from slimcv.cli import recipes, together, usage
from slimcv.cli.bench import bench
from slimcv.cli.doctor import doctor
from slimcv.cli.export import export
from slimcv.cli.ladder import ladder
from slimcv.cli.live import say
from slimcv.cli.optimize import optimize
from slimcv.cli.pack import pack, unpack
from slimcv.cli.predict import predict
from slimcv.cli.profile import profile
from slimcv.cli.report import report
from slimcv.cli.sensitivity import sensitivity
from slimcv.cli.verify import verify
from slimcv.errors import SlimcvError

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
_GO_ON = {
    "optimize": "goes on from the last finished step",
    "ladder": "goes on from the last finished row",
    "sensitivity": "goes on from the last finished layer",
}
"""What the same command does after an interruption; every other one starts anew."""

_NO_ROOM = "free some space and give the same command again"
_NO_PERMISSION = "check the permissions of the file and of the folders above it"
_HINTS = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
}
"""What to do where the operating system refuses and nobody nearer to it could say what for."""

app = typer.Typer(
    name="slimcv",
    help="Make a trained PyTorch vision model small and fast on a CPU, with proof.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    suggest_commands=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(optimize)
app.command()(profile)
app.command()(sensitivity)
app.command()(bench)
app.command()(predict)
app.command()(verify)
app.command()(export)
app.command()(pack)
app.command()(unpack)
app.command()(doctor)
app.command()(ladder)
app.command()(report)
app.add_typer(recipes.app, name="recipes")


def main() -> NoReturn:
    """Entry point of the `slimcv` command."""
    # OpenMP's threads wait for each other at the end of every layer. Spinning there, training is five times
    # slower while a neighbour holds a core; sleeping costs nothing on an idle machine. Torch reads it once.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if isinstance(sys.stdout, io.TextIOWrapper):  # Names of files and classes need not be what it can show.
        sys.stdout.reconfigure(errors="replace")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = _run()
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
    sys.exit(code)


def _run() -> int:
    """Run the command; its exit code. What a user can mend becomes a sentence, anything else is a bug."""
    try:
        # Typer turns Ctrl-C inside a command into the code 130, and `typer.Exit` into its own.
        code = app(standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except SlimcvError as error:
        return _refuse(error)
    except typer.TyperException as error:
        return _refuse(usage.explained(error))
    except OSError as error:
        if error.errno not in _HINTS:
            raise
        return _refuse(SlimcvError(f"{error.filename or 'the disk'}: {error.strerror}", _HINTS[error.errno]))
    if code == EXIT_INTERRUPTED:
        goes_on = _GO_ON.get(_command())
        without = ", without --overwrite," if goes_on and "--overwrite" in sys.argv else ""
        say(f"interrupted: the same command{without} {goes_on or 'starts anew'}")
    return int(code)


def _command() -> str:
    """The command's name: the first word, since no option before it takes a value."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _refuse(error: SlimcvError) -> int:
    say(f"error: {error.message}")
    say(f"hint: {error.hint}")
    return error.exit_code


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"slimcv {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(EXIT_BAD_INPUT)
    if context.invoked_subcommand != optimize.__name__:
        together.leave_to_rank_0(context.invoked_subcommand)
