"""Neural Compressor's calls, without what they print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimcv.runtimes import quiet as libraries


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Neural Compressor and torchao print, warn and log off the terminal.

    Loggers made before keep writing to the process's own stderr, so the file descriptors are turned away too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        with libraries.quiet():
            yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def neural_compressor() -> Any:
    """Its static quantiser for X86, 8 bits, with its own defaults."""
    with quiet():
        from neural_compressor.torch.algorithms.pt2e_quant.core import W8A8PT2EQuantizer
        from neural_compressor.torch.quantization import get_default_static_config

        return W8A8PT2EQuantizer(get_default_static_config())
