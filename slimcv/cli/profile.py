"""`slimcv profile`: where time and memory go, and which step addresses it."""

from __future__ import annotations

import sys

from slimcv.cli.intake import load_model, log_to_stderr
from slimcv.cli.options import (
    ArchOption,
    CodeOption,
    Format,
    FormatOption,
    InputOption,
    ModelArgument,
    ThreadsOption,
)


def profile(
    model: ModelArgument,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    threads: ThreadsOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Say where MODEL's time and memory go, layer by layer, and which recipe step addresses it."""
    from slimcv import sidecar

    beside = sidecar.find(model)
    log_to_stderr()

    from slimcv import profile as profiling
    from slimcv import report
    from slimcv.measure.threads import available

    variant = load_model(model, arch=arch, code=code, shape=input_shape, mean=None, std=None, beside=beside)
    found = profiling.profile(variant, threads=threads or available(), name=model)
    print(
        report.render_profile(found.as_json(), output_format.value, colour=report.wants_colour(sys.stdout)),
        end="",
    )
