"""What several commands take on their command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from slimcv.cli import completion


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A .pt, .pth, .pt2 or .safetensors file, timm:NAME or torchvision:NAME."
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="The folder that slimcv optimize wrote.")
]
ServedArgument = Annotated[
    Path,
    typer.Argument(metavar="BUNDLE", help="The folder that slimcv optimize wrote, or a packed .slim file."),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="Run this one of the bundle's files. Default: the fastest measured.",
        autocompletion=completion.runtimes,
    ),
]
JunitOption = Annotated[
    Path | None, typer.Option(help="Write the checks as JUnit XML here too, for continuous integration.")
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        help="Architecture of a state dict: timm:NAME, torchvision:NAME, "
        "net.py:factory?classes=12, pkg:factory."
    ),
]
CodeOption = Annotated[
    list[str] | None,
    typer.Option(help="Python file or module whose classes the model file may use (it is imported)."),
]
MeanOption = Annotated[
    str | None, typer.Option(help="Normalisation mean a channel, such as 0.5,0.5,0.5 (of pixels / 255).")
]
StdOption = Annotated[str | None, typer.Option(help="Normalisation deviation a channel.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads a prediction may use. Default: what the container allows.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", help="Where the HTML page goes. Default: reports/ in ~/.cache/slimcv."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
TrackOption = Annotated[
    str | None,
    typer.Option(help="Log the result to MLflow too: mlflow, or mlflow: and a folder or a server's URI."),
]
InputOption = Annotated[str | None, typer.Option("--input", help="Input shape, such as 3x224x224.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder of class folders (or of train/ and val/), or package.module:factory."),
]
CacheOption = Annotated[
    Path | None, typer.Option(help="Where decoded pictures are kept. Default: ~/.cache/slimcv.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the data split and of everything random.")]
CacheLimitOption = Annotated[
    str | None, typer.Option(help="Most the kept pictures may take, such as 20GB; larger sets are streamed.")
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep no decoded pictures after this run.")]
