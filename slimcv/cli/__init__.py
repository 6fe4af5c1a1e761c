"""The command line: parse, call, print. Nothing else in slimcv prints or exits.

One file a command; what several share is in options.py (the words) and intake.py (what they become).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from slimcv import __version__
from slimcv.cli import recipes
from slimcv.cli.optimize import optimize
from slimcv.cli.profile import profile
from slimcv.errors import SlimcvError

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
_INTERRUPTED = "interrupted: the same command goes on from the last finished step"

app = typer.Typer(
    name="slimcv",
    help="Make a trained PyTorch vision model small and fast on a CPU, with proof.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(optimize)
app.command()(profile)
app.add_typer(recipes.app, name="recipes")


def main() -> NoReturn:
    """Entry point of the `slimcv` command."""
    # OpenMP's threads wait for each other at the end of every layer. Spinning there, training is five times
    # slower while a neighbour holds a core; sleeping costs nothing on an idle machine. Torch reads it once.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SlimcvError as error:
        print(f"error: {error.message}", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        print("hint: free some space; the same command goes on where the run stopped", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as end:
        # Inside a command it is Typer that catches Ctrl-C: it ends with 130 and says nothing.
        if end.code == EXIT_INTERRUPTED:
            print(_INTERRUPTED, file=sys.stderr)
        raise
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"slimcv {__version__}")
        raise typer.Exit
