"""Libraries that a runtime cannot do without: where one is missing, it says which and how to get it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from slimcv.errors import SlimcvError, first_line

_PACKAGES = {
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "openvino": "openvino",
    "nncf": "slimcv[nncf]",
}
"""What pip is told for each module."""


@contextlib.contextmanager
def required(what: str, *, raising: type[SlimcvError] = SlimcvError) -> Iterator[None]:
    """Within it a library that is not installed, or does not import, is an error that a user can mend.

    `what` needs the library. Raises SlimcvError, or `raising`; an import that fails in any other module is a
    bug and stays one.
    """
    try:
        yield
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _PACKAGES:
            raise
        missing = isinstance(error, ModuleNotFoundError) and error.name == library
        reason = "is not installed" if missing else f"cannot be imported: {first_line(error)}"
        whose = library if library == what else f"{what} needs {library}, which"
        raise raising(f"{whose} {reason}", f"pip install '{_PACKAGES[library]}'") from error
