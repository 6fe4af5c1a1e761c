"""`slimcv verify`: a bundle or a packed file checked on the machine that is to serve it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from slimcv.cli.intake import log_to_stderr, tune_allocator_for
from slimcv.cli.options import (
    CacheOption,
    DataOption,
    Format,
    FormatOption,
    JunitOption,
    RuntimeOption,
    ServedArgument,
)

EXIT_DAMAGED, EXIT_FAILED = 2, 3


def verify(
    bundle: ServedArgument,
    data: DataOption = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0.0, help="The most a prediction may take at the median.")
    ] = None,
    min_top1: Annotated[
        float | None, typer.Option(min=0.0, max=100.0, help="Least top-1 on --data, in percent.")
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=100.0, help="Least share of golden samples with the same class, in percent."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads a prediction may use. Default: as the bundle says.")
    ] = None,
    runtime: RuntimeOption = None,
    cache: CacheOption = None,
    junit: JunitOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Check BUNDLE's files, its answers to the golden samples and its speed, on this machine.

    A packed file has to unpack to the very model that was packed.

    Exit codes: 0 all passed, 2 no bundle or a damaged one, 3 the runtime does not take the file, or an
    answer, the speed or the accuracy fell short.
    """
    from slimcv.errors import SlimcvError

    if min_top1 is not None and data is None:
        raise SlimcvError("--min-top1 needs labelled pictures", "give them with --data DIR")
    log_to_stderr()

    from slimcv import bundle as bundles
    from slimcv import report
    from slimcv.report.junit import errors_told, of_verification, write_junit
    from slimcv.report.verification import render_verification
    from slimcv.serving.verification import Limits
    from slimcv.serving.verification import verify as verified

    limits = Limits(max_latency_ms, min_top1, min_agreement)
    suite = f"slimcv verify {bundle}"
    with errors_told(junit, suite):
        if bundle.is_dir():
            with suppress(SlimcvError):  # A folder that is no bundle is for what follows to name.
                tune_allocator_for(runtime or bundles.read(bundle, verify=False).serve.runtime)
        found = verified(bundle, limits, source=data, runtime=runtime, threads=threads, cache=cache)
    document = found.as_json()
    print(render_verification(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    write_junit(junit, suite, of_verification(document))
    if not found.passed:
        raise typer.Exit(EXIT_DAMAGED if found.damaged else EXIT_FAILED)
