"""`slimcv export`: a bundle's file alone, or in the layout of a model server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimcv.cli import completion
from slimcv.cli.options import BundleArgument


def export(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; of one file also its name.")],
    layout: Annotated[
        str,
        typer.Option(
            help="openvino-model-server, triton, or one file: onnx, openvino, pt2, slim.",
            autocompletion=completion.layouts,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name on the server. Default: the bundle's.")
    ] = None,
) -> None:
    """Write BUNDLE's model into DIR as a model server reads it, or its file alone."""
    from slimcv.serving import layouts

    for path in layouts.export(bundle, layout, out, name=name):
        print(path)
